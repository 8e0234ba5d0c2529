"""The paper's tables once more, on whatever of its data sets a person has, beside the figures that it published."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import written_whole
from ..lock import locked
from ..models.loading import load_clip
from ..settings import STARTS
from .report import METRICS, cell, label, table
from .run import load, run
from .settings import CLASSES, Settings

SOURCE = "Bousselham, Chaybouti, Rupprecht, Ferrari, Kuehne: MaskInversion, arXiv 2407.20034"
MODELS = ("ViT-B/16", "ViT-H/14")  # that the paper's figures are of
NOT_HERE = {"alphaclip": "AlphaCLIP (trained with masks; not run here)"}  # in the paper's tables, and no method of ours


def within(folders: tuple[str, ...], *names: str) -> tuple[str, ...]:
    """Every one of the names in every one of the folders, of which "." is that of all data."""
    return tuple(f"{folder}/{name}".removeprefix("./") for folder in folders for name in names)


VOC2012, VOC2010 = ("VOCdevkit/VOC2012", "VOC2012"), ("VOCdevkit/VOC2010", "VOC2010")
CONTEXT = ("pascal-context", "VOCdevkit/VOC2010", ".")
COCO = ("coco", "COCO", ".")
TRAIN = within((*within(COCO, "images"), *COCO), "train2014", "train2017")
PHRASECUT = ("VGPhraseCut_v0", "phrasecut", "PhraseCutDataset/data/VGPhraseCut_v0")
REFER = (".", "refer/data")
OPEN_IMAGES = ("open-images", "openimages", "OpenImagesV7")


@dataclass(frozen=True)
class Task:
    """A row of the paper's table.

    key: the name of its folder of results. dataset, split: see `Settings`. files: where each of the Settings' files may be, from
    the folder of all data. published: where the data are. figures: the paper's, percent, of each of MODELS, by method.
    """

    key: str
    name: str
    dataset: str
    split: str | None
    files: Mapping[str, tuple[str, ...]]
    published: str
    figures: Mapping[str, tuple[float | None, float | None]]

    @property
    def metric(self) -> str:
        return "acc1" if self.dataset in CLASSES else "phrase"

    def find(self, data: Path) -> tuple[dict[str, Path], list[str]]:
        """The files that are in the folder `data`, and the first place of each that is not."""
        there, wanted = {}, []
        for what, names in self.files.items():
            path = next((data / name for name in names if (data / name).exists()), None)
            if path is None:
                wanted.append(names[0])
            else:
                there[what] = path
        return there, wanted


# The paper's figures of other methods than MaskInversion and the poolings are taken to be of ViT-B/16.
TASKS = (
    Task("phrasecut", "PhraseCut", "phrasecut", None,
         {"annotations": within(PHRASECUT, "refer_test.json"), "images": within(PHRASECUT, "images")},
         "github.com/ChenyunWu/PhraseCutDataset",
         {"global": (14.4, None), "masked-crop": (48.3, None), "blur": (35.9, None), "alphaclip": (34.0, None),
          "maskinversion": (57.2, 64.0)}),
    Task("refcoco", "RefCOCO", "refcoco", "val",
         {"refs": within(REFER, "refcoco/refs(unc).p"), "annotations": within(REFER, "refcoco/instances.json"), "images": TRAIN},
         "github.com/lichengunc/refer (its pictures are COCO's train2014, cocodataset.org)",
         {"global": (18.3, None), "masked-crop": (52.3, None), "blur": (42.6, None), "alphaclip": (43.4, None),
          "maskinversion": (56.1, 61.2)}),
    Task("refcoco+", "RefCOCO+", "refcoco", "val",
         {"refs": within(REFER, "refcoco+/refs(unc).p"), "annotations": within(REFER, "refcoco+/instances.json"), "images": TRAIN},
         "github.com/lichengunc/refer (its pictures are COCO's train2014, cocodataset.org)",
         {"global": (18.4, None), "masked-crop": (58.7, None), "blur": (48.0, None), "alphaclip": (44.2, None),
          "maskinversion": (58.3, 65.0)}),
    Task("voc", "PascalVOC", "voc", "val",
         {"annotations": VOC2012, "images": within(VOC2012, "JPEGImages")},
         "host.robots.ox.ac.uk/pascal/VOC/voc2012",
         {"global": (40.1, None), "masked-crop": (75.0, None), "alphaclip": (52.6, None), "ris": (78.0, None),
          "maskclip": (None, 61.8), "clip-surgery": (None, 68.0), "sclip": (None, 38.2), "maskinversion": (85.4, 93.5)}),
    Task("context", "PascalContext", "context", "val",
         {"annotations": VOC2010, "images": within(VOC2010, "JPEGImages"), "segments": within(CONTEXT, "59_context_labels"),
          "names": within(CONTEXT, "59_labels.txt")},
         "cs.stanford.edu/~roozbeh/pascal-context (its pictures are VOC2010's, host.robots.ox.ac.uk/pascal/VOC/voc2010)",
         {"global": (17.8, None), "masked-crop": (40.4, None), "alphaclip": (27.7, None), "ris": (38.1, None),
          "maskclip": (None, 37.8), "clip-surgery": (None, 40.8), "sclip": (None, 20.7), "maskinversion": (58.1, 61.8)}),
    Task("coco", "COCO", "coco", None,
         {"annotations": within(COCO, "annotations/instances_val2017.json"), "images": within(COCO, "val2017", "images/val2017")},
         "cocodataset.org",
         {"global": (25.0, None), "masked-crop": (38.2, None), "alphaclip": (30.9, None), "ris": (43.6, None),
          "maskclip": (None, 30.9), "clip-surgery": (None, 40.1), "sclip": (None, 19.8), "maskinversion": (44.7, 63.7)}),
    Task("open-images", "OpenImagesV7", "open-images", None,
         {"annotations": within(OPEN_IMAGES, "validation-annotations-object-segmentation.csv"),
          "names": within(OPEN_IMAGES, "oidv7-class-descriptions-boxable.csv", "class-descriptions-boxable.csv"),
          "images": within(OPEN_IMAGES, "validation", "images"), "segments": within(OPEN_IMAGES, "masks", "validation-masks")},
         "storage.googleapis.com/openimages/web/download_v7.html",
         {"global": (28.9, None), "masked-crop": (33.8, None), "alphaclip": (43.0, None), "ris": (34.5, None),
          "maskinversion": (46.3, 51.2)}),
)  # fmt: skip


def repeat(
    data: Path,
    out: Path,
    clip: str = "bundled",
    architecture: str | None = None,
    device: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    skip_missing: bool = False,
) -> dict:
    """Every method and every start on each of the paper's data sets that is in the folder `data`, as published otherwise: 10 steps
    of lr 0.1, alpha 0 for classes and 5 for expressions.

    Writes paper.json and paper.md to the folder `out`, and a report of each data set to a folder of its own there; a later run goes
    on where it stopped. clip, architecture, device, limit, seed, skip_missing: see `Settings`. Returns what paper.json holds.
    Raises InputError where no data set is there, or for files that cannot be used; all are checked before a model is loaded.
    """
    if not data.is_dir():
        raise InputError(f"there is no folder {data}")
    missing, found = [], []
    for task in TASKS:
        files: dict[str, Any]
        files, wanted = task.find(data)
        if wanted:
            missing.append({"name": task.name, "wanted": wanted, "published": task.published})
        else:
            files |= {"clip": clip, "architecture": architecture, "device": device, "limit": limit, "seed": seed}
            settings = Settings(
                dataset=task.dataset, split=task.split, out=out / task.key, start=STARTS, skip_missing=skip_missing, **files
            )
            found.append((task, settings))
    for line in absent(data, missing):
        print(line)
    if not found:
        raise InputError(f"none of the paper's data sets is in {data}: unpack at least one there, such as {VOC2012[0]}")
    loaded = [(task, settings, load(settings)) for task, settings in found]
    with locked(out):
        model = load_clip(clip, architecture, device)
        tasks = [compared(task, run(settings, dataset, model)) for task, settings, dataset in loaded]
        about = {"source": SOURCE, "clip": model.name, "fingerprint": model.fingerprint, "limit": limit, "seed": seed}
        content = {**about, "tasks": tasks, "missing": missing}
        words = markdown(content, data)
        for name, text in (("paper.json", json.dumps(content, indent=1) + "\n"), ("paper.md", words)):
            with written_whole(out / name) as path:
                path.write_text(text, encoding="utf-8")
    print(words, end="")
    return content


def absent(data: Path, missing: list[dict]) -> list[str]:
    return [
        f"- {one['name']} is not in {data}: there is no {', no '.join(one['wanted'])}. It is published at {one['published']}."
        for one in missing
    ]


def compared(task: Task, content: dict) -> dict:
    """What was measured on a data set, each row beside the paper's figures of that method, where it has any."""
    rows = []
    for row in content["rows"]:
        published = task.figures.get(row["method"], ()) if row["start"] in (None, "picture") else ()
        rows.append(line(row["method"], row["start"], row["alpha"], row["metrics"].get(task.metric), published))
    there = {row["method"] for row in rows}
    rows += [line(method, None, None, None, figures) for method, figures in task.figures.items() if method not in there]
    about = {name: content[name] for name in ("name", "digest", "split", "pictures", "regions")}
    return {"task": task.name, "metric": task.metric, **about, "rows": rows}


