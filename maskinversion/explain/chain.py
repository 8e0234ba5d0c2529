"""The map of any block that treats every token by itself after the attention."""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from .base import DirectMap, Head, pooled_gradient
from .linearized import LinearizedLayer, chain_jvp, chain_vjp


class ChainMap(DirectMap):
    """The map of any block that treats every token by itself after the attention, as a chain of linearised layers.

    chain: those from the concatenated heads to the tokens that leave the block. leaving: those tokens [N, d].
    """

    def __init__(self, values: Tensor, chain: Sequence[LinearizedLayer], leaving: Tensor, head: Head, prefix: int):
        super().__init__(values, *pooled_gradient(leaving.mean(0), head, len(leaving)), prefix)
        self.chain = chain

    @property
    def cotangent_bytes(self) -> int:
        widest = max(self.seed.shape[-2], self.heads * self.head_width) * 4
        return 4 * self.tokens * widest * self.values.element_size()

    @property
    def setup_macs(self) -> int:
        return self.block_macs

    def at_precision(self, dtype: torch.dtype) -> "ChainMap":
        form = copy(self)
        form.precision = dtype
        form.chain = [layer.at_precision(dtype) for layer in self.chain]
        return form

    @property
    def block_macs(self) -> int:
        return self.tokens * sum(layer.macs for layer in self.chain)

    def block_vjp(self, gradient: Tensor) -> Tensor:
        return chain_vjp(self.chain, gradient[..., None, :].expand(*gradient.shape[:-1], self.tokens, -1))

    def block_jvp(self, change: Tensor) -> Tensor:
        return chain_jvp(self.chain, change).sum(-2)
