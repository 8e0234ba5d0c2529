"""How a step is computed: which form each layer's map takes, at which precision, how many masks at a time, in which memory.

Nothing here changes what is computed, beyond what a lower precision does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..compute.buffers import Buffers, sliced
from ..compute.processor import has_bfloat16
from .base import DirectMap, LayerMap
from .objective import Objective
from .pooler import PoolerMap
from .table import TabulatedMap


class Plan:
    """The loss of M tokens of one image, and its gradient, computed as is cheapest.

    maps: of the layers that the explainability map sums over. objective: of M masks. start: the unit tokens at the first
    evaluation, [M, D]; or [D], the one that all of them have, whose cotangents are formed once, and exactly. iterations: how many
    evaluations there will be.
    precision: `exact`, or `fast`, with the large products in bfloat16 where that is faster on this device.
    """

    def __init__(
        self, maps: Sequence[LayerMap], objective: Objective, start: Tensor, masks: int, iterations: int, precision: str = "exact"
    ):
        self.objective, self.masks = objective, masks
        buffers = Buffers.of(start.device)
        exact = [layer.with_buffers(buffers) for layer in maps]
        lowered = precision == "fast" and has_bfloat16(start.device)
        self.maps = [cheapest_form(layer.at_precision(torch.bfloat16) if lowered else layer, masks, iterations) for layer in exact]
        self.chunk = buffers.chunk_bytes // max(layer.cotangent_bytes for layer in self.maps)
        self.part = buffers.cache_bytes // sum(layer.relevance_bytes for layer in self.maps)
        self.start: list[Tensor] | None = [layer.cotangents(start[None]).clone() for layer in exact] if start.ndim == 1 else None
        self.relevance = start.new_empty(masks, objective.grid[0] * objective.grid[1])  # [M, P], of the last evaluation

    def evaluate(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [M] of unit tokens [M, D], and its gradient [M, D] with respect to them."""
        losses, gradient = unit.new_empty(self.masks), torch.empty_like(unit)
        for chunk in sliced(slice(0, self.masks), self.chunk):
            cotangents = self._cotangents(unit[chunk])
            for part in sliced(chunk, self.part):
                here = slice(part.start - chunk.start, part.stop - chunk.start)
                found = [layer.relevance(u[here]) for layer, u in zip(self.maps, cotangents, strict=True)]
                self.relevance[part] = sum(relevance for relevance, _ in found)
                losses[part], by_relevance = self.objective.select(part).evaluate(self.relevance[part])
                for layer, u, (_, rectified) in zip(self.maps, cotangents, found, strict=True):
                    u[here] = layer.relevance_vjp(by_relevance, rectified)  # in the place of what it is the gradient of
            gradient[chunk] = sum(layer.cotangents_vjp(u) for layer, u in zip(self.maps, cotangents, strict=True))
        self.start = None
        return losses, gradient

    def render(self) -> Tensor:
        """The normalised maps [M, H, W] in 0..1 of the last evaluation."""
        return self.objective.render(self.relevance)

    def _cotangents(self, unit: Tensor) -> list[Tensor]:
        if self.start is None:
            return [layer.cotangents(unit) for layer in self.maps]
        return [layer.cotangent_buffer(len(unit)).copy_(u) for layer, u in zip(self.maps, self.start, strict=True)]


def cheapest_form(layer: LayerMap, masks: int, iterations: int) -> LayerMap:
    """The form of this map that takes the fewest operations for so many masks and steps."""
    if isinstance(layer, DirectMap) and TabulatedMap.worthwhile(layer, masks, iterations):
        return TabulatedMap(layer)
    if isinstance(layer, PoolerMap) and layer.worth_multiplying_out(masks, iterations):
        return layer.multiplied_out()
    return layer
