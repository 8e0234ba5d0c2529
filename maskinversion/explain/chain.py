"""The map of any block that treats every token by itself after the attention."""

from copy import copy

import torch
from torch import Tensor

from .base import DirectMap, Head, pooled_gradient
from .linearized import LinearizedLayer, chain_jvp, chain_vjp


class ChainMap(DirectMap):
    """The map of any block that treats every token by itself after the attention, as a chain of linearised `chain`.

    chain: from the concatenated heads to the tokens that leave the block. leaving: those tokens [N, d].
    """

    def __init__(self, values: Tensor, chain: list[LinearizedLayer], leaving: Tensor, head: Head, prefix: int):
        super().__init__(values, *pooled_gradient(leaving.mean(0), head, len(leaving)), prefix)
        self.chain = chain

    @property
    def wide(self) -> int:
        widest = max(self.seed.shape[0], self.heads * self.head_width) * 4
        return 4 * self.tokens * widest * self.values.element_size()

    @property
    def setup_macs(self) -> int:
        return self.vjp_macs

    def at_precision(self, dtype: torch.dtype) -> "ChainMap":
        form = copy(self)
        form.precision = dtype
        form.chain = [layer.at_precision(dtype) for layer in self.chain]
        return form

    @property
    def vjp_macs(self) -> int:
        return self.tokens * sum(layer.macs for layer in self.chain)

    def vjp(self, g: Tensor) -> Tensor:
        return chain_vjp(self.chain, g[:, None].expand(-1, self.tokens, -1))

    def jvp(self, du: Tensor) -> Tensor:
        return chain_jvp(self.chain, du).sum(1)
