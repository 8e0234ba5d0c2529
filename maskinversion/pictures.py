"""The one door for pictures and masks: what is taken, what its numbers mean, and what is refused. In words: docs/inputs.md."""

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import InputError, InputWarning
from .settings import READINGS

ORIENTATION = 0x0112  # in EXIF
VOID = 255  # what PASCAL VOC and its kin write where there is no label

OVERSHOOT = 0.25  # beyond 0..1: what resizing with a bicubic or Lanczos filter leaves is clamped
ROUNDING = 1e-3
WHITE = 250  # of 255: a grey mask is read by its brightness where it gets this bright
SHADES = 64  # or where it has so many shades: a label map of one picture has fewer ids
FEW = 32
GREY = 0.06  # of the brightest: how far the channels of a grey JPEG may part
LUMA = (0.299, 0.587, 0.114)

SAY_WHICH = (
    "If they are ids, take their masks with label_masks (--labels); if they are brightness, with read_mask(mask, by='brightness') "
    "(--mask-by brightness)"
)
NO_PICTURES = (
    (b"version https://git-lfs", "it is a pointer of Git LFS: run git lfs pull"),
    (b"<!doctype html", "it is a web page: download the picture itself"),
    (b"<html", "it is a web page: download the picture itself"),
    (b"<svg", "it is an SVG drawing: export it as PNG"),
    (b"<?xml", "it is XML, perhaps an SVG drawing: export it as PNG"),
)


def open_picture(path: str | os.PathLike, turned: bool = True) -> Image.Image:
    """The first picture of a file, in memory, in the mode that it has, turned upright as its EXIF says or left as it is stored.

    Raises InputError when there is no such file, or it is no picture, is damaged, or would be too large to open safely.
    """
    with explained(str(path)):
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            raise InputError(f"{path} is a folder; give a picture")
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is not a regular file but a pipe or a device; give a picture")
        try:
            with Image.open(path) as image:
                if turned:
                    return upright(image)
                image.load()
                image.getexif().pop(ORIENTATION, None)
                return image
        except UnidentifiedImageError as error:
            raise InputError(f"{path} is not a picture that can be read: {what_it_is(Path(path))}") from error


def as_pixels(image: object) -> Tensor:
    """Any accepted picture as float32 [1, 3, h, w] in 0..1.

    image: the path of a file; PIL; or an array or tensor [h, w] or [h, w, C], of grey, grey and alpha, RGB or RGBA, or a batch of
    one such: bool, uint8, uint16, integers of 0..255, or floats in 0..1. Colours under transparency are as they are stored.
    Raises InputError for anything else; warns where numbers had to be clamped or look like another scale.
    """
    what = "the image"
    if is_file(image):
        image, what = open_picture(image), str(image)
    if isinstance(image, Image.Image):
        with explained(what):
            image = array_of(upright(image), what)
    numbers = as_numbers(image, what)
    shape = tuple(numbers.shape)
    if numbers.ndim == 4 and shape[0] == 1:
        numbers = numbers[0]
    elif numbers.ndim == 4 and shape[0] > 1 and 1 <= shape[3] <= 4:
        raise InputError(f"{what} has shape {shape}, a batch of {shape[0]} pictures: give one at a time, such as images[0]")
    if numbers.ndim == 2:
        numbers = numbers[..., None]
    if numbers.ndim != 3 or not 1 <= numbers.shape[2] <= 4:
        advice = ""
        if numbers.ndim == 3 and numbers.shape[0] in (1, 3, 4):
            advice = ". If its channels come first, give image.permute(1, 2, 0); if these are grey pictures, one at a time"
        raise InputError(f"{what} has shape {shape}; it must be height x width x 3 (RGB){advice}")
    if 0 in shape:
        raise InputError(f"{what} is empty: its shape is {shape}")
    pixels = scaled(numbers[..., : 3 if numbers.shape[2] > 2 else 1], what)
    return pixels.expand(-1, -1, 3).permute(2, 0, 1)[None]


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


