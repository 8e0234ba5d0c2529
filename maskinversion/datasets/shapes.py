"""The shapes of annotations as masks. Each is checked against the size of its picture first: the C library that fills COCO's
polygons ends the process at some of those that are damaged, and answers others with whatever was in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from reprlib import repr as shown

import numpy as np
from PIL import Image, ImageDraw

from ..errors import InputError
from ..geometry import LARGEST
from ..packages import require
from ..pictures.files import open_picture

LONGEST_NUMBER = 7  # letters of a compressed run, 5 bits each


@dataclass(frozen=True)
class Points:
    """Polygons as PhraseCut fills them: each a row of whole pixels x, y, x, y, ..., its border included."""

    polygons: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class InFile:
    """A shape that is in a picture file of its own, or of its picture."""

    path: Path


@dataclass(frozen=True)
class Segment(InFile):
    """What has this number in a PNG of COCO's panoptic annotations."""

    number: int


@dataclass(frozen=True)
class Label(InFile):
    """What has this number in a label map, a PNG with a palette or in greys, as PASCAL VOC has them."""

    number: int


@dataclass(frozen=True)
class Binary(InFile):
    """What is not black in a PNG of its own, as Open Images has them, which may be at another scale than its picture."""


@dataclass(frozen=True)
class Union:
    """Several shapes as one region, each with what it is called in errors."""

    shapes: tuple[tuple[object, str], ...]


def decode(shape: object, size: tuple[int, int], what: str = "the mask") -> np.ndarray:
    """A mask [height, width] of 0 and 1 (uint8): of COCO's polygons or run lengths (compressed or not), or of a class above.

    size: (height, width) of its picture. what: it is called in errors. Raises InputError for a shape that is damaged, or that is
    not of a picture of this size.
    """
    if isinstance(shape, Union):
        return np.maximum.reduce([decode(part, size, name) for part, name in shape.shapes])
    if isinstance(shape, Points):
        return filled(shape, size, what)
    if isinstance(shape, Segment | Label):
        return (numbers_of(shape, size, what) == shape.number).astype(np.uint8)
    if isinstance(shape, Binary):
        return scaled(shape, size, what)
    if isinstance(shape, list):
        polygons = polygons_of(shape, size, what)
        if not polygons:
            return np.zeros(size, np.uint8)
        mask = require("pycocotools.mask", "a mask of COCO")
        return mask.decode(mask.merge(mask.frPyObjects(polygons, *size)))
    runs = runs_of(shape, size, what)
    turns = np.arange(len(runs), dtype=np.uint8) % 2
    return np.repeat(turns, runs).reshape(size[::-1]).T  # column by column


def check(shape: object, size: tuple[int, int], what: str) -> None:
    """Raises what `decode` would, but for what is in a file of its own, without making the mask."""
    if isinstance(shape, Union):
        for part, name in shape.shapes:
            check(part, size, name)
    elif isinstance(shape, Points):
        check_points(shape, size, what)
    elif isinstance(shape, list):
        polygons_of(shape, size, what)
    elif not isinstance(shape, InFile):
        runs_of(shape, size, what)


def picture_size(image: dict, what: str) -> tuple[int, int]:
    """(height, width) as the annotations have it of a picture. Raises InputError for what no picture can have."""
    size = tuple(image[side] for side in ("height", "width"))
    if not all(is_whole(side) and side >= 1 for side in size) or size[0] * size[1] > LARGEST:
        raise InputError(f"{what} is {shown(size[1])} px wide and {shown(size[0])} px high: no picture can be")
    return int(size[0]), int(size[1])


def is_whole(number: object) -> bool:
    """Whether it is an integer; JSON of other tools has some as 480.0."""
    return (isinstance(number, int) and not isinstance(number, bool)) or (isinstance(number, float) and number.is_integer())


def numbers(values: object) -> np.ndarray | None:
    """A list of numbers, finite or not, as an array [N]; None for anything else."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    return array if array.ndim == 1 and array.dtype.kind in "iuf" else None


def check_inside(array: np.ndarray, size: tuple[int, int], what: str) -> None:
    """Raises InputError for x, y, x, y, ... that are not finite, or further outside of the picture than it is long."""
    for values, side in ((array[::2], size[1]), (array[1::2], size[0])):
        if len(values) and not (values.min() >= -side and values.max() <= 2 * side):  # so written, NaN is outside
            raise InputError(
                f"{what} has a polygon with numbers from {array.min():.4g} to {array.max():.4g}, far outside of its picture of "
                f"{size[1]} x {size[0]} px"
            )


def polygons_of(shape: list, size: tuple[int, int], what: str) -> list[list[float]]:
    """COCO's polygons, without those of fewer than three corners."""
    found = []
    for polygon in shape:
        array = numbers(polygon) if isinstance(polygon, list) else None
        if array is None or len(array) % 2:
            raise InputError(f"{what} is neither polygons nor run lengths: a polygon is a list of numbers x, y, x, y, ...")
        check_inside(array, size, what)
        if len(array) >= 6:
            found.append(array.astype(float).tolist())
    return found


