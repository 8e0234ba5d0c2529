"""Other losses than Dice, which MaskInversion's reviewers asked for. They serve to compare; the product has Dice."""

from abc import abstractmethod

import torch
from torch import Tensor

from ..explain.objective import DiceObjective, Objective


class PixelObjective(Objective):
    """Any loss that is a mean over pixels. It works on maps of the masks' full size."""

    per_mask = ("masks",)

    def __init__(self, masks: Tensor, grid: tuple[int, int]):
        super().__init__(masks, grid)
        self.masks = masks

    @abstractmethod
    def pixelwise(self, heat: Tensor) -> tuple[Tensor, Tensor]:
        """Of maps [M, H, W] in 0..1: the loss of every pixel, and its derivative there."""

    def evaluate(self, relevance: Tensor) -> tuple[Tensor, Tensor]:
        r = relevance.unflatten(1, self.grid)
        extremes = self.extremes(r)
        low, scale = extremes.low[:, None, None], extremes.scale[:, None, None]
        heat = (self.rows @ r @ self.columns.T - low) / scale
        loss, slope = self.pixelwise(heat)
        slope = slope / self.pixels
        by_heat, total = (slope * heat).sum((1, 2)), slope.sum((1, 2))
        gradient = self.rows.T @ slope @ self.columns
        gradient += (by_heat - total)[:, None, None] * extremes.lowest - by_heat[:, None, None] * extremes.highest
        gradient = torch.where(extremes.flat[:, None, None], 0, gradient / scale)
        return loss.mean((1, 2)), gradient.flatten(1)


class MseObjective(PixelObjective):
    """mean((E - m)^2)"""

    name = "mse"

    def pixelwise(self, heat: Tensor) -> tuple[Tensor, Tensor]:
        off = heat - self.masks
        return off.square(), 2 * off


class BceObjective(PixelObjective):
    """mean(-m log E - (1 - m) log(1 - E)), with E kept EDGE away from 0 and 1, where it would be infinite."""

    name = "bce"
    EDGE = 1e-3

    def pixelwise(self, heat: Tensor) -> tuple[Tensor, Tensor]:
        kept = heat.clamp(self.EDGE, 1 - self.EDGE)
        loss = -self.masks * kept.log() - (1 - self.masks) * (-kept).log1p()
        slope = (kept - self.masks) / (kept * (1 - kept))
        return loss, torch.where(heat == kept, slope, 0)


OBJECTIVES: dict[str, type[Objective]] = {kind.name: kind for kind in (DiceObjective, MseObjective, BceObjective)}
