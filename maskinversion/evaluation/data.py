"""Data sets in their published formats, as pictures with regions: COCO's instances and panoptic segments, LVIS, RefCOCO and its
kin, PhraseCut.

Nothing is copied or converted, and a mask is decoded when its picture is evaluated.
"""

import hashlib
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as shown

import torch
from PIL import Image
from torch import Tensor

from ..compute.memory import check_room
from ..errors import InputError, first_line
from ..files import check_file
from ..geometry import resize
from ..pickles import read_plain_pickle
from ..pictures.files import open_picture
from .shapes import Segment, Union, check, decode, is_whole, picture_size, points_of


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
        return {self.image, *(region.shape.path for region in self.regions if isinstance(region.shape, Segment))}

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


def read_coco(annotations: Path, images: Path, segments: Path | None = None) -> Dataset:
    """COCO's instances (instances_val2017.json), what was converted to that format (PascalVOC, Context, OpenImages), LVIS, and
    COCO's panoptic segments (panoptic_val2017.json). Which of them it is, the content says.

    images: of LVIS, the folder of its split, or the one that holds the folders of the splits. segments: the folder of panoptic
    PNGs; None is the one beside the JSON with its name. Crowds are left out.
    Raises InputError for a file that is not in that format.
    """
    content = read_instances(annotations)
    names = {}
    for category in content["categories"]:
        with named(f"category {id_of(category)} of {annotations}") as what:
            name = words(category["name"], f"the name of {what}")
            # LVIS, which has the synset of each, writes "street_sign".
            names[category["id"]] = name.replace("_", " ") if "synset" in category else name
    pngs = segments or annotations.with_suffix("")
    by_image = defaultdict(list)
    for annotation in content["annotations"]:
        if isinstance(annotation, dict) and "segments_info" in annotation:
            with named(f"the annotation of image {shown(annotation.get('image_id'))} in {annotations}") as what:
                by_image[annotation["image_id"]] += panoptic(annotation, pngs, names, what)
            continue
        with named(f"annotation {id_of(annotation)} of {annotations}") as what:
            if not annotation.get("iscrowd") and annotation.get("segmentation"):
                name = class_of(annotation, names, what)
                by_image[annotation["image_id"]].append(Region(annotation["segmentation"], (name,), what))
    samples = []
    for image in content["images"]:
        with named(f"image {id_of(image)} of {annotations}") as what:
            if by_image.get(image["id"]):
                regions = tuple(by_image[image["id"]])
                samples.append(Sample(str(image["id"]), picture_of(image, images, what), regions, picture_size(image, what)))
    return checked(Dataset(titled(annotations), samples, list(dict.fromkeys(names.values())), digest(annotations)))


def panoptic(annotation: dict, pngs: Path, names: dict, what: str) -> Iterator[Region]:
    """The segments of one picture."""
    path = pngs / words(annotation["file_name"], f"the file_name of {what}")
    for segment in annotation["segments_info"]:
        with named(f"segment {id_of(segment)} of {what}") as its:
            if not is_whole(segment["id"]) or not 0 < segment["id"] < 2**24:
                raise InputError(f"{its}: the number of a segment is from 1 to {2**24 - 1}, as a colour can be")
            if not segment.get("iscrowd"):
                yield Region(Segment(path, int(segment["id"])), (class_of(segment, names, its),), its)


def read_refcoco(refs: Path, annotations: Path, images: Path, split: str | None = None) -> Dataset:
    """RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO as published (github.com/lichengunc/refer, github.com/henghuiding/gRefCOCO):
    refs(unc).p or grefs(unc).json, and instances.json.

    refs: a pickle, of which only plain data is read, or the same as .json. images: COCO's train2014, or the same pictures under
    the names of train2017. split: val, testA, ..., `test` for every test split; None for all.
    gRefCOCO's expressions that mean several objects mean their union; those that mean none are left out, and counted.
    Raises InputError for files that are not in that format, or a split that is not there.
    """
    content = read_instances(annotations)
    listed = read_json(refs) if refs.suffix == ".json" else read_plain_pickle(refs)
    if not isinstance(listed, list):
        raise InputError(f"{refs} is not RefCOCO's expressions: it has no list of them")
    shapes = {}
    for annotation in content["annotations"]:
        with named(f"annotation {id_of(annotation)} of {annotations}") as what:
            shapes[annotation["id"]] = annotation["image_id"], annotation["segmentation"], what
    pictures = {}
    for image in content["images"]:
        with named(f"image {id_of(image)} of {annotations}"):
            pictures[image["id"]] = image
    splits, nothing = set(), 0
    found: dict[object, dict[tuple, list[str]]] = defaultdict(lambda: defaultdict(list))  # of each picture, by annotations
    for ref in listed:
        with named(f"expression {id_of(ref, 'ref_id')} of {refs}") as what:
            splits.add(words(ref["split"], f"the split of {what}"))
            if split not in (None, ref["split"]) and not (split == "test" and ref["split"].startswith("test")):
                continue
            sentences = [words(sentence["sent"], f"a sentence of {what}", empty=True) for sentence in ref["sentences"]]
            texts = list(dict.fromkeys(filter(None, sentences)))
            keys = ref["ann_id"] if isinstance(ref["ann_id"], list | tuple) else [ref["ann_id"]]
            if not keys or -1 in keys:
                nothing += len(texts)
            elif texts:
                for key in keys:
                    if key not in shapes:
                        raise InputError(f"{what} means annotation {shown(key)}, which is not in {annotations}: {TOGETHER}")
                    if shapes[key][0] != ref["image_id"]:
                        raise InputError(f"{what} means annotation {shown(key)} of another picture in {annotations}: {TOGETHER}")
                found[ref["image_id"]][tuple(sorted(set(keys)))] += texts
    samples = []
    for key, regions in found.items():
        with named(f"image {shown(key)} of {annotations}") as what:
            if key not in pictures:
                raise InputError(f"{refs} names image {shown(key)}, which is not in {annotations}: {TOGETHER}")
            path = picture_of(pictures[key], images, what, f"{key:012d}.jpg" if isinstance(key, int) else None)
            together = tuple(together_as(keys, shapes, texts) for keys, texts in regions.items())
            samples.append(Sample(str(key), path, together, picture_size(pictures[key], what)))
    if not samples and split is not None and split not in splits:
        raise InputError(f"{refs} has no split {split!r}; it has {', '.join(sorted(splits)) or 'nothing'}")
    left_out = {"expressions_of_nothing": nothing} if nothing else {}
    return checked(Dataset(f"{titled(refs)}, {split or 'all splits'}", samples, [], digest(refs, annotations), left_out))


