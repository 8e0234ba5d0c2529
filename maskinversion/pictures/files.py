"""Files of pictures, and what Pillow makes of them."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import InputError
from .numbers import warn

ORIENTATION = 0x0112  # in EXIF
START = 64  # bytes of a file that tell what it is
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
        return decoded(path, str(path), turned)


def open_bytes(content: bytes, what: str) -> Image.Image:
    """As `open_picture`, of the content of a file. what: it is called in errors."""
    with explained(what):
        return decoded(io.BytesIO(content), what, True)


def decoded(source: str | os.PathLike | io.BytesIO, what: str, turned: bool) -> Image.Image:
    try:
        with Image.open(source) as image:
            if turned:
                return upright(image)
            image.load()
            image.getexif().pop(ORIENTATION, None)
            return image
    except UnidentifiedImageError as error:
        start = source.getvalue()[:START] if isinstance(source, io.BytesIO) else start_of(Path(source))
        raise InputError(f"{what} is not a picture that can be read: {what_it_is(start)}") from error


@contextmanager
def opened(given: str | os.PathLike | Image.Image, what: str) -> Iterator[Image.Image]:
    """A file or a PIL image, upright; what Pillow raises inside becomes an InputError about `what`."""
    with explained(what):
        yield upright(given) if isinstance(given, Image.Image) else open_picture(given)


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


def array_of(image: Image.Image) -> np.ndarray:
    """The numbers of a PIL image: [h, w] (bool, uint8, uint16, int32 or float32), [h, w, 2], [h, w, 3] or [h, w, 4] (uint8)."""
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # which have 16 bits at most
        return np.array(image).clip(0, 65535).astype(np.uint16)
    if image.mode in ("1", "I", "F", "LA", "RGBA") or image.mode.startswith("I;16"):
        return np.array(image)
    keyed = "transparency" in image.info
    if image.mode in ("L", "La"):
        return np.array(image.convert("LA") if keyed or image.mode == "La" else image)
    return np.array(image.convert("RGBA" if keyed or image.mode in ("PA", "RGBa") else "RGB"))


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


def start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START)


def what_it_is(start: bytes) -> str:
    """What a file that begins so and is no picture may be, and what to do."""
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "it is empty"
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "it is HEIC: save it as JPEG or PNG"
    return next((words for sign, words in NO_PICTURES if start.lower().startswith(sign)), "save it as PNG or JPEG")
