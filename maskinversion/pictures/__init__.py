"""The one door for pictures and masks: what is taken, what its numbers mean, and what is refused. In words: docs/inputs.md."""

from .images import as_pixels
from .labels import label_masks
from .masks import as_masks, read_mask
from .numbers import in_range, warn

__all__ = ["as_masks", "as_pixels", "in_range", "label_masks", "read_mask", "warn"]
