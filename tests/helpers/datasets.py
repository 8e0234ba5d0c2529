"""Tiny data sets in the very layout in which they are published: two pictures each, with a red square and a green one."""

import csv
import json
import pickle
from pathlib import Path

import numpy as np
from PIL import Image

H, W = 40, 60
BOXES = ((4, 6, 20, 22), (32, 14, 50, 32))  # left, top, right, bottom
VOC_NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def picture(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 90, (H, W, 3), dtype=np.uint8)
    for channel, box in enumerate(BOXES):
        pixels[inside(box)] = 0
        pixels[(*inside(box), channel)] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def pictures_and_masks(folder: Path, count: int) -> list[str]:
    """So many pictures, each with a mask file for every square, and the options of `maskinversion embed` that name them."""
    (folder / "masks").mkdir(parents=True)
    for seed in range(count):
        picture(folder / "pictures" / f"{seed:02d}.png", seed)
        for index, box in enumerate(BOXES):
            mask = np.zeros((H, W), np.uint8)
            mask[inside(box)] = 255
            Image.fromarray(mask).save(folder / "masks" / f"{seed:02d}_{index}.png")
    return ["--pictures", str(folder / "pictures"), "--masks", str(folder / "masks")]


def inside(box: tuple[int, int, int, int]) -> tuple[slice, slice]:
    left, top, right, bottom = box
    return slice(top, bottom), slice(left, right)


