"""COCO's instances and panoptic segments, LVIS, and what was converted to that format."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import InputError
from .base import Dataset, Region, Sample, checked
from .reading import class_of, digest, id_of, is_crowd, named, picture_of, read_instances, shown, titled, words
from .shapes import Segment, is_whole, picture_size


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
            if not is_crowd(annotation, what) and annotation.get("segmentation"):
                name = class_of(annotation, names, what)
                by_image[annotation["image_id"]].append(Region(annotation["segmentation"], (name,), what))
    samples = []
    for image in content["images"]:
        with named(f"image {id_of(image)} of {annotations}") as what:
            if by_image.get(image["id"]):
                regions = tuple(by_image[image["id"]])
                samples.append(Sample(str(image["id"]), picture_of(image, images, what), regions, picture_size(image, what)))
    if content["annotations"] and not samples:
        raise InputError(f"{annotations} has no picture with a region: {why_none(by_image)}")
    return checked(Dataset(titled(annotations), samples, list(dict.fromkeys(names.values())), digest(annotations)))


def why_none(by_image: Mapping) -> str:
    if not by_image:
        return "its annotations are crowds, or boxes without a segmentation"
    return f"there are annotations of image {shown(next(iter(by_image)))}, say, which is not among its images"


def panoptic(annotation: dict, pngs: Path, names: dict, what: str) -> Iterator[Region]:
    """The segments of one picture."""
    path = pngs / words(annotation["file_name"], f"the file_name of {what}")
    for segment in annotation["segments_info"]:
        with named(f"segment {id_of(segment)} of {what}") as its:
            if not is_whole(segment["id"]) or not 0 < segment["id"] < 2**24:
                raise InputError(f"{its}: the number of a segment is from 1 to {2**24 - 1}, as a colour can be")
            if not is_crowd(segment, its):
                yield Region(Segment(path, int(segment["id"])), (class_of(segment, names, its),), its)
