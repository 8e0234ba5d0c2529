"""What other nodes give for regions: masks, boxes, segments; each as the masks of one picture or of several."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...maskinversion.geometry import resize
from ...maskinversion.pictures import Box, box_mask, box_of, is_segments, read_boxes, segment_masks


@dataclass(frozen=True)
class Regions:
    """Of one picture. masks [M, h, w] in 0..1; labels: what a detector calls each, or ''."""

    masks: Tensor
    labels: list[str]

    @property
    def boxes(self) -> list[Box]:
        """Around each that is not black all over."""
        found = ((box_of(mask), label) for mask, label in zip(self.masks, self.labels, strict=True))
        return [Box(box.x, box.y, box.width, box.height, label) for box, label in found if box is not None]


def frames_of(regions: object, size: tuple[int, int]) -> list[Regions]:
    """Boxes or segments as the masks of every picture of this (height, width).

    regions: what `read_boxes` reads, or the Impact Pack's SEGS. Raises InputError for anything else.
    """
    if is_segments(regions):
        found = segment_masks(regions)  # pyright: ignore[reportArgumentType]
        masks = [resize(mask[None, None], size, "bilinear")[0, 0] for mask, _ in found]
        return [Regions(stacked(masks, size), [label for _, label in found])]
    frames = read_boxes(regions)
    return [Regions(stacked([box_mask(box, size) for box in boxes], size), [box.label for box in boxes]) for boxes in frames]


def stacked(masks: list[Tensor], size: tuple[int, int]) -> Tensor:
    return torch.stack(masks) if masks else torch.zeros(0, *size)


def as_bounding_boxes(regions: Regions) -> list[list[dict]]:
    """As ComfyUI's BOUNDING_BOX has those of one picture."""
    return [[box.as_dict() for box in regions.boxes]]
