"""How a step is computed: which form each layer's map takes, at which precision, how many masks at a time, in which memory.

Nothing here changes what is computed, beyond what a lower precision does.
"""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from ..compute.buffers import Buffers, sliced
from ..compute.processor import low_precision
from .base import DirectMap, LayerMap
from .objective import Objective
from .pooler import PoolerMap
from .table import TabulatedMap


class Plan:
    """The loss of M tokens, and its gradient, computed as is cheapest.

    maps: of the layers that the explainability map sums over, of one image, or joined of `pictures` of them, which have as many of
    the masks each. objective: of M masks. start [pictures, D]: the unit token of all masks of an image at the first evaluation,
    whose cotangents are formed once; None where each has its own. iterations: how many evaluations there will be.
    precision: `exact`, or `fast`, with the large products in half precision where that is faster on this device, but for the first
    evaluation: AdamW takes the first step by the signs of the gradient, so that numbers near zero count as much as all others.
    """

    def __init__(
        self,
        maps: Sequence[LayerMap],
        objective: Objective,
        start: Tensor | None,
        masks: int,
        iterations: int,
        precision: str = "exact",
        pictures: int = 1,
    ):
        self.objective, self.masks, self.each = objective, masks, masks // pictures if pictures > 1 else 1
        self.shape = (masks,) if pictures == 1 else (pictures, self.each)
        device = objective.rows.device
        buffers = Buffers.of(device)
        exact = [layer.with_buffers(buffers) for layer in maps]
        lowered = low_precision(device) if precision == "fast" else None
        forms = exact if lowered is None else [layer.at_precision(lowered) for layer in exact]
        self.maps = [cheapest_form(layer, masks, iterations) for layer in forms] if pictures == 1 else forms
        self.first: list[LayerMap] | None = None if lowered is None else exact  # what the first evaluation is done with
        widest = max(layer.cotangent_bytes for layer in [*self.maps, *(self.first or ())])
        # Of what is joined, all goes together: see `pictures_at_once`.
        self.chunk = pictures if pictures > 1 else buffers.chunk_bytes // widest
        self.part = pictures if pictures > 1 else buffers.cache_bytes // sum(layer.relevance_bytes for layer in self.maps)
        first = None if start is None else start.reshape(*self.shape[:-1], 1, -1)
        self.start: list[Tensor] | None = None if first is None else [layer.cotangents(first).clone() for layer in exact]
        patches = objective.grid[0] * objective.grid[1]
        self.relevance = objective.rows.new_empty(*self.shape, patches)  # of the last evaluation

    def evaluate(self, unit: Tensor, going: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Loss [M] of unit tokens [M, D], and its gradient [M, D] with respect to them.

        going [M]: the masks of one image that there is still something to do for, after the first evaluation. The others' map is
        that of their last one, and their loss and gradient are 0.
        """
        if going is not None:
            part = copy(self)
            part.objective, part.relevance = self.objective.select(going), self.relevance[going]
            part.masks, part.shape = len(part.relevance), (len(part.relevance),)
            losses, gradient = unit.new_zeros(self.masks), torch.zeros_like(unit)
            losses[going], gradient[going] = part.evaluate(unit[going])
            self.relevance[going] = part.relevance
            return losses, gradient
        losses, unit = unit.new_empty(self.masks), unit.unflatten(0, self.shape)
        gradient, maps = torch.empty_like(unit), self.first or self.maps
        for chunk in sliced(slice(0, len(unit)), self.chunk):
            cotangents = self._cotangents(maps, unit[chunk])
            for part in sliced(chunk, self.part):
                here = slice(part.start - chunk.start, part.stop - chunk.start)
                masks = slice(part.start * self.each, part.stop * self.each)
                found = [layer.relevance(u[here]) for layer, u in zip(maps, cotangents, strict=True)]
                self.relevance[part] = sum(relevance for relevance, _ in found)
                losses[masks], slope = self.objective.select(masks).evaluate(self.relevance[part].flatten(0, -2))
                slope = slope.view_as(self.relevance[part])
                for layer, u, (_, rectified) in zip(maps, cotangents, found, strict=True):
                    u[here] = layer.relevance_vjp(slope, rectified)  # in the place of what it is the gradient of
            gradient[chunk] = sum(layer.cotangents_vjp(u) for layer, u in zip(maps, cotangents, strict=True))
        self.start = self.first = None
        return losses, gradient.flatten(0, -2)

    def render(self) -> Tensor:
        """The normalised maps [M, H, W] in 0..1 of the last evaluation."""
        return self.objective.render(self.relevance.flatten(0, -2))

    def _cotangents(self, maps: Sequence[LayerMap], unit: Tensor) -> list[Tensor]:
        if self.start is None:
            return [layer.cotangents(unit) for layer in maps]
        shape = unit.shape[:-1]
        return [layer.cotangent_buffer(*shape).copy_(u) for layer, u in zip(maps, self.start, strict=True)]


def has_cheaper_form(layer: LayerMap, masks: int, iterations: int) -> bool:
    """Whether there is a form of this map that takes fewer operations for so many masks and steps than it does itself."""
    if isinstance(layer, DirectMap):
        return TabulatedMap.worthwhile(layer, masks, iterations)
    return isinstance(layer, PoolerMap) and layer.worth_multiplying_out(masks, iterations)


def cheapest_form(layer: LayerMap, masks: int, iterations: int) -> LayerMap:
    """The form of this map that takes the fewest operations for so many masks and steps."""
    if has_cheaper_form(layer, masks, iterations):
        if isinstance(layer, DirectMap):
            return TabulatedMap(layer)
        if isinstance(layer, PoolerMap):
            return layer.multiplied_out()
    return layer


def pictures_at_once(maps: Sequence[LayerMap], masks: int, iterations: int) -> int:
    """How many pictures with such maps, and so many masks each, take their steps together: as many as the cache holds; 1 where each
    has a cheaper form of its own."""
    if any(has_cheaper_form(layer, masks, iterations) for layer in maps):
        return 1
    room = min(maps[0].buffers.cache_bytes // layer.widest_bytes for layer in maps)
    return max(1, room // masks)


def joined(maps: Sequence[Sequence[LayerMap]]) -> list[LayerMap] | None:
    """The maps of every layer of several pictures as one for each layer; None where they are not of one model."""
    found = []
    for first, *others in zip(*maps, strict=True):
        layer = None if any(type(one) is not type(first) for one in others) else first.joined(others)
        if layer is None:
            return None
        found.append(layer)
    return found
