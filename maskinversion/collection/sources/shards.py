"""WebDataset shards: tar files, read in their place. Nothing of them is ever written to the disk."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

from ...datasets.reading import named
from ...datasets.shapes import decode
from ...errors import InputError, first_line
from ...files import LARGEST_JSON, json_object
from ...pictures import read_mask
from ...pictures.files import open_bytes
from ...pictures.labels import label_map
from ..table import Reject
from .base import PICTURES, Item, Mask, Source, fitting, found_in

if TYPE_CHECKING:
    from PIL import Image

MASK, LABELS, JSON = "mask", ("labels", "label", "seg"), "json"
Place = tuple[int, int]  # where it begins in the tar, and its bytes


@dataclass(frozen=True)
class TarItem(Item):
    """image: where it is. parts: the extension and the place of everything else of its key."""

    picture: str
    tar: str
    image: Place
    parts: tuple[tuple[str, Place], ...] = ()

    def open(self) -> Image.Image:
        return open_bytes(read_place(self.tar, self.image, self.picture), self.picture)

    def masks(self, size: tuple[int, int]) -> Iterator[Mask | Reject]:
        for extension, place in self.parts:
            what = f"{self.picture}, {extension}"
            try:
                yield from self.masks_of(extension, read_place(self.tar, place, what), size, what)
            except InputError as error:
                yield Reject(self.picture, extension, str(error))

    def masks_of(self, extension: str, content: bytes, size: tuple[int, int], what: str) -> Iterator[Mask | Reject]:
        first = extension.partition(".")[0]
        if extension == JSON:
            yield from self.described(content, size, what)
        elif first in LABELS:
            numbers, labels = label_map(open_bytes(content, what))
            fitting(numbers.float(), size, what)
            for label in labels:
                yield Mask(str(label), str(label), fitting((numbers == label).float(), size, what))
        else:
            yield Mask(extension, None, fitting(read_mask(open_bytes(content, what)), size, what))

    def described(self, content: bytes, size: tuple[int, int], what: str) -> Iterator[Mask | Reject]:
        """COCO's annotations of one picture: {"annotations": [{"id", "segmentation", "label"}]}."""
        if len(content) > LARGEST_JSON:
            raise InputError(f"{what} has more than {LARGEST_JSON} bytes, and should be the annotations of one picture")
        try:
            annotations = json_object(content.decode("utf-8-sig"), what).get("annotations", [])
        except UnicodeDecodeError as error:
            raise InputError(f"{what} is not a text in UTF-8") from error
        for index, annotation in enumerate(annotations if isinstance(annotations, list) else [None]):
            key = str(annotation.get("id", index)) if isinstance(annotation, dict) else str(index)
            try:
                with named(f"{what}, annotation {key}") as its:
                    if not isinstance(annotation, dict):
                        raise InputError(f"{its} is no object of JSON")
                    label = annotation.get("label")
                    mask = torch.from_numpy(decode(annotation["segmentation"], size, its)).float()
                    yield Mask(key, None if label is None else str(label), mask)
            except InputError as error:
                yield Reject(self.picture, key, str(error))


@dataclass(frozen=True)
class Shards(Source):
    """shards: a folder of .tar files. Members of one key belong together, such as 000.jpg, 000.mask.png, 000.mask.2.png and
    000.json: masks begin with `mask`, a label map is `labels`, `label` or `seg`, and the JSON may have COCO's annotations."""

    kind = "webdataset"

    shards: str

    def items(self) -> Iterator[Item | Reject]:
        for shard in found_in(self.shards, (".tar",)):
            yield from items_of(shard, Path(self.shards, shard))

    def open(self, picture: str) -> Image.Image:
        shard = f"{picture.partition('.tar/')[0]}.tar"
        for item in items_of(shard, Path(self.shards, shard)):
            if isinstance(item, TarItem) and item.picture == picture:
                return item.open()
        raise InputError(f"there is no picture {picture} in {self.shards}")


def items_of(shard: str, path: Path) -> Iterator[Item | Reject]:
    """The pictures of one tar, by their keys. What is no ordinary file in it is passed by, whatever it is called."""
    images: dict[str, tuple[str, Place]] = {}
    parts: dict[str, dict[str, Place]] = {}
    rejects = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                key, extension = key_of(member.name)
                place = member.offset_data, member.size
                if f".{extension}" in PICTURES:
                    if key in images:
                        rejects.append(Reject(f"{shard}/{member.name}", None, f"{path} has several pictures of the key {key}"))
                    images.setdefault(key, (member.name, place))
                elif extension == JSON or extension.partition(".")[0] in (*LABELS, MASK) or is_mask(extension):
                    parts.setdefault(key, {})[extension] = place
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        rejects.append(Reject(shard, None, f"{path} is no tar file that can be read to its end ({first_line(error)})"))
    for key, (name, place) in images.items():
        yield TarItem(f"{shard}/{name}", str(path), place, tuple(sorted(parts.pop(key, {}).items())))
    for key in parts:
        rejects.append(Reject(f"{shard}/{key}", None, f"{path} has masks of the key {key}, and no picture"))
    yield from rejects


def key_of(name: str) -> tuple[str, str]:
    """Up to the first dot of the file's name, as WebDataset has it; and what follows, in small letters."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return (path.parent / stem).as_posix(), extension.lower()


def is_mask(extension: str) -> bool:
    return extension.startswith(MASK) and extension[len(MASK) :].partition(".")[0].strip("_-").isdigit()


def read_place(tar: str, place: Place, what: str) -> bytes:
    start, size = place
    try:
        with open(tar, "rb") as file:
            there = file.seek(0, io.SEEK_END)
            if start + size > there:
                raise InputError(f"{what} is cut off: {tar} ends before it")
            file.seek(start)
            return file.read(size)
    except OSError as error:
        raise InputError(f"{tar} could not be read ({first_line(error)})") from error
