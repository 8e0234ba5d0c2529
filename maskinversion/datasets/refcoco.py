"""RefCOCO and its kin."""

from collections import defaultdict
from pathlib import Path

from ..errors import InputError
from ..pickles import read_plain_pickle
from .base import Dataset, Region, Sample, checked
from .reading import digest, id_of, named, picture_of, read_instances, read_json, shown, titled, words
from .shapes import Union, picture_size


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
