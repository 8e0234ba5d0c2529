"""Data sets in their published formats, as pictures with regions: COCO instances, RefCOCO and its kin, PhraseCut.

Nothing is copied or converted, and a mask is decoded when its picture is evaluated.
"""

import hashlib
import json
import os
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import InputError
from ..geometry import resize
from ..packages import require
from ..pictures.files import open_picture
from .plain_pickle import read_plain_pickle


@dataclass(frozen=True)
class Region:
    """shape: how its mask is written, see `decode`. texts: the name of its class, or the expressions that mean it."""

    shape: object
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """A picture and its regions. size: (height, width) that the shapes are written for; None is that of the picture itself."""

    name: str
    image: Path
    regions: tuple[Region, ...]
    size: tuple[int, int] | None = None

    def open(self) -> Image.Image:
        """The picture upright; as it is stored where that is what the annotations' size says.

        Raises InputError when it is missing or cannot be read.
        """
        if not self.image.exists():
            raise InputError(f"there is no file {self.image}, which the annotations name: is --images the right folder?")
        picture = open_picture(self.image)
        if self.size == picture.size != picture.size[::-1]:  # width, height of what is upright
            return open_picture(self.image, turned=False)
        return picture

    def masks(self, size: tuple[int, int]) -> Tensor:
        """The masks [M, h, w] of its regions, 0 or 1, on a picture of `size` (height, width); some may be empty."""
        found = torch.stack([torch.from_numpy(decode(region.shape, self.size or size)) for region in self.regions]).float()
        return resize(found[:, None], size, "bilinear")[:, 0]


@dataclass(frozen=True)
class Dataset:
    """name: to show. samples: its pictures that have a region. classes: of the whole data set; empty where regions have
    expressions. digest: of the annotation files."""

    name: str
    samples: list[Sample]
    classes: list[str]
    digest: str

    @cached_property
    def regions(self) -> int:
        return sum(len(sample.regions) for sample in self.samples)

    def limited(self, limit: int | None, seed: int) -> "Dataset":
        """`limit` of its pictures, drawn by `seed`; those of a smaller limit are among those of a larger one."""
        if limit is None or limit >= len(self.samples):
            return self
        return replace(self, samples=random.Random(seed).sample(self.samples, len(self.samples))[:limit])


