"""Label maps: pictures that hold an id for every pixel."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..compute.memory import check_room
from ..errors import InputError
from .masks import VOID, histogram, one_mask
from .numbers import as_numbers, as_tensor, is_file, is_pil

MOST = 65535  # the highest of 16 bits


def label_masks(labels: object, ids: Sequence[int] | None = None) -> dict[int, Tensor]:
    """The masks [h, w] (bool) of a label map, by id, in the order of `ids`.

    labels: a file, PIL (of a palette, the indices), or an array or tensor of integers. ids: which; None is all that are there but
    0, negative ones, and 255 in an 8-bit map, which is where PASCAL VOC has no label.
    Raises InputError for a picture in colours, a map that is black all over, or an id that is not there; MemoryLimitError where
    they do not fit into memory together.
    """
    numbers, ids = label_map(labels, ids)
    height, width = numbers.shape
    many = f"{len(ids)} masks of {width} x {height} px"
    check_room(len(ids) * numbers.numel(), many, "take some of the ids at a time, or make the label map smaller")
    return {label: numbers == label for label in ids}


def label_map(labels: object, ids: Sequence[int] | None = None) -> tuple[Tensor, list[int]]:
    """The ids of every pixel [h, w], and which of them are to be taken, as `label_masks` has it."""
    what = "the label map"
    if is_file(labels) or is_pil(labels):
        from .files import array_of, opened

        if is_file(labels):
            what = f"the label map {labels}"
        with opened(labels, what) as picture:
            labels = np.array(picture) if picture.mode == "P" else array_of(picture)
    numbers = as_tensor(one_mask(as_numbers(labels, what), what), what)
    if numbers.ndim == 3 and bool((numbers[..., :1] == numbers[..., :3]).all()):
        numbers = numbers[..., 0]
    if numbers.ndim != 2 or numbers.is_floating_point():
        raise InputError(f"{what} must have one integer for each pixel; this has {tuple(numbers.shape)} of {numbers.dtype}")
    there = values_of(numbers)
    if ids is None:
        ids = [label for label in there if label > 0]
        if numbers.dtype == torch.uint8 and len(ids) > 1 and VOID in ids:
            ids.remove(VOID)
    if not ids:
        raise InputError(f"{what} has no label: it is 0 all over")
    if missing := [label for label in ids if label not in there]:
        known = ", ".join(map(str, there[:20])) + (", ..." if len(there) > 20 else "")
        raise InputError(f"{what} has no label {missing[0]}; it has {known}")
    return numbers, [int(label) for label in ids]


def values_of(numbers: Tensor) -> list[int]:
    """Which integers are there, in their order; counted where they are few, since sorting a large map takes long."""
    low, high = (int(value) for value in numbers.aminmax())
    if numbers.dtype == torch.bool or low < 0 or high > MOST:
        return numbers.unique().tolist()
    return [value for value, count in enumerate(histogram(numbers, high)) if count]
