"""PASCAL VOC's instances and PASCAL-Context's classes, from label maps: PNGs that have a number for every pixel."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import InputError
from .base import Dataset, Region, Sample, checked
from .reading import digest, read_text, shown
from .shapes import Label, px, read_labels

# In the order of their numbers, from 1, as everyday words.
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog", "horse"),
    *("motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
JOINED = {name.replace(" ", ""): name for name in VOC}
NOTHING = (0, 255)  # background or no label; the border of an object, or what is left out


def read_voc(folder: Path, images: Path, split: str | None = None) -> Dataset:
    """PASCAL VOC's segmentation as published (host.robots.ox.ac.uk/pascal/VOC): every object by itself.

    folder: VOCdevkit/VOC2012, with ImageSets/Segmentation, SegmentationObject and SegmentationClass. images: its JPEGImages.
    split: val, train or trainval; None for val. An object's class is that of most of its pixels; what is marked 255 belongs to no
    object. (Annotations/ has nothing more but boxes.)
    Raises InputError for files that are not there or not in that format.
    """
    split = split or "val"
    samples, files = [], []
    listed = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    for name in names_in(listed):
        objects, kinds = (folder / part / f"{name}.png" for part in ("SegmentationObject", "SegmentationClass"))
        files += [objects, kinds]
        numbers, classes = read_labels(objects), read_labels(kinds)
        if numbers.shape != classes.shape:
            raise InputError(f"{objects} is {px(numbers.shape)}, and {kinds} {px(classes.shape)}: they should be of one picture")
        regions = []
        for number in labels_in(numbers):
            found, count = np.unique(classes[numbers == number], return_counts=True)
            kind = int(found[count.argmax()])
            if not 1 <= kind <= len(VOC) or 2 * count.max() <= count.sum():
                raise InputError(f"object {number} of {objects} is of no class in {kinds}, where most of it is {kind}")
            regions.append(Region(Label(objects, number), (VOC[kind - 1],), f"object {number} of {objects}"))
        if regions:
            samples.append(Sample(name, images / f"{name}.jpg", tuple(regions), numbers.shape))
    return checked(Dataset(f"{folder.name}, {split}", samples, [*VOC], digest(listed, *files)))


def read_context(folder: Path, images: Path, labels: Path, names: Path | None = None, split: str | None = None) -> Dataset:
    """PASCAL-Context's 59 classes as published (cs.stanford.edu/~roozbeh/pascal-context): all of a class in a picture is a region.

    folder: VOCdevkit/VOC2010, whose ImageSets/Main says which pictures are of a split. images: its JPEGImages. labels: the
    folder 59_context_labels. names: 59_labels.txt; None is the one beside that folder. split: val or train; None for val.
    Raises InputError for files that are not there or not in that format.
    """
    split = split or "val"
    names = names or labels.parent / "59_labels.txt"
    classes = dict(numbered(names))
    samples, files = [], []
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    for name in names_in(listed):
        path = labels / f"{name}.png"
        files.append(path)
        numbers = read_labels(path)
        regions = []
        for number in labels_in(numbers):
            if number not in classes:
                raise InputError(f"{path} has the label {number}, which {names} does not name")
            regions.append(Region(Label(path, number), (classes[number],), f"label {number} of {path}"))
        if regions:
            samples.append(Sample(name, images / f"{name}.jpg", tuple(regions), numbers.shape))
    return checked(Dataset(f"PASCAL-Context, {split}", samples, [*classes.values()], digest(listed, names, *files)))


def labels_in(numbers: np.ndarray) -> list[int]:
    return [number for number in np.unique(numbers).tolist() if number not in NOTHING]


def names_in(path: Path) -> list[str]:
    """The pictures that a list of VOC names, a line each."""
    names = read_text(path).split()
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):
            raise InputError(f"{path} has {shown(name)}, which is not the name of a picture such as 2007_000033")
    return names


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    """Names by their number, from lines such as "1: aeroplane"."""
    for line in filter(str.strip, read_text(path).splitlines()):
        found = re.fullmatch(r"\s*(\d{1,3})\s*:\s*(\S.*?)\s*", line)
        if not found:
            raise InputError(f"{path} has the line {shown(line)}; it must be a number and a name, such as '1: aeroplane'")
        yield int(found[1]), JOINED.get(found[2], found[2])
