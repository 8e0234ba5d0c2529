"""The map of any block with its linear function as one matrix."""

from typing import Any

import torch
from torch import Tensor

from ..compute.lowered import Lowered, scaled
from .base import DirectMap, SelfAttentionMap

# Multiply-adds that take as long as reading one number from memory: about 20 was measured on a server's CPU (products of 1, 13,
# 40 and 100 rows with a table of 310 MB), and a GPU's ratio of arithmetic to bandwidth is of the same order.
READ_COST = 20


class TabulatedMap(SelfAttentionMap):
    """The map of any block, with U(e) of every token as one matrix, formed once per image: cheaper for many masks.

    U(e) is linear in e, so its matrix, for every head [D, N * d_h], is U of the D axes. `worthwhile` says when it pays.
    """

    def __init__(self, source: DirectMap):
        super().__init__(source.values.transpose(0, 1), source.prefix)
        self.buffers = source.buffers
        self.unit = source.unit
        self.setup_macs = source.setup_macs + source.seed.shape[1] * source.block_macs
        width, entries = source.seed.shape[1], self.tokens * self.head_width
        self.table = source.seed.new_empty(self.heads, width, entries, dtype=source.precision)
        # What the tokens share is large: it keeps its digits.
        self.common = source.seed.new_empty(self.heads, width, 1, self.head_width)
        scales: list[Any] = []
        rows = max(1, self.buffers.chunk_bytes // source.cotangent_bytes)
        for first in range(0, width, rows):
            chosen = slice(first, first + rows)
            u = source.by_head(source.block_vjp(source.seed.T[chosen])).transpose(0, 1)  # [h, rows, N, d_h]
            self.common[:, chosen] = u.mean(2, keepdim=True)
            low = Lowered.of(u.sub_(self.common[:, chosen]), source.precision, (0, 2, 3))
            self.table[:, chosen].unflatten(2, (self.tokens, -1)).copy_(low.numbers)
            scales.append(low.scale)
        self.scale = None if scales[0] is None else torch.cat(scales, 1).flatten()  # [D]

    @staticmethod
    def worthwhile(source: DirectMap, masks: int, iterations: int) -> bool:
        """Whether the table fits into what one may take, and takes fewer operations to form and use than it saves.

        Its products read the whole table for a chunk of masks at a time, so reading is counted, at READ_COST.
        """
        width = source.seed.shape[1]
        entries = source.tokens * source.heads * source.head_width
        if entries * width * source.precision.itemsize > source.buffers.table_bytes:
            return False
        at_once = max(1, min(masks, source.buffers.chunk_bytes // (entries * source.precision.itemsize)))
        reads = READ_COST * entries * width * -(-masks // at_once)
        table = width * source.block_macs + 2 * iterations * (masks * entries * width + reads)
        return table < 2 * iterations * masks * source.block_macs

    @property
    def step_macs(self) -> int:
        return 2 * (self.table.numel() + self.relevance_macs)

    @property
    def cotangent_bytes(self) -> int:
        return self.values.numel() * self.table.dtype.itemsize

    def cotangent_buffer(self, *masks: int) -> Tensor:
        shape = (self.heads, *masks, self.tokens, self.head_width)
        return self.buffers.array("cotangents", *shape, dtype=self.values.dtype, of=self).transpose(0, 1)

    def cotangents(self, unit: Tensor) -> Tensor:
        # U is blind to what is taken away, on which low precision would spend its digits.
        unit = unit - (unit @ self.unit)[:, None] * self.unit
        low = Lowered.of(unit if self.scale is None else unit * self.scale, self.table.dtype, -1)
        found = self.cotangent_buffer(len(unit))
        u = found.transpose(0, 1)  # [h, M, N, d_h]
        varying = self.as_precise(u.flatten(2))
        torch.bmm(low.numbers.expand(self.heads, -1, -1), self.table, out=varying)
        scaled(u.flatten(2).copy_(varying), low.scale)
        u.add_((unit @ self.common[:, :, 0])[:, :, None])
        return found

    def cotangents_vjp(self, gradient: Tensor) -> Tensor:
        gradient = gradient.transpose(0, 1)  # [h, M, N, d_h]
        flat = gradient.flatten(2)
        low = Lowered.of(flat, self.table.dtype, -1, out=self.as_precise(flat))
        varying = scaled((low.numbers @ self.table.mT).to(gradient.dtype), low.scale, self.scale)
        return (varying + gradient.sum(2) @ self.common[:, :, 0].mT).sum(0)

    def as_precise(self, like: Tensor) -> Tensor:
        """Itself, or a buffer for it at the precision of the table."""
        if like.dtype == self.table.dtype:
            return like
        return self.buffers.array("hidden", *like.shape, dtype=self.table.dtype)
