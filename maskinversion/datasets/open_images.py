"""Open Images, V5 to V7."""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError
from .base import Dataset, Region, Sample, checked
from .reading import digest, first_existing, named, read_text, shown, titled, words
from .shapes import Binary

NAMES = ("oidv7-class-descriptions-boxable.csv", "class-descriptions-boxable.csv")
CLASSES = ("oidv7-classes-segmentation.txt", "classes-segmentation.txt")
COLUMNS = ("MaskPath", "ImageID", "LabelName")


def read_open_images(annotations: Path, images: Path, masks: Path, names: Path | None = None) -> Dataset:
    """Open Images' segmentation as published (storage.googleapis.com/openimages/web): each mask is a region.

    annotations: validation-annotations-object-segmentation.csv or the like. images: folder of IMAGE_ID.jpg. masks: folder of the
    PNGs, all together, or in folders by their first letter as their archives are (validation-masks-0, or 0).
    names: class-descriptions-boxable.csv; None is the one beside the annotations. The classes to choose from are those of
    classes-segmentation.txt where that is beside the names, else those that there is a mask of.
    Raises InputError for files that are not there or not in that format.
    """
    names = names or first_existing(annotations.parent, *NAMES)
    called = {label: name for _, (label, name, *_) in rows(names, 2) if label != "LabelName"}
    table = rows(annotations, len(COLUMNS))
    head = next(table, (0, []))[1]
    if missing := [column for column in COLUMNS if column not in head]:
        raise InputError(f"{annotations} is not Open Images' segmentation: it has no column {', '.join(missing)}")
    split = annotations.name.split("-")[0]
    by_image, present = defaultdict(list), set()
    for number, row in table:
        with named(f"line {number} of {annotations}") as what:
            entry = dict(zip(head, row))
            file, image, label = (words(entry[column], f"the {column} of {what}") for column in COLUMNS)
            if label not in called:
                raise InputError(f"{what} is of the class {shown(label)}, which {names} does not name")
            present.add(label)
            path = first_existing(masks, file, f"{split}-masks-{file[0]}/{file}", f"{file[0]}/{file}", f"{file[0].upper()}/{file}")
            by_image[image].append(Region(Binary(path), (called[label],), f"the mask of {what}"))
    samples = [Sample(key, images / f"{key}.jpg", tuple(regions)) for key, regions in by_image.items()]
    listed = first_existing(names.parent, *CLASSES)
    files = [annotations, names]
    if os.path.isfile(listed):
        files.append(listed)
        chosen = read_text(listed).split()
        if unnamed := [label for label in chosen if label not in called] + sorted(present - {*chosen}):
            raise InputError(f"{listed} and {names} do not belong together: {shown(unnamed[0])} is in one of them only")
    else:
        chosen = [label for label in called if label in present]
    classes = list(dict.fromkeys(called[label] for label in chosen))
    return checked(Dataset(titled(annotations), samples, classes, digest(*files)))


def rows(path: Path, least: int) -> Iterator[tuple[int, list[str]]]:
    """The number of each line of a CSV file, and its cells, of which there are at least so many."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    with named(str(path)):
        try:
            for row in reader:
                if row and len(row) < least:
                    raise InputError(f"line {reader.line_num} of {path} is {shown(','.join(row))}: it has fewer than {least} cells")
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            raise InputError(f"line {reader.line_num} of {path} is damaged ({error})") from error
