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
MOST_COLOURS = 256


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
    numbers = as_tensor(one_mask(as_numbers(labels, what), what))
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
        raise InputError(f"{what} has no label: it is 0 all over. Give each region a number, or a colour")
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


def colour_masks(picture: Tensor, names: Sequence[str] = (), least: float = 0.0) -> dict[str, Tensor]:
    """The masks [h, w] (bool) of a label map that was read as a picture [h, w, 3] in 0..1, by what they are called.

    A map in greys has ids, as `label_masks` reads them from 8 bits; one in colours has a region for each but black, "#rrggbb".
    names: which, such as "15" or "#c00080", in this order; none is all. least: of the picture's area, what a region must fill,
    for maps whose edges were blurred.
    Raises InputError for a name that is none or not there, more than MOST_COLOURS regions, and a map that is black all over.
    """
    levels = (picture * 255).round().to(torch.int64)
    red, green, blue = levels.unbind(-1)
    grey = bool((red == green).all() and (green == blue).all())
    codes = red if grey else red * 65536 + green * 256 + blue
    there, counts = codes.unique(return_counts=True)
    large = there[counts >= least * codes.numel()].tolist()
    if len(large) > MOST_COLOURS:
        raise InputError(
            f"the label map has {len(large)} colours, as a photo has: give one with a flat colour for each region, or raise least"
        )
    wanted = [code_of(name, grey) for name in names]
    if not wanted and grey:
        wanted = [label for label in label_masks(red.to(torch.uint8)) if label in large]
    elif not wanted:
        wanted = [code for code in large if code]
    if not wanted:
        raise InputError("the label map has no label: it is black all over")
    if missing := [code for code in wanted if code not in large]:
        known = ", ".join(name_of(code, grey) for code in large[:20]) + (", ..." if len(large) > 20 else "")
        raise InputError(f"the label map has no label {name_of(missing[0], grey)}; it has {known}")
    return {name_of(code, grey): codes == code for code in wanted}


def code_of(name: str, grey: bool) -> int:
    """The level of a grey map, or red, green and blue in one number."""
    try:
        if not name.startswith("#"):
            level = int(name)
            return level if grey else level * 65793  # the same of each
        if len(name) != 7:
            raise ValueError
        code = int(name[1:], 16)
        return code >> 16 if grey else code
    except ValueError as error:
        raise InputError(f"{name!r} is no label: write ids such as 15, or colours such as #c00080") from error


def name_of(code: int, grey: bool) -> str:
    return str(code) if grey else f"#{code:06x}"
