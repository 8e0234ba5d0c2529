"""The map of the usual transformer block."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.buffers import sliced
from ..compute.cached_product import CachedProduct
from ..compute.lowered import Lowered, scaled
from ..compute.matmul import linear
from .base import DirectMap, Head, Norm, of_pictures, pooled_gradient
from .linearized import value_and_slope


@dataclass(frozen=True)
class Block:
    """What the map needs of one transformer block, y = x + attention(x), z = y + W2 act(W1 LN(y) + b1) + b2.

    `values` [N, h, d_h] are the rows that the attention mixes, `after_attention` [N, d] is y, `output` [d, h * d_h] is W_O.
    `norm`, `expand` (W1 [m, d], b1 [m]), `activation`, `contract` (W2 [d, m], b2 [d]) are the MLP; where that has no
    biases they are None. A LayerScale is already multiplied into `output` and `contract`. `folded` keeps a product of this
    block's weights between images.
    """

    values: Tensor
    after_attention: Tensor
    output: Tensor
    norm: Norm
    expand: tuple[Tensor, Tensor | None]
    activation: Callable[[Tensor], Tensor]
    contract: tuple[Tensor, Tensor | None]
    folded: CachedProduct


class BlockMap(DirectMap):
    """The map of a block whose MLP is two linear layers with an activation between them.

    leaving [N, d]: the tokens that leave the block.
    """

    per_picture = (*DirectMap.per_picture, "slope", "corr_weight", "corr_row")
    weights = ("output", "contract", "folded", "folded_back")
    lowered: "Factors | None" = None  # for large products at another precision

    def __init__(self, block: Block, head: Head, prefix: int):
        y = block.after_attention
        tokens, width = y.shape
        self.output = block.output

        normal, inverse = block.norm.normalised(y)
        weight, bias = block.expand
        varying = (normal * block.norm.weight) @ weight.T  # [N, m]
        active, slope = value_and_slope(block.activation, varying + F.linear(block.norm.bias, weight, bias))
        self.contract = block.contract[0]
        self.leaving = y + F.linear(active, *block.contract)

        # W1^T, the norm's weight, its subtraction of the mean and W_O fold into one matrix; what is left of the norm has rank one.
        centred = block.output - block.output.mean(0)
        folding = (centred * block.norm.weight[:, None]).T, weight.T
        self.folded, self.folded_back = block.folded.of(*folding)  # [h * d_h, m], [m, h * d_h]
        self.slope = slope * inverse  # [N, m]
        self.corr_weight = varying.mul_(self.slope).div_(width)  # [N, m]: its product with W2^T g is mean(c_i * normal_i)
        self.corr_row = normal @ block.output  # [N, h * d_h]
        super().__init__(block.values, *pooled_gradient(self.leaving.mean(0), head, tokens), prefix)

    @property
    def cotangent_bytes(self) -> int:
        return self.tokens * self.corr_row.shape[-1] * self.corr_row.element_size()

    @property
    def widest_bytes(self) -> int:
        return max(super().widest_bytes, self.hidden_bytes)

    @property
    def hidden_bytes(self) -> int:
        """Of the hidden layer of one mask."""
        return self.tokens * self.slope.shape[-1] * self.precision.itemsize

    @property
    def setup_macs(self) -> int:
        return self.corr_row.numel() * len(self.output)

    def at_precision(self, dtype: torch.dtype) -> "BlockMap":
        form = copy(self)
        form.precision, common = dtype, self.slope.mean(-2, keepdim=True)
        factors = self.slope - common, self.folded, self.folded_back
        form.lowered = Factors(common, *(Lowered.of(factor, dtype, (-2, -1)) for factor in factors))
        return form

    @property
    def block_macs(self) -> int:
        return self.slope.numel() * len(self.folded)

    def parts(self, masks: Tensor) -> list[slice]:
        """As many of masks [M, ...] at a time as the cache holds the hidden layer of; of pictures that are joined, all."""
        return sliced(slice(0, len(masks)), len(masks) if self.slope.ndim > 2 else self.buffers.cache_bytes // self.hidden_bytes)

    def block_vjp(self, gradient: Tensor) -> Tensor:
        low = self.lowered
        slope, folded = (Lowered(self.slope), Lowered(self.folded)) if low is None else (low.varying, low.folded)
        hidden = gradient @ self.contract  # [M, m]
        rows = Lowered.of(hidden, self.precision, -1)
        u = self.cotangent_buffer(*gradient.shape[:-1]).transpose(-3, -2).flatten(-2)
        for part in self.parts(gradient):
            row = rows.numbers[part][..., None, :]
            of_all = self.buffers.array("hidden", *row.shape[:-2], *self.slope.shape[-2:], dtype=self.precision)
            u[part] = linear(torch.mul(slope.numbers[..., None, :, :], row, out=of_all), folded.numbers)
        if rows.scale is not None:
            u *= scaled(rows.scale, slope.scale, folded.scale)[..., None]
        u.addcmul_(of_pictures(hidden, self.corr_weight)[..., None], self.corr_row[..., None, :, :], value=-1)
        shared = gradient @ self.output
        if low is not None:
            shared += linear(hidden * low.common, self.folded)
        return u.add_(shared[..., None, :])

    def block_jvp(self, change: Tensor) -> Tensor:
        low = self.lowered
        slope, back = (Lowered(self.slope), Lowered(self.folded_back)) if low is None else (low.varying, low.folded_back)
        hidden = change.new_empty(*change.shape[:-2], len(self.folded_back))
        corrected = change.new_empty(*change.shape[:-1])
        for part in self.parts(change):
            rows = Lowered.of(change[part], self.precision, (-2, -1))
            product = linear(rows.numbers, back.numbers).mul_(slope.numbers[..., None, :, :]).sum(-2, dtype=change.dtype)
            hidden[part] = product if rows.scale is None else scaled(product, rows.scale[..., 0], slope.scale, back.scale)
            product = self.buffers.array("corrected", *change[part].shape, dtype=change.dtype)
            corrected[part] = torch.mul(change[part], self.corr_row[..., None, :, :], out=product).sum(-1)
        hidden -= corrected @ self.corr_weight
        total = change.sum(-2)
        if low is not None:
            hidden += linear(total, self.folded_back) * low.common
        return linear(total, self.output) + linear(hidden, self.contract)


@dataclass(frozen=True)
class Factors:
    """What the large products take at a lower precision: the weights, and the slopes less their mean over the tokens.

    common [1, m], varying [N, m]: that mean, which keeps its digits, and the rest; of B pictures that are joined [B, 1, m] and
    [B, N, m]. Most of a slope is the same for all tokens, and low precision loses a share of what it is given.
    """

    common: Tensor
    varying: Lowered
    folded: Lowered
    folded_back: Lowered