def label_map(path: Path, numbers: tuple[int, ...], border: int | None = None, palette: bool = True) -> None:
    """The squares, each with its number, in a PNG; `border` is that of a pixel around each."""
    found = np.zeros((H, W), np.uint8)
    for number, (left, top, right, bottom) in zip(numbers, BOXES):
        if border is not None:
            found[inside((left - 1, top - 1, right + 1, bottom + 1))] = border
        found[inside((left, top, right, bottom))] = number
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(found)
    if palette:
        image.putpalette([value for colour in range(256) for value in (colour, 255 - colour, colour // 2)])
    image.save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def voc(data: Path) -> Path:
    """VOC2012: in 2007_000033 two cats, in 2007_000042 a dog and a tv monitor."""
    folder = data / "VOCdevkit" / "VOC2012"
    kinds = {"2007_000033": (8, 8), "2007_000042": (12, 20)}
    for seed, (name, classes) in enumerate(kinds.items()):
        picture(folder / "JPEGImages" / f"{name}.jpg", seed)
        label_map(folder / "SegmentationObject" / f"{name}.png", (1, 2), 255)
        label_map(folder / "SegmentationClass" / f"{name}.png", classes, 255)
        objects = "".join(
            f"<object><name>{VOC_NAMES[kind - 1]}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax>"
            f"<ymax>{box[3]}</ymax></bndbox></object>"
            for kind, box in zip(classes, BOXES)
        )
        text(folder / "Annotations" / f"{name}.xml", f"<annotation><filename>{name}.jpg</filename>{objects}</annotation>")
    text(folder / "ImageSets" / "Segmentation" / "val.txt", *kinds)
    text(folder / "ImageSets" / "Segmentation" / "train.txt", "2007_000033")
    return folder


def context(data: Path) -> Path:
    """PASCAL-Context: in both pictures a dog on grass, all around."""
    folder, labels = data / "VOCdevkit" / "VOC2010", data / "pascal-context" / "59_context_labels"
    names = ("2008_000002", "2008_000003")
    for seed, name in enumerate(names):
        picture(folder / "JPEGImages" / f"{name}.jpg", seed)
        label_map(labels / f"{name}.png", (12, 12), 24 if seed else None, palette=False)
    text(folder / "ImageSets" / "Main" / "val.txt", *names)
    others = ("bag", "bed", "bench", "grass")
    text(labels.parent / "59_labels.txt", *(f"{number}: {name}" for number, name in enumerate((*VOC_NAMES, *others), 1)))
    return folder


def open_images(data: Path) -> Path:
    """Open Images: in both pictures a cat and a dog, the masks at twice the size."""
    folder = data / "open-images"
    rows = [["MaskPath", "ImageID", "LabelName", "BoxID", "BoxXMin", "BoxXMax", "BoxYMin", "BoxYMax", "PredictedIoU", "Clicks"]]
    for seed, key in enumerate(("0a1b2c3d4e5f6071", "b1b2c3d4e5f60718")):
        picture(folder / "validation" / f"{key}.jpg", seed)
        for number, (label, box) in enumerate(zip(("/m/01yrx", "/m/0bt9lr"), BOXES)):
            mask = np.zeros((2 * H, 2 * W), bool)
            mask[inside(tuple(2 * side for side in box))] = True
            path = folder / "masks" / f"validation-masks-{key[0]}" / f"{key}_m{label[3:]}_{number:08x}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
            left, top, right, bottom = box
            shares = (left / W, right / W, top / H, bottom / H)
            rows.append([path.name, key, label, f"{number:08x}", *(f"{share:.6f}" for share in shares), "0.86864", "0.5 0.5 1"])
    with open(folder / "validation-annotations-object-segmentation.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    text(folder / "class-descriptions-boxable.csv", "/m/011k07,Tortoise", "/m/01yrx,Cat", "/m/0bt9lr,Dog")
    return folder


def coco_content(stem: str) -> dict:
    images, annotations = [], []
    for key in (1, 2):
        images.append({"id": key, "file_name": f"{stem}{key:012d}.jpg", "height": H, "width": W})
        for kind, (left, top, right, bottom) in enumerate(BOXES):
            polygon = [left, top, right, top, right, bottom, left, bottom]
            known = {"id": 10 * key + kind, "image_id": key, "category_id": 17 + kind, "iscrowd": 0}
            annotations.append(known | {"segmentation": [polygon]})
    return {"images": images, "annotations": annotations, "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]}


def coco(data: Path) -> None:
    """COCO's val2017: in both pictures a cat and a dog."""
    text(data / "coco" / "annotations" / "instances_val2017.json", json.dumps(coco_content("")))
    for key in (1, 2):
        picture(data / "coco" / "val2017" / f"{key:012d}.jpg", key)


def refcoco(data: Path, name: str) -> None:
    """RefCOCO or RefCOCO+: in both pictures "the red one" and "the green one"."""
    text(data / name / "instances.json", json.dumps(coco_content("COCO_train2014_")))
    refs = [
        {"ref_id": 10 * key + kind, "ann_id": 10 * key + kind, "image_id": key, "category_id": 17 + kind, "split": "val",
         "sentences": [{"sent": f"the {('red', 'green')[kind]} one"}]}
        for key in (1, 2) for kind in (0, 1)
    ]  # fmt: skip
    (data / name / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    for key in (1, 2):
        picture(data / "coco" / "train2014" / f"COCO_train2014_{key:012d}.jpg", key)


def phrasecut(data: Path) -> None:
    """PhraseCut: in both pictures a "red square" and a "green square"."""
    folder = data / "VGPhraseCut_v0"
    tasks = [
        {"task_id": f"{key}__{kind}", "image_id": key, "phrase": f"{('red', 'green')[kind]} square",
         "Polygons": [[[[left, top], [right, top], [right, bottom], [left, bottom]]]]}
        for key in (1, 2) for kind, (left, top, right, bottom) in enumerate(BOXES)
    ]  # fmt: skip
    text(folder / "refer_test.json", json.dumps(tasks))
    for key in (1, 2):
        picture(folder / "images" / f"{key}.jpg", key)


def everything(data: Path) -> None:
    """All of the paper's data sets."""
    for write in (voc, context, open_images, coco, phrasecut):
        write(data)
    refcoco(data, "refcoco")
    refcoco(data, "refcoco+")
