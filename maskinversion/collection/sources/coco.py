"""COCO's instances, LVIS, and what was converted to that format."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...datasets.base import Sample
from ...datasets.reading import class_of, id_of, is_crowd, named, picture_of, read_instances, shown, words
from ...datasets.shapes import decode, picture_size
from ...errors import InputError
from ...pictures.files import open_picture
from ..table import Reject
from .base import Item, Mask, Source, fitting

if TYPE_CHECKING:
    from PIL import Image

HAS_SEGMENTS = ": panoptic segments are not read here, take the file of instances"


@dataclass(frozen=True)
class CocoItem(Item):
    """regions: annotation, label, and the shape as the file has it. size: (height, width) as it says."""

    picture: str
    path: Path
    size: tuple[int, int]
    regions: tuple[tuple[str, str, object], ...]

    def is_there(self) -> bool:
        return os.path.isfile(self.path)

    def open(self) -> Image.Image:
        return Sample(self.picture, self.path, (), self.size).open()

    def masks(self, size: tuple[int, int]) -> Iterator[Mask | Reject]:
        for annotation, label, shape in self.regions:
            try:
                mask = torch.from_numpy(decode(shape, self.size, f"annotation {annotation}")).float()
                yield Mask(annotation, label, fitting(mask, size, f"annotation {annotation}"))
            except InputError as error:
                yield Reject(self.picture, annotation, str(error))


@dataclass(frozen=True)
class CocoInstances(Source):
    """annotations: the JSON. pictures: the folder of the pictures. Crowds are left out, and pictures without a region."""

    kind = "coco"

    annotations: str
    pictures: str

    def items(self) -> Iterator[Item | Reject]:
        content = read_instances(Path(self.annotations))
        names, folder = {}, Path(self.pictures)
        for category in content["categories"]:
            with named(f"category {id_of(category)} of {self.annotations}") as what:
                names[category["id"]] = words(category["name"], f"the name of {what}")
        regions, wrong = defaultdict(list), defaultdict(list)
        for index, annotation in enumerate(content["annotations"]):
            key = str(annotation.get("id", index)) if isinstance(annotation, dict) else shown(annotation)
            try:
                with named(f"annotation {key}") as what:
                    if is_crowd(annotation, what):
                        continue
                    if not annotation.get("segmentation"):
                        raise InputError(f"{what} has no segmentation{HAS_SEGMENTS if 'segments_info' in annotation else ''}")
                    region = key, class_of(annotation, names, what), annotation["segmentation"]
                    regions[annotation["image_id"]].append(region)
            except InputError as error:
                image = annotation.get("image_id") if isinstance(annotation, dict) else None
                wrong[image if isinstance(image, (str, int)) else None].append((key, str(error)))
        seen: set[str] = set()
        for image in content["images"]:
            try:
                with named(f"image {id_of(image)} of {self.annotations}") as what:
                    own = regions.pop(image["id"], []), wrong.pop(image["id"], [])
                    path = picture_of(image, folder, what)
                    key, size = key_of(path, folder), picture_size(image, what)
                    if key in seen:
                        raise InputError(f"{what} names the picture {key}, which another image has named")
            except InputError as error:
                yield Reject(f"image {id_of(image)}", None, str(error))
                continue
            yield from (Reject(key, annotation, reason) for annotation, reason in own[1])
            if own[0]:
                seen.add(key)
                yield CocoItem(key, path, size, tuple(own[0]))
        for image, some in wrong.items():
            yield from (Reject(f"image {image}", annotation, reason) for annotation, reason in some)
        for image, lost in regions.items():
            words_ = f"there is no image {shown(image)} in {self.annotations}"
            yield from (Reject(f"image {image}", annotation, words_) for annotation, _, _ in lost)

    def open(self, picture: str) -> Image.Image:
        return open_picture(Path(self.pictures, picture))


def key_of(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix() if path.is_relative_to(folder) else path.as_posix()
