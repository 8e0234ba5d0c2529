"""Masks: any accepted ones as numbers in 0..1, one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..compute.memory import check_room
from ..errors import InputError
from ..settings import READINGS
from .numbers import as_numbers, as_tensor, in_range, is_16_bit, is_array, is_file, is_pil

if TYPE_CHECKING:
    from PIL import Image

VOID = 255  # what PASCAL VOC and its kin write where there is no label
WHITE = 250  # of 255: a grey mask is read by its brightness where it gets this bright
SHADES = 64  # or where it has so many shades: a label map of one picture has fewer ids
FEW = 32
GREY = 0.06  # of the brightest: how far the channels of a grey JPEG may part
LUMA = (0.299, 0.587, 0.114)
SAY_WHICH = (
    "If they are ids, take their masks with label_masks (--labels); if they are brightness, with read_mask(mask, by='brightness') "
    "(--mask-by brightness)"
)


def as_masks(masks: object, by: str = "auto", empty: bool = False) -> Iterator[Tensor]:
    """Any accepted masks, one after the other, as float32 [h, w] in 0..1.

    masks: [h, w] or [M, h, w] (also [M, 1, h, w]), array or tensor; the path of a file; PIL; or any number of such, whose sizes
    may differ. by: see `read_mask`. empty: whether a mask may be black all over.
    Raises InputError, with the mask's index, for what cannot be used or could be meant in two ways.
    """
    index = -1
    for index, mask in enumerate(each(masks)):
        what = f"mask {index} ({mask})" if is_file(mask) else f"mask {index}"
        region = region_of(mask, what, by)
        if not empty and region.max() == 0:
            raise InputError(f"{what} is empty (all black): there is nothing to localise. Paint the region white")
        yield region
    if index < 0:
        raise InputError("there is no mask: give at least one, white where the region is")


def read_mask(mask: object, by: str = "auto") -> Tensor:
    """One mask, of a file, PIL, an array or a tensor, as float32 [h, w] in 0..1.

    by: `brightness` or `alpha` say what holds the region; `auto` finds out, and refuses what could be meant in two ways.
    """
    return region_of(mask, f"the mask {mask}" if is_file(mask) else "the mask", by)


def each(masks: object) -> Iterable[object]:
    """The single masks of anything that holds some."""
    if is_file(masks) or is_pil(masks):
        return [masks]
    if isinstance(masks, Mapping):
        return masks.values()
    if not is_array(masks):
        if isinstance(masks, Iterable):
            return masks
        raise InputError(f"the masks are a {type(masks).__name__}; give arrays, tensors, PIL images or files")
    stack = as_numbers(masks, "the masks")
    shape = tuple(stack.shape)
    if stack.ndim == 4 and 1 in (shape[0], shape[1], shape[3]):
        stack = stack[:, 0] if shape[1] == 1 else stack[0] if shape[0] == 1 else stack[..., 0]
    if stack.ndim == 2:
        return [stack]
    if stack.ndim != 3:
        raise InputError(f"the masks have shape {shape}; they must be masks x height x width")
    height, width, last = stack.shape
    if last == 1 and height > 1:
        return [stack[..., 0]]
    if last in (3, 4) and min(height, width) > 4:
        raise InputError(
            f"the masks have shape {shape}: {height} masks of {width} x {last} px, or one in colour? Give a list of the {height}, "
            f"or [mask] for the one"
        )
    return stack


def region_of(mask: object, what: str, by: str) -> Tensor:
    """One mask as float32 [h, w] in 0..1; `what` it is called in errors."""
    if by not in READINGS:
        raise InputError(f"a mask cannot be read by {by!r}; choose one of {', '.join(READINGS)}")
    lossy = False
    if is_file(mask) or is_pil(mask):
        from .files import array_of, opened

        with opened(mask, what) as picture:
            lossy = picture.format in ("JPEG", "MPO")
            mask = by_palette(picture, what) if picture.mode == "P" and by == "auto" else array_of(picture)
    numbers = one_mask(as_numbers(mask, what), what)
    if 0 in numbers.shape:
        raise InputError(f"{what} has shape {tuple(numbers.shape)}; it must be height x width")
    height, width = numbers.shape[:2]
    check_room(height * width * torch.float32.itemsize, f"{what} of {width} x {height} px", "make it smaller first")
    if numbers.ndim == 3:
        numbers, by = by_channels(numbers, what, by)
    elif by == "alpha":
        raise InputError(f"{what} has no alpha: give one with transparency, or read it by brightness")
    values = as_tensor(numbers)
    if values.is_floating_point():
        values = in_range(values, what)
        high = float(values.max())
        if abs(255 * high - 1) < 0.01 and bool(((values == 0) | (values == high)).all()):
            raise InputError(f"{what} is 0 and 1/255 only: a mask of 0 and 1 was divided by 255. Multiply it by 255")
        return values
    if values.dtype == torch.bool:
        return values.float()
    return by_brightness(values, is_16_bit(numbers), what, by, lossy)


def one_mask(numbers: np.ndarray | Tensor, what: str) -> np.ndarray | Tensor:
    """Numbers of any shape that holds one mask as [h, w], or [h, w, C] with channels."""
    shape = tuple(numbers.shape)
    if numbers.ndim == 4 and shape[:2] == (1, 1):
        numbers = numbers[0]
    if numbers.ndim == 3 and numbers.shape[0] == 1:
        numbers = numbers[0]
    if numbers.ndim == 3 and numbers.shape[2] == 1:
        numbers = numbers[..., 0]
    if numbers.ndim != 2 and not (numbers.ndim == 3 and numbers.shape[2] in (2, 3, 4)):
        raise InputError(f"{what} has shape {shape}; it must be height x width")
    return numbers


def by_brightness(values: Tensor, wide: bool, what: str, by: str, lossy: bool) -> Tensor:
    """Integers [h, w] as a mask: 0 and 1, or brightness of 255, or of 65535 where `wide` (uint16). Refuses what may be ids."""
    low, high = (int(value) for value in values.aminmax())
    eight = values.dtype == torch.uint8
    if low < 0:
        raise InputError(f"{what} has negative numbers, from {low} to {high}. If ~ was to invert it, take mask == 0 instead")
    if high <= 1 and by != "brightness":
        return values.float()
    if by != "auto":
        if high > 65535:
            raise InputError(f"{what} has numbers up to {high}, which is no brightness of 8 or 16 bits")
        return values.float().div_(65535 if wide or high > 255 else 255)
    white = 65535 if wide else 255
    bright = WHITE * (white // 255)
    if (eight or wide) and (low, high) == (white - 1, white):
        raise InputError(f"{what} is {low} and {high} only, all white. If ~ was to invert one of 0 and 1, take mask == 0 instead")
    if high in (255, 65535) and all(bool(((some == 0) | (some == high)).all()) for some in parts(values)):
        return values.float().div_(high)
    if lossy and high > white // 2:  # nobody keeps ids in a JPEG
        return values.float().div_(white)
    if eight or wide:
        counts = histogram(values, white)
        between = [level for level in range(1, bright) if counts[level]]
        labels = eight and len(between) < FEW and flat_area(values, bright) > sum(counts[bright:]) / 4
        if (high >= bright or (high > white // 2 and len(between) >= SHADES)) and not labels:
            return values.float().div_(white)
    raise InputError(f"{what} has integers from {low} to {high} that could be the ids of a label map, or brightness. {SAY_WHICH}")


def flat_area(values: Tensor, bright: int) -> int:
    """Pixels [h, w] between black and `bright` that are among their like: a label has such, the soft edge of a region has not."""
    inside = values[1:-1, 1:-1]
    same = (inside > 0) & (inside < bright)
    height, width = values.shape
    for row in range(3):
        for column in range(3):
            same &= values[row : height - 2 + row, column : width - 2 + column] == inside
    return int(same.sum())


def parts(values: Tensor) -> tuple[Tensor, ...]:
    """The numbers in pieces that stay in a processor's cache."""
    return values.flatten().split(2**20)


