"""What is minimised: a loss of the map against the mask, and its gradient, given the map on the grid of patches.

The map is upsampled bilinearly and min-max normalised before it meets the mask (arXiv 2407.20034, section 3.2). A bilinear surface
has its extremes at the corners of its cells, so the minimum and maximum need four pixels a patch.
"""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Self = TypeVar("Self", bound="Objective")


class Objective(ABC):
    """A loss of maps E = minmax(upsample(R)) for fixed masks [M, H, W] in 0..1, with the relevance R given on `grid`, its rows and
    columns of patches.

    name: of the loss, in records and on the command line. per_mask: the attributes that have a row for every mask.
    """

    name: str
    per_mask: tuple[str, ...]

    def __init__(self, masks: Tensor, grid: tuple[int, int]):
        self.grid = grid
        self.rows = upsampling_matrix(grid[0], masks.shape[1], masks)  # [H, gh]
        self.columns = upsampling_matrix(grid[1], masks.shape[2], masks)  # [W, gw]
        self.corner_rows = self.rows[cell_corners(self.rows)]
        self.corner_columns = self.columns[cell_corners(self.columns)]
        self.pixels = masks.shape[1] * masks.shape[2]

    @abstractmethod
    def evaluate(self, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Loss [M] and its gradient [M, P], of relevance [M, P] on the grid."""

    def select(self: Self, chosen: slice | Tensor) -> Self:
        """The same objective for some of the masks."""
        part = copy(self)
        for name in self.per_mask:
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def render(self, relevance: Tensor) -> Tensor:
        """The normalised map [M, H, W] in 0..1. A map without any contrast is all zero."""
        r = relevance.unflatten(1, self.grid)
        extremes = self.extremes(r)
        full = self.rows @ r @ self.columns.T
        return full.sub_(extremes.low[:, None, None]).div_(extremes.scale[:, None, None]).clamp_(0, 1)

    def extremes(self, r: Tensor) -> "Extremes":
        """Of maps [M, gh, gw]."""
        corners = (self.corner_rows @ r @ self.corner_columns.T).flatten(1)
        low, low_at = corners.min(1)
        high, high_at = corners.max(1)
        return Extremes(low, high, self._weights(low_at), self._weights(high_at))

    def _weights(self, corner: Tensor) -> Tensor:
        """How a corner pixel [M] depends on the grid: [M, gh, gw]."""
        row, column = corner // len(self.corner_columns), corner % len(self.corner_columns)
        return self.corner_rows[row][:, :, None] * self.corner_columns[column][:, None, :]


class DiceObjective(Objective):
    """loss = 1 - (2 sum(E m) + 1) / (sum(E) + sum(m) + 1), the published one, without a map of the image's size.

    Upsampling is linear and separable, so sums over pixels are sums over the grid against the mask taken down to the grid.
    """

    name = "dice"
    per_mask = ("area", "mask_on_grid")

    def __init__(self, masks: Tensor, grid: tuple[int, int]):
        super().__init__(masks, grid)
        self.area = masks.sum((1, 2))  # [M]
        self.mask_on_grid = self.rows.T @ (masks @ self.columns)  # [M, gh, gw]: its product with R is sum(upsample(R) m)
        self.ones_on_grid = torch.outer(self.rows.sum(0), self.columns.sum(0))  # [gh, gw]

    def evaluate(self, relevance: Tensor) -> tuple[Tensor, Tensor]:
        r = relevance.unflatten(1, self.grid)
        extremes = self.extremes(r)
        scale = extremes.scale
        inside = ((r * self.mask_on_grid).sum((1, 2)) - extremes.low * self.area) / scale  # sum(E m)
        total = ((r * self.ones_on_grid).sum((1, 2)) - extremes.low * self.pixels) / scale  # sum(E)
        bottom = total + self.area + 1
        top = 2 * inside + 1
        loss = 1 - top / bottom

        by_inside, by_total = -2 / bottom, top / bottom.square()
        gradient = by_inside[:, None, None] * self.mask_on_grid + by_total[:, None, None] * self.ones_on_grid
        slope = by_inside * inside + by_total * total  # sum of dloss/dE * E
        base = by_inside * self.area + by_total * self.pixels  # sum of dloss/dE
        gradient = gradient + (slope - base)[:, None, None] * extremes.lowest - slope[:, None, None] * extremes.highest
        gradient = torch.where(extremes.flat[:, None, None], 0, gradient / scale[:, None, None])
        return loss, gradient.flatten(1)


@dataclass(frozen=True)
class Extremes:
    """Smallest and largest pixel [M] of the upsampled maps, and their weights on the grid [M, gh, gw]."""

    low: Tensor
    high: Tensor
    lowest: Tensor
    highest: Tensor

    @property
    def flat(self) -> Tensor:
        return self.high <= self.low

    @property
    def scale(self) -> Tensor:
        return torch.where(self.flat, 1, self.high - self.low)


def upsampling_matrix(cells: int, pixels: int, like: Tensor) -> Tensor:
    """The bilinear upsampling of torch (align_corners=False) in one dimension, as a matrix [pixels, cells]."""
    eye = torch.eye(cells, dtype=like.dtype, device=like.device)
    return F.interpolate(eye[None], size=pixels, mode="linear", align_corners=False)[0].T.contiguous()


def cell_corners(matrix: Tensor) -> Tensor:
    """Indices of the pixels at which a piecewise linear interpolation can be extreme: the ends of every linear layer."""
    support = matrix > 0
    changes = (support[1:] != support[:-1]).any(1).nonzero()[:, 0]
    ends = torch.tensor([0, len(matrix) - 1], device=matrix.device)
    return torch.cat([ends, changes, changes + 1]).unique()
