"""The explainability map as a rectified linear function of the token, and its transpose, both in closed form.

LeGrad (arXiv 2404.03214) explains a score by its gradient with respect to attention. MaskInversion's gradient
decomposition (arXiv 2407.20034, section 3.3) uses that this gradient is linear in the token, so that what does not depend
on the token is computed once per image. Here the linear function is kept in factored form: the score depends on the
attention A_h only through W_O [A_h V_h], hence

    dscore/dA_h[i, j] = U_h[i] . V_h[j],      U_h[i] = (W_O^T dscore/dy_i)_h,      y = the tokens after the attention

and dscore/dy_i is the gradient through the MLP, the mean over the tokens, the last norm, the projection and the
normalisation, all of which have short derivatives. Nothing of size tokens x tokens x embedding is ever formed, and no
autograd goes through the model, so all of it works under `torch.inference_mode`.

Shapes: M masks, N tokens, P = N - prefix patches, d width, m width of the MLP, h heads, D embedding. The maps of B pictures can be
joined, see `joined`; then B, M stands wherever it says M here, with M masks of each picture, and B before all that is a picture's.

Here are what all maps share and the map of self-attention. `block` is the usual block, with its products folded; `chain` is any
other block that treats every token by itself after the attention; `table` has the linear function as one matrix, for many masks;
`pooler` is for models that pool with attention. `plan` chooses among them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ..compute.buffers import Buffers
from ..compute.matmul import linear
from .linearized import LinearizedLayer, chain_joined, same_weight

Map = TypeVar("Map", bound="LayerMap")


@dataclass(frozen=True)
class Norm:
    """A layer norm: weight [d], bias [d] and eps."""

    weight: Tensor
    bias: Tensor
    eps: float

    def normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of x [..., d]: the normalised input before weight and bias [..., d], and 1 / standard deviation [..., 1]."""
        centred = x - x.mean(-1, keepdim=True)
        inverse = (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return centred * inverse, inverse


@dataclass(frozen=True)
class Head:
    """From the mean token to the joint space: f = LN(p) @ projection + bias, with projection [d, D]."""

    norm: Norm
    projection: Tensor
    bias: Tensor | None = None


class LayerMap(ABC):
    """The map of one layer for a fixed image, a rectified linear function of the unit token e.

    In two stages, each with its vector-Jacobian product (vjp): the cotangents U(e) take the large products, for many masks at
    once; the relevance the many small ones, for as many masks as the cache holds.

    cotangent_bytes, relevance_bytes: about what one mask takes in each stage. setup_macs: multiply-adds that it took to make this
    map of an image's tokens, beyond the encoder's own. step_macs: multiply-adds of one step of one mask.
    per_picture, weights: the names of the tensors that are a picture's own, and of those that are the model's. chain: layers that
    have both.
    """

    per_picture: ClassVar[tuple[str, ...]]
    weights: ClassVar[tuple[str, ...]] = ()
    chain: Sequence[LinearizedLayer] = ()
    cotangent_bytes: int
    relevance_bytes: int
    setup_macs: int
    step_macs: int
    buffers: Buffers

    def with_buffers(self, buffers: Buffers) -> "LayerMap":
        """The same map, working in these."""
        form = copy(self)
        form.buffers = buffers
        return form

    def at_precision(self, dtype: torch.dtype) -> "LayerMap":
        """The same map with its products at this precision, where that pays. Sums, the map and the loss keep theirs."""
        return self

    @property
    def widest_bytes(self) -> int:
        """About the largest that a step makes of one mask."""
        return max(self.cotangent_bytes, self.relevance_bytes)

    def joined(self: Map, others: Sequence[Map]) -> Map | None:
        """This map and those of other pictures, of the same class and grid, as one; None where not of one block of one model."""
        every = [self, *others]
        if not all(same_weight([getattr(one, name) for one in every]) for name in self.weights):
            return None
        chain = chain_joined([one.chain for one in every])
        if chain is None:
            return None
        form = copy(self)
        form.chain = chain
        for name in self.per_picture:
            setattr(form, name, torch.stack([getattr(one, name) for one in every]))
        return form

    @abstractmethod
    def cotangent_buffer(self, *masks: int) -> Tensor:
        """Memory for the cotangents of so many masks [M, ...]."""

    @abstractmethod
    def cotangents(self, unit: Tensor) -> Tensor:
        """U(e) [M, ...] of unit tokens [M, D]: what meets the image's values, linear in the token."""

    @abstractmethod
    def relevance(self, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance [M, P], and the rectified gradient of the attention that `relevance_vjp` takes."""

    @abstractmethod
    def relevance_vjp(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        """dloss/dU, of dloss/drelevance [M, P]. Overwrites `rectified`."""

    @abstractmethod
    def cotangents_vjp(self, gradient: Tensor) -> Tensor:
        """dloss/de [M, D], of dloss/dU."""


class SelfAttentionMap(LayerMap):
    """relevance[j] = mean over heads and query rows i of max(dscore/dA[i, j], 0)   (LeGrad, equation 8)

    values [N, h, d_h]: the rows that the attention mixes. Cotangents are [M, h, N, d_h].
    """

    per_picture = ("values",)

    def __init__(self, values: Tensor, prefix: int):
        self.prefix, self.tokens = prefix, len(values)
        self.heads, self.head_width = values.shape[1:]
        self.values = values.transpose(0, 1).contiguous()  # [h, N, d_h]
        self.relevance_bytes = self.heads * self.tokens**2 * values.element_size()
        self.buffers = Buffers.of(values.device)

    @property
    def relevance_macs(self) -> int:
        """Multiply-adds of U(e) with the values, for one mask."""
        return self.heads * self.tokens * (self.tokens - self.prefix) * self.head_width

    def relevance(self, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        by_head = cotangents.transpose(-4, -3).flatten(-3, -2)  # [h, M * N, d_h]: one product a head for all masks
        gradient = self.buffers.array("gradient", *by_head.shape[:-1], self.tokens - self.prefix, dtype=by_head.dtype, of=self)
        torch.matmul(by_head, self.values[..., self.prefix :, :].mT, out=gradient)  # dscore/dA
        rectified = gradient.relu_().unflatten(-2, (-1, self.tokens))  # [h, M, N, P]
        return rectified.sum(-2).sum(-3) / (self.heads * self.tokens), rectified

    def relevance_vjp(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        by_attention = rectified.sign_().mul_(gradient[..., None, :, None, :] / (self.heads * self.tokens))
        by_cotangents = by_attention.flatten(-3, -2) @ self.values[..., self.prefix :, :]
        return by_cotangents.unflatten(-2, (-1, self.tokens)).transpose(-4, -3)


class DirectMap(SelfAttentionMap):
    """U(e) computed through the block at every step.

    seed [d, D]: dscore/dz_i of any token that leaves the block, linear in e. unit [D]: the image's feature, at which the score is
    largest, so that seed @ unit is zero. precision: of the large products. block_macs: multiply-adds of one `block_vjp` or
    `block_jvp` of one mask.
    """

    per_picture = (*SelfAttentionMap.per_picture, "seed", "unit")
    precision: torch.dtype
    block_macs: int

    def __init__(self, values: Tensor, seed: Tensor, unit: Tensor, prefix: int):
        super().__init__(values, prefix)
        self.seed, self.unit = seed, unit
        self.precision = seed.dtype

    @property
    def step_macs(self) -> int:
        return 2 * (self.block_macs + self.relevance_macs)

    @abstractmethod
    def block_vjp(self, gradient: Tensor) -> Tensor:
        """dscore/d(concatenated heads) [M, N, h * d_h], of dscore/dz_i = gradient [M, d], the same for every token."""

    @abstractmethod
    def block_jvp(self, change: Tensor) -> Tensor:
        """The transpose of `block_vjp`: [M, N, h * d_h] to [M, d]."""

    def cotangent_buffer(self, *masks: int) -> Tensor:
        shape = (*masks, self.tokens, self.heads * self.head_width)
        return self.by_head(self.buffers.array("cotangents", *shape, dtype=self.seed.dtype, of=self))

    def cotangents(self, unit: Tensor) -> Tensor:
        return self.by_head(self.block_vjp(of_pictures(unit, self.seed)))

    def by_head(self, u: Tensor) -> Tensor:
        """[M, N, h * d_h] as [M, h, N, d_h]."""
        return u.unflatten(-1, (self.heads, self.head_width)).transpose(-3, -2)

    def cotangents_vjp(self, gradient: Tensor) -> Tensor:
        return self.block_jvp(gradient.transpose(-3, -2).flatten(-2)) @ self.seed


def of_pictures(x: Tensor, matrix: Tensor) -> Tensor:
    """x [M, in] times the transpose of a picture's matrix [out, in]: `linear`, but for pictures that are joined."""
    return linear(x, matrix) if matrix.ndim == 2 else x @ matrix.mT


def pooled_gradient(pooled: Tensor, head: Head, tokens: int) -> tuple[Tensor, Tensor]:
    """d/dz of cos(e, f), f = LN(p) @ projection, at the mean token p [d] of `tokens` tokens z; and f / |f| [D].

    It is linear in the unit token e: a matrix [d, D].
    """
    normal, inverse = head.norm.normalised(pooled)
    feature = (normal * head.norm.weight + head.norm.bias) @ head.projection
    if head.bias is not None:
        feature = feature + head.bias
    length = feature.norm()
    unit = feature / length
    through = head.norm.weight[:, None] * (head.projection - (head.projection @ unit)[:, None] * unit) / length
    by_mean = inverse * (through - through.mean(0) - normal[:, None] * (normal @ through) / len(normal))
    return by_mean / tokens, unit
