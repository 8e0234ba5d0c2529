"""Folders of pictures, with masks or label maps in files of their own, or without any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ...pictures import read_mask
from ...pictures.files import open_picture
from ...pictures.labels import label_map
from ..table import Reject
from .base import PICTURES, Item, Mask, Source, fitting, found_in

if TYPE_CHECKING:
    from PIL import Image

JOINTS = "/_-. "  # between the name of a picture and what tells its masks apart


@dataclass(frozen=True)
class FileItem(Item):
    """root: the folder of the pictures. annotations: that of the masks or label maps. own: those of this picture, within it."""

    picture: str
    root: str
    annotations: str = ""
    own: tuple[str, ...] = ()

    def is_there(self) -> bool:
        return os.path.isfile(Path(self.root, self.picture))

    def open(self) -> Image.Image:
        return open_picture(Path(self.root, self.picture))

    def masks(self, size: tuple[int, int]) -> Iterator[Mask | Reject]:
        for name in self.own:
            path = Path(self.annotations, name)
            try:
                yield Mask(name, None, fitting(read_mask(path), size, f"the mask {path}"))
            except InputError as error:
                yield Reject(self.picture, name, str(error))


class LabelItem(FileItem):
    """Its regions are the labels of its maps."""

    def masks(self, size: tuple[int, int]) -> Iterator[Mask | Reject]:
        for name in self.own:
            path = Path(self.annotations, name)
            try:
                numbers, labels = label_map(path)
                fitting(numbers.float(), size, f"the label map {path}")
            except InputError as error:
                yield Reject(self.picture, name, str(error))
                continue
            several = f"{name}#" if len(self.own) > 1 else ""
            for label in labels:
                yield Mask(f"{several}{label}", str(label), fitting((numbers == label).float(), size, f"the label map {path}"))


@dataclass(frozen=True)
class MaskFiles(Source):
    """pictures, masks: folders. The masks of cats/1.jpg are cats/1.png, cats/1_*.png, and whatever is in cats/1/."""

    kind = "masks"
    item = FileItem

    pictures: str
    masks: str

    def items(self) -> Iterator[Item | Reject]:
        if os.path.realpath(self.pictures) == os.path.realpath(self.masks):
            raise InputError(
                f"the pictures and the {self.kind} are both in {self.pictures}, so it is not clear which is which: put the "
                f"{self.kind} into a folder of their own, which may be inside of it"
            )
        pictures, files = found_in(self.pictures, PICTURES, self.masks), found_in(self.masks, PICTURES, self.pictures)
        own, lost = assigned(pictures, files)
        for picture, names in own.items():
            if names:
                yield self.item(picture, self.pictures, self.masks, tuple(names))
            else:
                yield Reject(picture, None, f"there is no file for {picture} in {self.masks}")
        for name in lost:
            yield Reject(name, name, f"there is no picture in {self.pictures} that {name} could belong to")

    def open(self, picture: str) -> Image.Image:
        return open_picture(Path(self.pictures, picture))


@dataclass(frozen=True)
class LabelMaps(MaskFiles):
    """As MaskFiles, with a label map for each picture instead: every number in it but 0, and 255 in one of 8 bits, is a region."""

    kind = "labels"
    item = LabelItem


@dataclass(frozen=True)
class Pictures(Source):
    """A folder of pictures without masks, for a segmenter."""

    kind = "pictures"

    pictures: str

    def items(self) -> Iterator[Item | Reject]:
        for picture in found_in(self.pictures, PICTURES):
            yield FileItem(picture, self.pictures)

    def open(self, picture: str) -> Image.Image:
        return open_picture(Path(self.pictures, picture))


def assigned(pictures: list[str], files: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The files of each picture by their names, and those of none: a file is of the picture with the longest name that it
    begins with."""
    stems: dict[str, list[str]] = {}
    for picture in pictures:
        stems.setdefault(picture.rpartition(".")[0], []).append(picture)
    own: dict[str, list[str]] = {picture: [] for picture in pictures}
    lost = []
    for name in files:
        stem = name.rpartition(".")[0]
        ends = [len(stem), *(place for place in range(len(stem) - 1, 0, -1) if stem[place] in JOINTS)]
        found = next((stems[stem[:end]] for end in ends if stem[:end] in stems), None)
        if found is None:
            lost.append(name)
        for picture in found or ():
            own[picture].append(name)
    return own, lost
