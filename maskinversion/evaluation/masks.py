"""Masks of other quality: what a careless hand, a generous one, or a detector would have drawn."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .settings import QUALITIES, RADIUS


def degrade(masks: Tensor, quality: str, radius: float = RADIUS) -> Tensor:
    """Masks [M, h, w] in 0..1 as `quality` would have them: one of QUALITIES.

    radius: by how much to erode or dilate, as a part of the square root of each mask's area. A mask that would vanish is eroded
    less, by half as often as it takes. Raises InputError for another quality.
    """
    if quality not in QUALITIES:
        raise InputError(f"there is no mask quality {quality!r}; there are {', '.join(QUALITIES)}")
    if quality == "exact":
        return masks
    if quality == "box":
        return torch.stack([filled_box(mask) for mask in masks])
    change = erode if quality == "eroded" else dilate
    return torch.stack([change(mask, max(1, round(radius * float(mask.sum()) ** 0.5))) for mask in masks])


def dilate(mask: Tensor, pixels: int) -> Tensor:
    """A mask [h, w] grown by a square of 2 * pixels + 1."""
    for kernel in ((2 * pixels + 1, 1), (1, 2 * pixels + 1)):
        padding = tuple(side // 2 for side in kernel)
        window = F.pad(mask[None, None], (padding[1], padding[1], padding[0], padding[0]))
        mask = F.max_pool2d(window, kernel, stride=1)[0, 0]
    return mask


def erode(mask: Tensor, pixels: int) -> Tensor:
    """A mask [h, w] shrunk by a square of 2 * pixels + 1, or by half of that and so on if nothing would be left of it.

    The border of the picture does not eat into it.
    """
    while pixels:
        eroded = 1 - dilate(1 - mask, pixels)
        if (eroded > 0.5).any():
            return eroded
        pixels //= 2
    return mask


def box_of(mask: Tensor) -> tuple[int, int, int, int]:
    """top, left, bottom, right of a mask [h, w], the last two excluded; of its faint parts where it has no others."""
    solid = mask > 0.5
    if not solid.any():
        solid = mask > 0
    rows, columns = solid.any(1).nonzero()[:, 0], solid.any(0).nonzero()[:, 0]
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def filled_box(mask: Tensor) -> Tensor:
    top, left, bottom, right = box_of(mask)
    filled = torch.zeros_like(mask)
    filled[top:bottom, left:right] = 1
    return filled


def largest_overlaps(masks: Tensor) -> list[float]:
    """For each mask [M, h, w], the largest intersection over union of its box with that of another."""
    boxes = torch.tensor([box_of(mask) for mask in masks]).float()
    low, high = torch.maximum(boxes[:, None, :2], boxes[None, :, :2]), torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    return (shared / (area[:, None] + area - shared)).fill_diagonal_(0).amax(1).tolist()
