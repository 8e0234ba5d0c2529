"""A data set as the evaluation takes it: pictures with regions. Nothing is copied or converted, and a mask is decoded when its
picture is evaluated."""

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as shown

import torch
from PIL import Image
from torch import Tensor

from ..compute.memory import check_room
from ..errors import InputError
from ..geometry import resize
from ..pictures.files import open_picture
from .shapes import InFile, check, decode


@dataclass(frozen=True)
class Region:
    """shape: how its mask is written, see `shapes.decode`. texts: the name of its class, or the expressions that mean it.
    what: it is called in errors, with the file that it is from."""

    shape: object
    texts: tuple[str, ...]
    what: str = "the mask"


@dataclass(frozen=True)
class Sample:
    """A picture and its regions. size: (height, width) that the shapes are written for; None is that of the picture itself."""

    name: str
    image: Path
    regions: tuple[Region, ...]
    size: tuple[int, int] | None = None

    @property
    def files(self) -> set[Path]:
        return {self.image, *(region.shape.path for region in self.regions if isinstance(region.shape, InFile))}

    def open(self) -> Image.Image:
        """The picture upright; as it is stored where that is what the annotations' size says. It may be a copy at another scale.

        Raises InputError when it is missing, cannot be read, or is not of the size that the annotations say, nor of its shape.
        """
        if not os.path.exists(self.image):
            raise InputError(no_file(self.image))
        picture = open_picture(self.image)
        if self.size is None or picture.size[::-1] == self.size:
            return picture
        stored = open_picture(self.image, turned=False)
        if stored.size[::-1] == self.size:
            return stored
        if is_copy((picture.height, picture.width), self.size):
            return picture
        swapped = ": height and width are swapped" if picture.size == self.size else ""
        raise InputError(
            f"{self.image} is {picture.width} px wide and {picture.height} px high, and the annotations say {self.size[1]} and "
            f"{self.size[0]}{swapped}"
        )

    def check(self) -> None:
        """Raises InputError for a region whose shape cannot be of this picture, where its size is known without opening it."""
        if self.size is not None:
            for region in self.regions:
                check(region.shape, self.size, region.what)

    def masks(self, size: tuple[int, int]) -> Tensor:
        """The masks [M, h, w] of its regions, 0 or 1, on a picture of `size` (height, width); some may be empty."""
        own = self.size or size
        pixels = max(own[0] * own[1], size[0] * size[1])
        check_room(
            2 * len(self.regions) * pixels * torch.float32.itemsize,
            f"the {len(self.regions)} masks of {self.name}",
            "leave the picture out, or make it and its annotations smaller",
        )
        found = torch.stack([torch.from_numpy(decode(region.shape, own, region.what)) for region in self.regions]).float()
        return resize(found[:, None], size, "bilinear")[:, 0]


@dataclass(frozen=True)
class Dataset:
    """name: to show. samples: its pictures that have a region. classes: of the whole data set; empty where regions have
    expressions. digest: of the annotation files. left_out: how many of what is in the files and not here, see `report.LEFT_OUT`."""

    name: str
    samples: list[Sample]
    classes: list[str]
    digest: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def regions(self) -> int:
        return sum(len(sample.regions) for sample in self.samples)

    def limited(self, limit: int | None, seed: int) -> "Dataset":
        """`limit` of its pictures, drawn by `seed`; those of a smaller limit are among those of a larger one."""
        if limit is None or limit >= len(self.samples):
            return self
        return replace(self, samples=random.Random(seed).sample(self.samples, len(self.samples))[:limit])

    @cached_property
    def missing(self) -> dict[str, Path]:
        """The first file that is not there of each sample, by the sample's name."""
        found = {sample.name: next((path for path in sample.files if not os.path.isfile(path)), None) for sample in self.samples}
        return {name: path for name, path in found.items() if path is not None}

    def without_missing(self) -> "Dataset":
        """Without the pictures that are not there, which are counted. Raises InputError when none is."""
        if len(self.missing) == len(self.samples):
            raise InputError(f"none of the {len(self.samples)} pictures is there: {no_file(next(iter(self.missing.values())))}")
        samples = [sample for sample in self.samples if sample.name not in self.missing]
        return replace(self, samples=samples, left_out={**self.left_out, "missing_pictures": len(self.missing)})

    def check(self) -> None:
        """Raises InputError for files that are not there, and for regions that cannot be of their pictures."""
        if self.missing:
            more = f" ({len(self.missing)} of {len(self.samples)} pictures are missing)" if len(self.missing) > 1 else ""
            raise InputError(f"{no_file(next(iter(self.missing.values())))}{more}. --skip-missing leaves such pictures out")
        for sample in self.samples:
            sample.check()


def is_copy(size: tuple[int, int], original: tuple[int, int]) -> bool:
    """Whether a picture may be another one at another scale: smaller or larger on both sides, alike but for rounding."""
    (h, w), (height, width) = size, original
    return (h - height) * (w - width) > 0 and abs(w / width - h / height) <= 0.5 / width + 0.5 / height


def no_file(path: Path) -> str:
    return f"there is no file {path}, which the annotations name: is --images the right folder?"


def checked(dataset: Dataset) -> Dataset:
    """Raises InputError where there is nothing to evaluate, or two pictures have one name."""
    if not dataset.samples:
        raise InputError(f"{dataset.name} has no picture with a region")
    names = set()
    for sample in dataset.samples:
        if sample.name in names:
            raise InputError(f"{dataset.name} has several images with the id {shown(sample.name)}")
        names.add(sample.name)
    return dataset