TOGETHER = "do these files belong together?"


def together_as(keys: tuple, shapes: dict, texts: list[str]) -> Region:
    """The region of the annotations `keys`."""
    parts = tuple(shapes[key][1:] for key in keys)
    shape, what = parts[0] if len(parts) == 1 else (Union(parts), "")
    return Region(shape, tuple(dict.fromkeys(texts)), what)


def read_phrasecut(annotations: Path, images: Path) -> Dataset:
    """PhraseCut as published (github.com/ChenyunWu/PhraseCutDataset): refer_SPLIT.json, and pictures IMAGE_ID.jpg.

    A phrase means all of its instances together: their union is its region.
    Raises InputError for a file that is not in that format.
    """
    tasks = read_json(annotations)
    if not isinstance(tasks, list):
        raise InputError(f"{annotations} is not PhraseCut's refer_SPLIT.json: it has no list of phrases")
    by_image = defaultdict(list)
    for task in tasks:
        with named(f"task {id_of(task, 'task_id')} of {annotations}") as what:
            polygons = [polygon for instance in task["Polygons"] for polygon in instance]
            if phrase := words(task["phrase"], f"the phrase of {what}", empty=True):
                by_image[task["image_id"]].append(Region(points_of(polygons, what), (phrase,), what))
    samples = [Sample(str(key), images / f"{key}.jpg", tuple(regions)) for key, regions in by_image.items()]
    return checked(Dataset(titled(annotations), samples, [], digest(annotations)))


@contextmanager
def named(what: str) -> Iterator[str]:
    """Turns what damaged annotations raise into an InputError about `what`, which it gives."""
    try:
        yield what
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{what} has no {shown(error.args[0])}: the file is damaged, or of another format") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{what} is damaged, or of another format ({first_line(error)})") from error


def id_of(entry: object, key: str = "id") -> str:
    return shown(entry.get(key)) if isinstance(entry, dict) else shown(entry)


def words(text: object, what: str, empty: bool = False) -> str:
    """A text of the annotations, without blanks around it."""
    if not isinstance(text, str) or not (empty or text.strip()):
        raise InputError(f"{what} is {shown(text)}; it must be a text")
    return text.strip()


def class_of(annotation: dict, names: dict, what: str) -> str:
    if annotation["category_id"] not in names:
        raise InputError(f"{what} is of category {shown(annotation['category_id'])}, which is not among the categories")
    return names[annotation["category_id"]]


def picture_of(image: dict, folder: Path, what: str, other: str | None = None) -> Path:
    """The file of a picture. other: a name that it may have too."""
    if "file_name" not in image and "coco_url" in image:  # LVIS: .../train2017/000000391895.jpg
        url = words(image["coco_url"], f"the coco_url of {what}").split("/")
        return first_existing(folder, "/".join(url[-2:]), url[-1])
    name = words(image["file_name"], f"the file_name of {what}")
    return first_existing(folder, name, *([other] if other else []))


def read_json(path: Path) -> object:
    check_file(path)
    try:
        return json.loads(path.read_bytes())  # of UTF-8, UTF-16 or UTF-32, with a byte order mark or without
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} could not be read as JSON ({first_line(error)})") from error


def read_instances(path: Path) -> dict:
    content = read_json(path)
    if not isinstance(content, dict):
        content = {}
    missing = {"images", "annotations", "categories"} - {name for name, value in content.items() if isinstance(value, list)}
    if missing:
        raise InputError(f"{path} is not COCO's instances: it has no list of {', '.join(sorted(missing))}")
    return content


def titled(path: Path) -> str:
    """How to call a data set: by its file and the folder that this is in, since the file's name is often the same."""
    return f"{path.resolve().parent.name}/{path.stem}"


def first_existing(folder: Path, *names: str) -> Path:
    """The first of these files that is there, else the first of them all."""
    return next((folder / name for name in names if os.path.isfile(folder / name)), folder / names[0])


def digest(*paths: str | os.PathLike) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(Path(path).read_bytes())
    return found.hexdigest()[:16]


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