def runs_of(shape: object, size: tuple[int, int], what: str) -> np.ndarray:
    """COCO's run lengths: how many pixels are out, in, out, ..., column by column, as an array of as many as there are runs."""
    if not isinstance(shape, dict) or not {"size", "counts"} <= shape.keys():
        raise InputError(f"{what} is neither polygons nor run lengths")
    given = shape["size"]
    if not isinstance(given, list | tuple) or len(given) != 2 or not all(is_whole(side) for side in given):
        raise InputError(f"{what} has run lengths for a picture of size {shown(given)}; it must be [height, width]")
    if tuple(given) != size:
        swapped = ": height and width are swapped" if tuple(given[::-1]) == size else ""
        raise InputError(
            f"{what} has run lengths for a picture {shown(given[1])} px wide and {shown(given[0])} px high, and its picture is "
            f"{size[1]} px wide and {size[0]} px high{swapped}"
        )
    counts = shape["counts"]
    if isinstance(counts, str | bytes):
        counts = uncompressed(counts, what)
    array = numbers(counts)
    pixels = size[0] * size[1]
    if array is None or not (array == np.trunc(array)).all():
        raise InputError(f"{what} has run lengths that are not whole numbers")
    if len(array) and (array.min() < 0 or array.max() > pixels):
        wrong = array.min() if array.min() < 0 else array.max()
        raise InputError(f"{what} has a run of {wrong.item()} pixels, and its picture has {pixels}")
    runs = array.astype(np.int64)
    if runs.sum() != pixels:
        raise InputError(
            f"{what} has run lengths for {runs.sum()} pixels, and its picture has {pixels}: they are cut off or damaged"
        )
    return runs


def uncompressed(text: str | bytes, what: str) -> list[int]:
    """Run lengths written as text: groups of 5 bits and whether more follow, from the lowest; from the fourth number on, how much
    it is more than the last but one."""
    found: list[int] = []
    value = place = 0
    for letter in text.encode("utf-8", "replace") if isinstance(text, str) else text:
        bits = letter - 48
        if not 0 <= bits < 64 or place >= 5 * LONGEST_NUMBER:
            raise InputError(f"{what} has compressed run lengths that are damaged: {shown(text)}")
        value |= (bits & 31) << place
        place += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << place
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = place = 0
    if place:
        raise InputError(f"{what} has compressed run lengths that are cut off")
    return found


def points_of(polygons: object, what: str) -> Points:
    """PhraseCut's polygons, each a list of points [x, y], in whole pixels. Raises InputError for others."""
    found = []
    for polygon in polygons if isinstance(polygons, list) else [None]:
        points = polygon if isinstance(polygon, list) else []
        pairs = [point for point in points if isinstance(point, list) and len(point) == 2]
        whole = bool(points) and len(pairs) == len(points)
        array = numbers([number for point in pairs for number in point]) if whole else None
        if array is None or not (np.abs(array) < LARGEST).all():  # so written, NaN is too much
            raise InputError(f"{what} has a polygon that is not a list of points [x, y] in pixels: {shown(polygon)}")
        found.append(tuple(array.astype(np.int64).tolist()))
    return Points(tuple(found))


def check_points(points: Points, size: tuple[int, int], what: str) -> None:
    for polygon in points.polygons:
        check_inside(np.array(polygon), size, what)


def filled(points: Points, size: tuple[int, int], what: str) -> np.ndarray:
    check_points(points, size, what)
    canvas = Image.new("L", (size[1], size[0]))
    for polygon in points.polygons:
        if len(polygon) >= 4:
            ImageDraw.Draw(canvas).polygon(polygon, fill=1, outline=1)
    return np.array(canvas)


def numbers_of(shape: Segment | Label, size: tuple[int, int], what: str) -> np.ndarray:
    """The numbers [h, w] in the PNG of a segment or a label, which is among them."""
    try:
        changed = shape.path.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise InputError(f"there is no file {shape.path}, which has {what}") from error
    found = kept(read_colours if isinstance(shape, Segment) else read_labels, shape.path, changed)
    if found.shape != size:
        raise InputError(f"{shape.path}, which has {what}, is {px(found.shape)}, and its picture is {px(size)}")
    if not (found == shape.number).any():
        raise InputError(f"{shape.path} has no {what}: is it of other annotations?")
    return found


@lru_cache(maxsize=1)  # of the segments of one picture
def kept(read: Callable[[Path], np.ndarray], path: Path, changed: int) -> np.ndarray:
    """What is read from a file, as long as it does not change."""
    return read(path)


def read_colours(path: Path) -> np.ndarray:
    picture = open_picture(path, turned=False)
    if picture.mode not in ("RGB", "RGBA"):
        raise InputError(f"{path} is not one of COCO's panoptic PNGs, which have the number of a segment as a colour")
    red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB"), np.int32), 2, 0)
    return red + 256 * green + 65536 * blue


def read_labels(path: Path) -> np.ndarray:
    """The numbers [h, w] (uint8) of a label map."""
    picture = open_picture(path, turned=False)
    if picture.mode not in ("P", "L"):
        raise InputError(f"{path} is not a label map: it has no palette and is not in greys of 8 bits, but of mode {picture.mode}")
    return np.asarray(picture)


def scaled(shape: Binary, size: tuple[int, int], what: str) -> np.ndarray:
    found = (np.asarray(open_picture(shape.path, turned=False).convert("L")) > 0).astype(np.uint8)
    (h, w), (height, width) = found.shape, size
    if abs(w * height - h * width) > (h + w + height + width) / 2:  # both may be rounded from a third size
        raise InputError(f"{shape.path}, which has {what}, is {px((h, w))}, and its picture is {px(size)}, of another shape")
    return np.array(Image.fromarray(found).resize((width, height), Image.Resampling.NEAREST))


def px(size: tuple[int, ...]) -> str:
    return f"{size[1]} px wide and {size[0]} px high"