def label_masks(labels: object, ids: Sequence[int] | None = None) -> dict[int, Tensor]:
    """The masks [h, w] (bool) of a label map, by id, in the order of `ids`.

    labels: a file, PIL (of a palette, the indices), or an array or tensor of integers. ids: which; None is all that are there but
    0, negative ones, and 255 in an 8-bit map, which is where PASCAL VOC has no label.
    Raises InputError for a picture in colours, a map that is black all over, or an id that is not there.
    """
    what = "the label map"
    if is_file(labels):
        labels, what = open_picture(labels), f"the label map {labels}"
    if isinstance(labels, Image.Image):
        with explained(what):
            labels = upright(labels)
            labels = np.array(labels) if labels.mode == "P" else array_of(labels, what)
    numbers = as_tensor(one_mask(as_numbers(labels, what), what), what)
    if numbers.ndim == 3 and bool((numbers[..., :1] == numbers[..., :3]).all()):
        numbers = numbers[..., 0]
    if numbers.ndim != 2 or numbers.is_floating_point():
        raise InputError(f"{what} must have one integer for each pixel; this has {tuple(numbers.shape)} of {numbers.dtype}")
    there = numbers.unique().tolist()
    if ids is None:
        ids = [label for label in there if label > 0]
        if numbers.dtype == torch.uint8 and len(ids) > 1 and VOID in ids:
            ids.remove(VOID)
    if not ids:
        raise InputError(f"{what} has no label: it is 0 all over")
    if missing := [label for label in ids if label not in there]:
        known = ", ".join(map(str, there[:20])) + (", ..." if len(there) > 20 else "")
        raise InputError(f"{what} has no label {missing[0]}; it has {known}")
    return {int(label): numbers == label for label in ids}


def in_range(values: Tensor, what: str) -> Tensor:
    """Floats as float32 in 0..1: what is a little beyond, after resizing say, is clamped, with a warning if it is not rounding.

    Raises InputError for NaN, infinity, and other scales.
    """
    values = values.float()
    low, high = (float(value) for value in values.aminmax())
    if not np.isfinite(low) or not np.isfinite(high):
        raise InputError(f"{what} contains NaN or infinite values")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise InputError(
            f"{what} has values from {low:.3g} to {high:.3g}; floats must be in 0..1. If they are 0..255, divide by 255; if they "
            f"are -1..1, take (x + 1) / 2; if they are ids, give integers"
        )
    if low >= 0 and high <= 1:
        return values
    if low < -ROUNDING or high > 1 + ROUNDING:
        warn(f"{what} has values from {low:.3g} to {high:.3g}; they were clamped to 0..1")
    return values.clamp(0, 1)


def scaled(numbers: object, what: str) -> Tensor:
    """The numbers of a picture as float32 in 0..1."""
    values = as_tensor(numbers, what)
    if values.is_floating_point():
        return in_range(values, what)
    if values.dtype == torch.bool:
        return values.float()
    low, high = (int(value) for value in values.aminmax())
    white = 65535 if is_16_bit(numbers) else 255
    if low < 0 or high > white:
        raise InputError(
            f"{what} has integers from {low} to {high}, so it is not clear which is white: give uint8 for 0..255, uint16 for "
            f"0..65535, or floats in 0..1"
        )
    if 0 < high <= white // 255:
        warn(f"{what} is almost black: its highest number is {high}, and {white} is white. Is it of another scale?")
    return values.float() / white


