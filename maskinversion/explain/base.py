"""The explainability map as a rectified linear function of the token, and its transpose, both in closed form.

LeGrad (arXiv 2404.03214) explains a score by its gradient with respect to attention. MaskInversion's gradient
decomposition (arXiv 2407.20034, section 3.3) uses that this gradient is linear in the token, so that what does not depend
on the token is computed once per image. Here the linear function is kept in factored form: the score depends on the
attention A_h only through W_O [A_h V_h], hence

    dscore/dA_h[i, j] = U_h[i] . V_h[j],      U_h[i] = (W_O^T dscore/dy_i)_h,      y = the tokens after the attention

and dscore/dy_i is the gradient through the MLP, the mean over the tokens, the last norm, the projection and the
normalisation, all of which have short derivatives. Nothing of size tokens x tokens x embedding is ever formed, and no
autograd goes through the model, so all of it works under `torch.inference_mode`.

Shapes: M masks, N tokens, P = N - prefix patches, d width, m width of the MLP, h heads, D embedding.

`BlockMap` is the usual block, with its products folded; `ChainMap` is any other block that treats every token by itself
after the attention; `PoolerMap` is for models that pool with attention.
"""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from ..compute.buffers import Buffers
from ..compute.matmul import linear


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

    In two stages, with a transpose each: `queries` and `gather` do the large products, for many masks at once; `relevance` and
    `transpose` the many small ones, for as many masks as the cache holds.

    wide, narrow: about the bytes that one mask takes in the first stage and in the second. forming: multiply-adds that it took to
    make this map of an image's tokens, beyond the encoder's own. step_macs: multiply-adds of one step of one mask.
    """

    wide: int
    narrow: int
    setup_macs: int
    step_macs: int
    memory: Buffers

    def with_buffers(self, memory: Buffers) -> "LayerMap":
        """The same map, working in this memory."""
        form = copy(self)
        form.buffers = memory
        return form

    def at_precision(self, dtype: torch.dtype) -> "LayerMap":
        """The same map with its products at this precision, where that pays. Sums, the map and the loss keep theirs."""
        return self

    def cheapest(self, masks: int, iterations: int) -> "LayerMap":
        """The form of this map that takes the fewest operations for so many masks and steps."""
        return self

    @abstractmethod
    def cotangent_buffer(self, masks: int) -> Tensor:
        """Memory for the queries of so many masks [M, ...]."""

    @abstractmethod
    def cotangents(self, direction: Tensor) -> Tensor:
        """U(e) [M, ...] of unit tokens [M, D]: what meets the image, linear in the token."""

    @abstractmethod
    def relevance(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance [M, P], and the rectified gradient that `transpose` takes."""

    @abstractmethod
    def relevance_vjp(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        """Gradient with respect to the queries, of dloss/drelevance [M, P]. Overwrites `rectified`."""

    @abstractmethod
    def cotangents_vjp(self, du: Tensor) -> Tensor:
        """Gradient [M, D] with respect to the unit tokens, of that with respect to the queries."""


class SelfAttentionMap(LayerMap):
    """relevance[j] = mean over heads and query rows i of max(dscore/dA[i, j], 0)   (LeGrad, equation 8)

    values [N, h, d_h]: the rows that the attention mixes. Queries are [M, h, N, d_h].
    """

    def __init__(self, values: Tensor, prefix: int):
        self.prefix, self.tokens = prefix, len(values)
        self.heads, self.head_width = values.shape[1:]
        self.values = values.transpose(0, 1).contiguous()  # [h, N, d_h]
        self.narrow = self.heads * self.tokens**2 * values.element_size()
        self.buffers = Buffers.of(values.device)

    @property
    def relevance_macs(self) -> int:
        """Multiply-adds of U(e) with the values, for one mask."""
        return self.heads * self.tokens * (self.tokens - self.prefix) * self.head_width

    def relevance(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        by_head = queries.transpose(0, 1).flatten(1, 2)  # one product a head for all masks
        scores = self.buffers.array("scores", *by_head.shape[:2], self.tokens - self.prefix, dtype=by_head.dtype, of=self)
        torch.bmm(by_head, self.values[:, self.prefix :].mT, out=scores)
        rectified = scores.relu_().unflatten(1, (len(queries), -1))  # [h, M, N, P]
        return rectified.sum(2).sum(0) / (self.heads * self.tokens), rectified

    def relevance_vjp(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        by_score = rectified.sign_().mul_(gradient[:, None] / (self.heads * self.tokens))
        du = by_score.flatten(1, 2) @ self.values[:, self.prefix :]
        return du.unflatten(1, rectified.shape[1:3]).transpose(0, 1)


class DirectMap(SelfAttentionMap):
    """U(e) computed through the block at every step.

    seed [d, D]: dscore/dz_i of any token, linear in e. unit [D]: the image's feature, at which the score is largest, so that
    seed @ unit is zero. precision: of the large products. vjp_macs: multiply-adds of one `pull` or `push` of one mask.
    """

    precision: torch.dtype
    vjp_macs: int

    def __init__(self, values: Tensor, seed: Tensor, unit: Tensor, prefix: int):
        super().__init__(values, prefix)
        self.seed, self.unit = seed, unit
        self.precision = seed.dtype

    @property
    def step_macs(self) -> int:
        return 2 * (self.vjp_macs + self.relevance_macs)

    def cheapest(self, masks: int, iterations: int) -> LayerMap:
        from .table import TabulatedMap

        return TabulatedMap(self) if TabulatedMap.worthwhile(self, masks, iterations) else self

    @abstractmethod
    def vjp(self, g: Tensor) -> Tensor:
        """dscore/d(concatenated heads) [M, N, h * d_h], of dscore/dz_i = g [M, d], the same for every token."""

    @abstractmethod
    def jvp(self, du: Tensor) -> Tensor:
        """The transpose of `pull`: [M, N, h * d_h] to [M, d]."""

    def cotangent_buffer(self, masks: int) -> Tensor:
        shape = (masks, self.tokens, self.heads * self.head_width)
        return self.by_head(self.buffers.array("queries", *shape, dtype=self.seed.dtype, of=self))

    def cotangents(self, direction: Tensor) -> Tensor:
        return self.by_head(self.vjp(linear(direction, self.seed)))

    def by_head(self, u: Tensor) -> Tensor:
        """[M, N, h * d_h] as [M, h, N, d_h]."""
        return u.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def cotangents_vjp(self, du: Tensor) -> Tensor:
        return self.jvp(du.transpose(1, 2).flatten(2)) @ self.seed


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