def line(method: str, start: str | None, alpha: float | None, measured: dict | None, published: tuple[float | None, ...]) -> dict:
    paper = {model: figure for model, figure in zip(MODELS, published) if figure is not None}
    return {"method": method, "start": start, "alpha": alpha, "measured": measured, "paper": paper}


def markdown(content: dict, data: Path) -> str:
    lines = [
        f"# The paper's tables, with {content['clip']}",
        "",
        f"Acc@1, percent. The paper: {SOURCE}. Measured: with its settings (10 steps of lr 0.1; alpha 0 for classes, 5 for "
        "expressions), and the same from other starts; 95% intervals, with pictures as the unit. Compare a column of the paper "
        "only with what was measured with the same CLIP"
        + (f", and not {content['limit']} pictures of a data set with all of it." if content["limit"] else "."),
    ]
    for task in content["tasks"]:
        about = f"{task['name']}: {task['pictures']} pictures, {task['regions']} regions; {METRICS[task['metric']][1]}."
        lines += ["", f"## {task['task']}", "", about, ""]
        body = []
        for row in task["rows"]:
            measured, paper = row["measured"], [str(row["paper"].get(model, "")) for model in MODELS]
            name = NOT_HERE.get(row["method"]) or label(row, ["start"])
            body.append([name, cell(measured), str(measured["n"]) if measured else "", *paper])
        lines += table(["method", "measured", "n", *(f"paper, {model}" for model in MODELS)], body)
    if content["missing"]:
        lines += ["", "## Not measured", "", *absent(data, content["missing"])]
    return "\n".join(lines) + "\n"