def each(masks: object) -> Iterable[object]:
    """The single masks of anything that holds some."""
    if is_file(masks) or isinstance(masks, Image.Image):
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
    if is_file(mask):
        mask = open_picture(mask)
    if isinstance(mask, Image.Image):
        with explained(what):
            lossy = mask.format in ("JPEG", "MPO")
            mask = upright(mask)
            mask = by_palette(mask, what) if mask.mode == "P" and by == "auto" else array_of(mask, what)
    numbers = one_mask(as_numbers(mask, what), what)
    if 0 in numbers.shape:
        raise InputError(f"{what} has shape {tuple(numbers.shape)}; it must be height x width")
    if numbers.ndim == 3:
        numbers, by = by_channels(numbers, what, by)
    elif by == "alpha":
        raise InputError(f"{what} has no alpha: give one with transparency, or read it by brightness")
    values = as_tensor(numbers, what)
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
        return values.float() / (65535 if wide or high > 255 else 255)
    white = 65535 if wide else 255
    bright = WHITE * (white // 255)
    if (eight or wide) and (low, high) == (white - 1, white):
        raise InputError(f"{what} is {low} and {high} only, all white. If ~ was to invert one of 0 and 1, take mask == 0 instead")
    if high in (255, 65535) and bool(((values == 0) | (values == high)).all()):
        return values.float() / high
    if lossy and high > white // 2:  # nobody keeps ids in a JPEG
        return values.float() / white
    if eight or wide:
        counts = histogram(values, white)
        between = [level for level in range(1, bright) if counts[level]]
        labels = eight and len(between) < FEW and flat_area(values, bright) > sum(counts[bright:]) / 4
        if (high >= bright or (high > white // 2 and len(between) >= SHADES)) and not labels:
            return values.float() / white
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


def histogram(values: Tensor, white: int) -> list[int]:
    """How often each integer from 0 to `white` is there."""
    array = values.cpu().contiguous().numpy()
    if white == 255:
        return Image.fromarray(array).histogram()
    return np.bincount(array.ravel(), minlength=white + 1).tolist()


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
    values = as_tensor(colour, what)
    if values.dtype == torch.bool:
        values = values.to(torch.uint8)
    opaque = torch.zeros(1) if alpha is None else as_tensor(alpha, what)
    if opaque.min() < opaque.max():
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


def is_file(given: object) -> bool:
    return isinstance(given, (str, os.PathLike))


def is_array(given: object) -> bool:
    return isinstance(given, Tensor) or hasattr(given, "__array__")


def is_16_bit(numbers: np.ndarray | Tensor) -> bool:
    return numbers.dtype in (torch.uint16, np.dtype("<u2"), np.dtype(">u2"))


def as_numbers(given: object, what: str) -> np.ndarray | Tensor:
    """An array or tensor, of bool, integers or floats."""
    if isinstance(given, Tensor):
        if given.is_complex() or given.layout != torch.strided:
            raise InputError(f"{what} has numbers of type {given.dtype} ({given.layout}); use uint8 (0..255) or float (0..1)")
        return given.detach()
    try:
        numbers = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} cannot be read as an array ({error})") from error
    if numbers.dtype.kind not in "buif":
        raise InputError(
            f"{what} is a {type(given).__name__} of {numbers.dtype}; give a file, a PIL image, or an array or tensor of uint8 "
            f"(0..255) or float (0..1)"
        )
    return numbers


def as_tensor(numbers: np.ndarray | Tensor, what: str) -> Tensor:
    """Numbers as a tensor of bool, uint8, int32, int64 or a float type."""
    if isinstance(numbers, np.ndarray):
        kind = numbers.dtype.newbyteorder("=")
        if kind.kind == "f" and kind.itemsize > 8:
            kind = np.dtype(np.float64)
        numbers = torch.from_numpy(np.array(numbers, kind, copy=not numbers.flags.writeable or None, order="C"))
    if numbers.dtype == torch.uint16:
        return numbers.to(torch.int32)
    if not numbers.is_floating_point() and numbers.dtype not in (torch.bool, torch.uint8):
        return numbers.to(torch.int64)
    return numbers


def array_of(image: Image.Image, what: str) -> np.ndarray:
    """The numbers of a PIL image: [h, w] (bool, uint8, uint16, int32 or float32), [h, w, 2], [h, w, 3] or [h, w, 4] (uint8)."""
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # which have 16 bits at most
        return np.array(image).clip(0, 65535).astype(np.uint16)
    if image.mode in ("1", "I", "F", "LA", "RGBA") or image.mode.startswith("I;16"):
        return np.array(image)
    keyed = "transparency" in image.info
    if image.mode in ("L", "La"):
        return np.array(image.convert("LA") if keyed or image.mode == "La" else image)
    return np.array(image.convert("RGBA" if keyed or image.mode in ("PA", "RGBa") else "RGB"))


def upright(image: Image.Image) -> Image.Image:
    """A PIL image turned as its own EXIF says, in memory; the one given stays as it is."""
    image.load()
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
        turned = ImageOps.exif_transpose(image)
    except Exception as error:  # a damaged EXIF makes Pillow raise many things
        warn(f"the EXIF of a picture is damaged ({error}): it is taken to be upright")
        return image
    turned.format = image.format
    return turned


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what Pillow and the system raise into an InputError about the picture `name`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no file {name}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large to open safely ({error}): make it smaller first") from error
    except Exception as error:  # Pillow's decoders raise nearly everything at damaged files
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{name} is not a picture that can be read ({reason})") from error


def what_it_is(path: Path) -> str:
    """What a file that is no picture may be, and what to do."""
    with path.open("rb") as file:
        start = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "it is empty"
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "it is HEIC: save it as JPEG or PNG"
    return next((words for sign, words in NO_PICTURES if start.lower().startswith(sign)), "save it as PNG or JPEG")


def warn(words: str) -> None:
    warnings.warn(words, InputWarning, stacklevel=3)
