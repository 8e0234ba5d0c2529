"""PhraseCut."""

from collections import defaultdict
from pathlib import Path

from ..errors import InputError
from .base import Dataset, Region, Sample, checked
from .reading import digest, id_of, named, read_json, titled, words
from .shapes import points_of


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