def histogram(values: Tensor, white: int) -> list[int]:
    """How often each integer from 0 to `white` is there."""
    counts = [torch.bincount(some, minlength=white + 1) for some in parts(values)]
    return torch.stack(counts).sum(0).tolist()


def by_palette(image: Image.Image, what: str) -> np.ndarray:
    """A mask in palette mode: the colours where they are grey, else the indices are ids, of which it must have one.

    With transparency, its channels.
    """
    used = [index for index, count in enumerate(image.histogram()) if count]
    sample = image.crop((0, 0, 256, 1))  # of the same palette
    sample.putdata(range(256))
    table = np.array(sample.convert("RGBA"))[0]
    colours = table[used]
    if np.ptp(colours[:, 3]):
        visible = [index for index in used if table[index, 3]]
        if len(visible) > 1 and np.ptp(table[visible][:, :3], axis=0).any():
            raise InputError(
                f"{what} has a palette with {len(visible)} colours and transparency. If what is opaque is the region, read it by "
                f"alpha (--mask-by alpha); if the colours are labels, take their masks with label_masks (--labels)"
            )
        return np.array(image.convert("RGBA"))
    if (colours[:, 0] == colours[:, 1]).all() and (colours[:, 1] == colours[:, 2]).all():
        return np.array(image.convert("L"))
    ids = [index for index in used if index not in (0, VOID)] or [index for index in used if index]
    if 0 in used and table[0, :3].any():
        raise InputError(
            f"{what} has a palette of colours whose first is not black, so it is not clear which is the region: paint it white on "
            f"black, or take the masks of its indices with label_masks (--labels)"
        )
    if len(ids) > 1:
        raise InputError(
            f"{what} is a label map of the ids {', '.join(map(str, ids[:10]))}{', ...' if len(ids) > 10 else ''}: take their masks "
            f"with label_masks (--labels)"
        )
    return np.array(image) == ids[0]


