"""Pictures of maps on images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

# Dark to bright at even steps of lightness, so that more is always brighter.
COLOURS = ((0.05, 0.03, 0.20), (0.35, 0.07, 0.45), (0.72, 0.19, 0.38), (0.95, 0.42, 0.20), (0.99, 0.72, 0.20), (0.99, 0.98, 0.72))
OUTLINE = (1.0, 1.0, 1.0)


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
    painted = image + strength * (coloured(heat.to(image)) - image)
    if mask is not None:
        edge = outline(mask.to(image))[..., None]
        painted = painted + edge * (image.new_tensor(OUTLINE) - painted)
    return painted.clamp(0, 1)


def coloured(heat: Tensor) -> Tensor:
    """[h, w] in 0..1 to colours [h, w, 3]."""
    table = heat.new_tensor(COLOURS)
    position = heat.clamp(0, 1) * (len(table) - 1)
    below = position.floor().long().clamp(max=len(table) - 2)
    weight = (position - below)[..., None]
    return table[below] * (1 - weight) + table[below + 1] * weight


def outline(mask: Tensor) -> Tensor:
    """The border [h, w] of a mask [h, w], about 1/150 of the shorter side wide."""
    width = max(1, min(mask.shape) // 150)
    hard = (mask >= 0.5).to(mask)[None, None]
    grown = F.max_pool2d(hard, 2 * width + 1, stride=1, padding=width)
    return torch.where(grown > hard, 1.0, 0.0)[0, 0].to(mask)
