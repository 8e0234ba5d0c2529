"""Pictures of maps on images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

# Dark to bright at even steps of lightness, so that more is always brighter.
COLOURS = ((0.05, 0.03, 0.20), (0.35, 0.07, 0.45), (0.72, 0.19, 0.38), (0.95, 0.42, 0.20), (0.99, 0.72, 0.20), (0.99, 0.98, 0.72))
SHADES = 4096  # between dark and bright: several for each that a screen shows
OUTLINE = 1.0  # white


def overlay(image: Tensor, heat: Tensor, mask: Tensor | None = None, strength: float = 0.6) -> Tensor:
    """Paint a map on an image, and the outline of its mask.

    image [h, w, 3], heat [h, w] and mask [h, w], all in 0..1; strength 0 shows the image alone, 1 the map alone.
    Returns [h, w, 3] in 0..1. Raises InputError when the sizes differ.
    """
    for what, other in (("map", heat), ("mask", mask)):
        if other is not None and other.shape != image.shape[:2]:
            raise InputError(
                f"the {what} is {tuple(other.shape)}, the image {tuple(image.shape[:2])}: they must have the same size"
            )
    painted = coloured(heat.to(image)).sub_(image).mul_(strength).add_(image)
    if mask is not None:
        mask = mask.to(image.device)
        width = outline_width(mask)
        part = around(mask >= 0.5, width)
        if part is not None:
            painted[part].masked_fill_((outline(mask[part], width) > 0)[..., None], OUTLINE)
    return painted.clamp_(0, 1)


def coloured(heat: Tensor) -> Tensor:
    """[h, w] in 0..1 to colours [h, w, 3], by a table of shades: six times as fast as mixing two colours at every pixel."""
    shades = F.interpolate(heat.new_tensor(COLOURS).T[None], size=SHADES + 1, mode="linear", align_corners=True)[0].T.contiguous()
    chosen = heat.clamp(0, 1).mul_(SHADES).round_().int()
    return shades.index_select(0, chosen.flatten()).unflatten(0, heat.shape)


def around(truths: Tensor, width: int) -> tuple[slice, slice] | None:
    """The rows and columns where a boolean [h, w] is true, and so many more on every side; None where it is nowhere."""
    rows, columns = (truths.any(dim).nonzero()[:, 0] for dim in (1, 0))
    if not len(rows):
        return None
    top, left = max(0, int(rows[0]) - width), max(0, int(columns[0]) - width)
    return slice(top, int(rows[-1]) + width + 1), slice(left, int(columns[-1]) + width + 1)


def outline_width(mask: Tensor) -> int:
    """About 1/150 of the shorter side of a mask [h, w]."""
    return max(1, min(mask.shape) // 150)


def outline(mask: Tensor, width: int | None = None) -> Tensor:
    """The border [h, w] of a mask [h, w], just outside of it: 1 there, else 0. width: None is `outline_width`."""
    width = width or outline_width(mask)
    inside = mask >= 0.5
    grown = inside
    for dim in (0, 1):
        grown = spread(grown, width, dim)
    return (grown & ~inside).to(torch.promote_types(mask.dtype, torch.float32))


def spread(truths: Tensor, reach: int, dim: int) -> Tensor:
    """Where a boolean [h, w] is true at most `reach` places away along a dimension, at a cost that does not grow with it."""
    count = truths.cumsum(dim, dtype=torch.int32)
    last = torch.arange(truths.shape[dim], device=truths.device)
    ahead = count.index_select(dim, (last + reach).clamp(max=len(last) - 1))
    behind = count.index_select(dim, (last - reach - 1).clamp(min=0))
    behind.narrow(dim, 0, min(reach + 1, len(last))).zero_()
    return ahead > behind
