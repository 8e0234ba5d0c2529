"""Regions as detectors give them: boxes in several notations, and the segments of ComfyUI's Impact Pack; as masks, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .masks import read_mask
from .numbers import is_array

CORNERS = 4
WHAT = (
    "boxes are {'x', 'y', 'width', 'height'} in pixels, or [left, top, right, bottom]; one, a list, or a list for each picture"
)


@dataclass(frozen=True)
class Box:
    """In pixels from the top left; sides of pixels, so that 0, 0, w, h is a whole picture. label, score: what a detector said."""

    x: float
    y: float
    width: float
    height: float
    label: str = ""
    score: float = 1.0

    def __post_init__(self):
        numbers = (self.x, self.y, self.width, self.height)
        if not all(map(math.isfinite, numbers)) or self.width <= 0 or self.height <= 0:
            raise InputError(f"there is a box without an area: {', '.join(f'{n:g}' for n in numbers)} (x, y, width, height)")

    def as_dict(self) -> dict[str, Any]:
        """As ComfyUI has it."""
        named = {"label": self.label} if self.label else {}
        return {"x": self.x, "y": self.y, "width": self.width, "height": self.height, **named, "score": self.score}


def read_boxes(boxes: object) -> list[list[Box]]:
    """The boxes of every picture: one list where they are of one picture, or the same for all.

    boxes: ComfyUI's BOUNDING_BOX (a dict, a list of them, or a list for each picture); corners [left, top, right, bottom] in the
    same ways; what Florence-2 says, {"bboxes": corners, "labels": names}; or JSON of any of these.
    Raises InputError for anything else, and for boxes without an area.
    """
    if isinstance(boxes, str):
        try:
            boxes = json.loads(boxes)
        except (ValueError, RecursionError) as error:
            raise InputError(f"the boxes are a text that is not JSON: {WHAT}") from error
    if is_array(boxes):
        boxes = boxes.tolist()  # pyright: ignore[reportAttributeAccessIssue]
    if is_one(boxes):
        return [[read_box(boxes)]]
    if isinstance(boxes, Mapping):
        return [of_picture(boxes)]
    if not isinstance(boxes, Sequence):
        raise InputError(f"there are no boxes but a {type(boxes).__name__}: {WHAT}")
    if all(map(is_one, boxes)):
        return [of_picture(boxes)]
    return [of_picture(frame) for frame in boxes]


def is_one(box: object) -> bool:
    if isinstance(box, Mapping):
        return "width" in box
    if is_array(box):
        box = box.tolist()  # pyright: ignore[reportAttributeAccessIssue]
    return isinstance(box, Sequence) and len(box) == CORNERS and all(map(is_number, box))


def is_number(side: object) -> bool:
    """Also NumPy's own, and tensors of one number."""
    return isinstance(side, Real) or (is_array(side) and getattr(side, "ndim", 1) == 0)


def of_picture(boxes: object) -> list[Box]:
    if isinstance(boxes, Mapping) and isinstance(boxes.get("bboxes"), Sequence):
        corners, labels = boxes["bboxes"], boxes.get("labels") or []
        return [read_box(box, str(labels[index]) if index < len(labels) else "") for index, box in enumerate(corners)]
    if is_array(boxes):
        boxes = boxes.tolist()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(boxes, str) or not isinstance(boxes, Sequence):
        raise InputError(f"there are no boxes but a {type(boxes).__name__}: {WHAT}")
    return [read_box(box) for box in boxes]


def read_box(box: object, label: str = "") -> Box:
    try:
        if isinstance(box, Mapping):
            x, y, width, height = (float(box[side]) for side in ("x", "y", "width", "height"))
            found = Box(x, y, width, height, str(box.get("label") or label), float(box.get("score", 1.0)))
        else:
            left, top, right, bottom = (float(side) for side in box)  # pyright: ignore[reportGeneralTypeIssues]
            if right < left or bottom < top:
                raise InputError(
                    f"the box {left:g}, {top:g}, {right:g}, {bottom:g} ends before it begins, as left, top, right, bottom. If it "
                    f"is x, y, width, height, write {{'x': {left:g}, 'y': {top:g}, 'width': {right:g}, 'height': {bottom:g}}}"
                )
            found = Box(left, top, right - left, bottom - top, label)
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(box)[:80]} is no box: {WHAT}") from error
    if min(found.x, found.y) >= 0 and max(found.x + found.width, found.y + found.height) <= 1:
        raise InputError(
            f"the box {found.x:g}, {found.y:g} of {found.width:g} x {found.height:g} is in the first pixel: boxes are in pixels. "
            f"If it is in parts of the picture, multiply it by the picture's width and height"
        )
    return found


def box_mask(box: Box, size: tuple[int, int]) -> Tensor:
    """The mask [h, w] of a box in a picture of this (height, width), float32: how much of each pixel it covers."""
    rows, columns = (
        (torch.arange(side) + 1).clamp(max=end) - torch.arange(side).clamp(min=start)
        for side, start, end in ((size[0], box.y, box.y + box.height), (size[1], box.x, box.x + box.width))
    )
    return rows.clamp(min=0)[:, None] * columns.clamp(min=0)


def box_of(mask: Tensor) -> Box | None:
    """The box around what is at least half as bright as the brightest of a mask [h, w]; None where it is black all over."""
    if not mask.max() > 0:
        return None
    solid = mask >= 0.5 * mask.max()
    (top, bottom), (left, right) = ((there[0].item(), there[-1].item() + 1) for there in (
        solid.any(1).nonzero()[:, 0], solid.any(0).nonzero()[:, 0]))  # fmt: skip
    return Box(int(left), int(top), int(right - left), int(bottom - top))


def is_segments(segments: object) -> bool:
    """Whether it is what the Impact Pack calls SEGS: the picture's (height, width), and the segments."""
    if not isinstance(segments, tuple) or len(segments) != 2 or not isinstance(segments[1], (list, tuple)):
        return False
    return all(hasattr(segment, "cropped_mask") and hasattr(segment, "crop_region") for segment in segments[1])


def whole_numbers(values: Any, count: int, what: str) -> list[int]:
    """The first `count` of them. what: the beginning of the message of an InputError where they are none."""
    try:
        found = [int(value) for value in values[:count]]
    except (TypeError, ValueError, OverflowError):
        found = []
    if len(found) < count:
        raise InputError(f"{what} {values}, which must be {count} numbers of pixels: make the segments again")
    return found


def segment_masks(segments: tuple) -> list[tuple[Tensor, str]]:
    """The mask [h, w] of every segment in its picture, and its label. Raises InputError for masks that are not of their region."""
    height, width = whole_numbers(segments[0], 2, "these SEGS are of a picture of the size")
    found = []
    for number, segment in enumerate(segments[1]):
        left, top, right, bottom = whole_numbers(segment.crop_region, 4, f"segment {number} has the region")
        if segment.cropped_mask is None:
            raise InputError(f"segment {number} has no mask: take the segments from a detector, not from a node that drops them")
        cropped = read_mask(segment.cropped_mask)
        if tuple(cropped.shape) != (bottom - top, right - left) or min(left, top) < 0 or right > width or bottom > height:
            raise InputError(
                f"segment {number} has a mask of {cropped.shape[1]} x {cropped.shape[0]} px for a region of {right - left} x "
                f"{bottom - top} px in a picture of {width} x {height} px: make the segments again"
            )
        mask = torch.zeros(height, width)
        mask[top:bottom, left:right] = cropped
        found.append((mask, str(segment.label or "")))
    return found