def by_channels(numbers: np.ndarray | Tensor, what: str, by: str) -> tuple[np.ndarray | Tensor, str]:
    """[h, w, C] as the [h, w] that holds the region, and how that is to be read. C: grey and alpha, RGB, or RGBA."""
    colour, alpha = (numbers[..., :-1], numbers[..., -1]) if numbers.shape[2] in (2, 4) else (numbers, None)
    values = as_tensor(colour)
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    opaque = torch.zeros(1) if alpha is None else as_tensor(alpha)
    if alpha is not None and opaque.min() < opaque.max():
        if by == "alpha":
            return alpha, by
        if by == "auto":
            visible = values[opaque > opaque.min()]
            if not is_grey(visible) or bool((visible == visible[0]).all()):
                return alpha, "alpha"
            raise InputError(
                f"{what} could be meant by its brightness or by its alpha: read it by one of them (--mask-by alpha, --mask-by "
                f"brightness)"
            )
    elif by == "alpha":
        raise InputError(f"{what} has {'no alpha' if alpha is None else 'the same alpha all over'}: read it by brightness")
    if bool((values[..., :1] == values).all()):
        return colour[..., 0], by
    if by == "auto" and not is_grey(values):
        raise InputError(
            f"{what} is in colour, so it is not clear which is the region: paint it white on black, or read it by brightness "
            f"(--mask-by brightness)"
        )
    mixed = values.float() @ torch.tensor(LUMA, device=values.device)
    if values.is_floating_point():
        return mixed, by
    whole = np.uint16 if is_16_bit(numbers) else np.uint8 if values.dtype == torch.uint8 else np.int64
    return mixed.round().cpu().numpy().astype(whole), by


def is_grey(colours: Tensor) -> bool:
    """Whether the channels [..., C] are the same but for what lossy compression does to them."""
    return bool((colours.amax(-1) - colours.amin(-1) <= GREY * colours.max()).all())
