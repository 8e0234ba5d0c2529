"""What all sources of pictures have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from ...datasets.base import is_copy
from ...errors import InputError
from ...geometry import resize
from ..table import Reject

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Mask:
    """A region of a picture. annotation: its key. mask [h, w]: in 0..1, of the picture's size."""

    annotation: str
    label: str | None
    mask: Tensor


class Item(ABC):
    """A picture and its regions, still where they are: small, and the same in another process. picture: its key."""

    picture: str

    def is_there(self) -> bool:
        """Whether it may be there, without reading it."""
        return True

    @abstractmethod
    def open(self) -> Image.Image:
        """The picture. Raises InputError where it cannot be read."""

    @abstractmethod
    def masks(self, size: tuple[int, int]) -> Iterator[Mask | Reject]:
        """Its regions on the picture of this (height, width), one after the other, and what of them cannot be read."""


class Source(ABC):
    """Pictures with masks. A dataclass, whose fields are the files and folders that it was given.

    kind: what it is called in a table's manifest.
    """

    kind: ClassVar[str]

    @abstractmethod
    def items(self) -> Iterator[Item | Reject]:
        """Its pictures, always in the same order, and what is known to be wrong before any is opened."""

    @abstractmethod
    def open(self, picture: str) -> Image.Image:
        """A picture by its key. Raises InputError where it cannot be read."""

    def describe(self) -> dict[str, Any]:
        """For the manifest; see `source_of`."""
        return {"kind": self.kind, **asdict(self)}  # pyright: ignore[reportCallIssue, reportArgumentType]


def fitting(mask: Tensor, size: tuple[int, int], what: str) -> Tensor:
    """A mask [h, w] at the (height, width) of its picture. Raises InputError for one that is not of its shape."""
    own = (mask.shape[0], mask.shape[1])
    if own == size:
        return mask
    if is_copy(own, size):
        return resize(mask[None, None], size, "bilinear")[0, 0]
    turned = ": was it made for the picture as it is stored, not turned upright?" if own == size[::-1] else ""
    raise InputError(f"{what} is {own[1]} x {own[0]} px and its picture {size[1]} x {size[0]} px{turned}")


def absolute(path: str | os.PathLike) -> str:
    return Path(os.path.abspath(path)).as_posix()


def found_in(folder: str, endings: tuple[str, ...], but: str | None = None) -> list[str]:
    """The files of a folder and those in it, by their paths within it with /, sorted; hidden ones left out.

    but: a folder that may be inside, whose files are left out. Raises InputError where it is no folder, or has none.
    """
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}")
    found = []
    left_out = None if but is None else os.path.realpath(but)
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and os.path.realpath(Path(here, name)) != left_out]
        inside = Path(os.path.relpath(here, folder))
        found += [(inside / name).as_posix() for name in names if name.lower().endswith(endings) and not name.startswith(".")]
    if not found:
        raise InputError(f"there is no file with an ending of {', '.join(endings)} in {folder}")
    return sorted(found)
