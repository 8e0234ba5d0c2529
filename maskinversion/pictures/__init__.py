"""The one door for pictures and masks: what is taken, what its numbers mean, and what is refused. In words: docs/inputs.md."""

from .boxes import Box, box_mask, box_of, is_segments, read_boxes, segment_masks
from .images import as_pixels
from .labels import colour_masks, label_masks
from .masks import as_masks, read_mask
from .numbers import in_range, is_picture, warn

__all__ = [
    "Box",
    "as_masks",
    "as_pixels",
    "box_mask",
    "box_of",
    "colour_masks",
    "in_range",
    "is_picture",
    "is_segments",
    "label_masks",
    "read_boxes",
    "read_mask",
    "segment_masks",
    "warn",
]