def read_coco(annotations: Path, images: Path) -> Dataset:
    """COCO's instances (instances_val2017.json), and what was converted to that format: PascalVOC, Context, OpenImages.

    Crowds are left out. Raises InputError for a file that is not in that format.
    """
    content = read_instances(annotations)
    by_image = defaultdict(list)
    try:
        names = {category["id"]: category["name"] for category in content["categories"]}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd") and annotation.get("segmentation"):
                by_image[annotation["image_id"]].append(Region(annotation["segmentation"], (names[annotation["category_id"]],)))
        samples = [
            Sample(str(image["id"]), images / image["file_name"], tuple(by_image[image["id"]]), (image["height"], image["width"]))
            for image in content["images"]
            if image["id"] in by_image
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{annotations} is not COCO's instances ({error!r})") from error
    return checked(Dataset(titled(annotations), samples, list(dict.fromkeys(names.values())), digest(annotations)))


def read_refcoco(refs: Path, annotations: Path, images: Path, split: str | None = None) -> Dataset:
    """RefCOCO, RefCOCO+ and RefCOCOg as published (github.com/lichengunc/refer): refs(unc).p and instances.json.

    refs: that pickle, of which only plain data is read, or the same as .json. images: COCO's train2014, or the same pictures
    under the names of train2017. split: val, testA, ..., `test` for every test split; None for all.
    Raises InputError for files that are not in that format, or a split that is not there.
    """
    content = read_instances(annotations)
    listed = read_json(refs) if refs.suffix == ".json" else read_plain_pickle(refs)
    by_image = defaultdict(list)
    try:
        shapes = {annotation["id"]: annotation["segmentation"] for annotation in content["annotations"]}
        pictures = {image["id"]: image for image in content["images"]}
        splits = sorted({ref["split"] for ref in listed})
        for ref in listed:
            if split in (None, ref["split"]) or (split == "test" and ref["split"].startswith("test")):
                texts = tuple(dict.fromkeys(sent for sentence in ref["sentences"] if (sent := sentence["sent"].strip())))
                if texts:
                    by_image[ref["image_id"]].append(Region(shapes[ref["ann_id"]], texts))
        samples = []
        for key, regions in by_image.items():
            image = pictures[key]
            path = first_existing(images, image["file_name"], f"{int(key):012d}.jpg")
            samples.append(Sample(str(key), path, tuple(regions), (image["height"], image["width"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{refs} and {annotations} do not belong together, or are not RefCOCO's ({error!r})") from error
    if not samples and split not in splits:
        raise InputError(f"{refs} has no split {split!r}; it has {', '.join(splits) or 'nothing'}")
    return checked(Dataset(f"{titled(refs)}, {split or 'all splits'}", samples, [], digest(refs, annotations)))


def read_phrasecut(annotations: Path, images: Path) -> Dataset:
    """PhraseCut as published (github.com/ChenyunWu/PhraseCutDataset): refer_SPLIT.json, and pictures IMAGE_ID.jpg.

    A phrase means all of its instances together: their union is its region.
    Raises InputError for a file that is not in that format.
    """
    by_image = defaultdict(list)
    try:
        for task in read_json(annotations):
            polygons = [polygon for instance in task["Polygons"] for polygon in instance]
            if phrase := task["phrase"].strip():
                by_image[task["image_id"]].append(Region(Points(tuple(map(flat, polygons))), (phrase,)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{annotations} is not PhraseCut's refer_SPLIT.json ({error!r})") from error
    samples = [Sample(str(key), images / f"{key}.jpg", tuple(regions)) for key, regions in by_image.items()]
    return checked(Dataset(titled(annotations), samples, [], digest(annotations)))


@dataclass(frozen=True)
class Points:
    """Polygons as PhraseCut fills them: each a row of whole pixels x, y, x, y, ..., its border included."""

    polygons: tuple[tuple[int, ...], ...]


def flat(polygon: list) -> tuple[int, ...]:
    return tuple(int(number) for point in polygon for number in point)


def decode(shape: Any, size: tuple[int, int]) -> np.ndarray:
    """A mask [height, width] of 0 and 1 (uint8): of COCO's polygons or run lengths (compressed or not), or of `Points`."""
    if isinstance(shape, Points):
        canvas = Image.new("L", (size[1], size[0]))
        for polygon in shape.polygons:
            if len(polygon) >= 4:
                ImageDraw.Draw(canvas).polygon(polygon, fill=1, outline=1)
        return np.array(canvas)
    mask = require("pycocotools.mask", "a mask of COCO")
    try:
        if isinstance(shape, list):
            polygons = [polygon for polygon in shape if len(polygon) >= 6]
            return mask.decode(mask.merge(mask.frPyObjects(polygons, *size))) if polygons else np.zeros(size, np.uint8)
        runs = mask.frPyObjects(shape, *shape["size"]) if isinstance(shape["counts"], list) else shape
        return mask.decode(runs)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"a mask of the annotations is neither polygons nor run lengths ({error})") from error


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} could not be read as JSON ({error})") from error


def read_instances(path: Path) -> dict:
    content = read_json(path)
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise InputError(f"{path} is not COCO's instances: it has no {', '.join(sorted(missing))}")
    return content


def titled(path: Path) -> str:
    """How to call a data set: by its file and the folder that this is in, since the file's name is often the same."""
    return f"{path.resolve().parent.name}/{path.stem}"


def first_existing(folder: Path, *names: str) -> Path:
    """The first of these files that is there, else the first of them all."""
    return next((folder / name for name in names if (folder / name).is_file()), folder / names[0])


def digest(*paths: str | os.PathLike) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(Path(path).read_bytes())
    return found.hexdigest()[:16]


def checked(dataset: Dataset) -> Dataset:
    if not dataset.samples:
        raise InputError(f"{dataset.name} has no picture with a region")
    return dataset
