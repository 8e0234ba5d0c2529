"""The evaluation: every setting over every picture, written down picture by picture, so that it goes on where it stopped."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TextIO

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..compute.ambient import settled
from ..compute.matmul import VARIABLE, arithmetic
from ..datasets.base import Dataset, Sample
from ..datasets.coco import read_coco
from ..datasets.open_images import read_open_images
from ..datasets.pascal import read_context, read_voc
from ..datasets.phrasecut import read_phrasecut
from ..datasets.refcoco import read_refcoco
from ..errors import InputError, ModelError
from ..inverter import MaskInverter
from ..lock import locked
from ..models.clip import Clip
from ..models.loading import load_clip
from ..pictures import warn
from ..settings import InversionSettings
from ..tasks.texts import text_embeddings
from .ablation import OBJECTIVES
from .baselines import Picture, cannot, embeddings
from .masks import degrade, largest_overlaps
from .protocols import class_hits, different, expression_hits
from .report import report
from .settings import METHODS, Settings

FORMAT = 4  # of what is measured and written: raised when old results are no longer the same


@dataclass(frozen=True)
class Row:
    """One way to embeddings, down to its last setting. What does not matter to it is None."""

    method: str
    mask_quality: str | None = None
    mask_radius: float | None = None
    image_size: int | None = None
    fit: str = "stretch"
    iterations: int | None = None
    lr: float | None = None
    alpha: float | None = None
    layers: int | None = None
    loss: str | None = None
    start: str | None = None
    lr_unit: str | None = None
    precision: str | None = None

    def inverter(self, clip: Clip) -> MaskInverter:
        own = {field.name: getattr(self, field.name, None) for field in fields(InversionSettings)}
        settings = InversionSettings(**{name: value for name, value in own.items() if value is not None})
        return MaskInverter(clip, settings, objective=OBJECTIVES[self.loss or "dice"])


def rows_of(settings: Settings) -> list[Row]:
    """Every combination of the settings that makes a difference, once."""
    alphas = settings.alpha or ((0.0,) if settings.has_classes else (5.0,))
    methods = settings.methods or METHODS
    rows = []
    for size, fit, quality, method in itertools.product(settings.image_size, settings.fit, settings.mask_quality, methods):
        seen = {"image_size": size, "fit": fit}
        if method != "global":
            seen["mask_quality"] = quality
            if quality in ("eroded", "dilated"):
                seen["mask_radius"] = settings.mask_radius
        if method != "maskinversion":
            rows.append(Row(method, **seen))
            continue
        for iterations, lr, alpha, layers, loss, start in itertools.product(
            settings.iterations, settings.lr, alphas, settings.layers, settings.loss, settings.start
        ):
            rows.append(Row(method, **seen, iterations=iterations, lr=lr, alpha=alpha, layers=layers, loss=loss, start=start,
                            lr_unit=settings.lr_unit, precision=settings.precision))  # fmt: skip
    return list(dict.fromkeys(rows))


def load(settings: Settings) -> Dataset:
    """The pictures to evaluate, all that can be checked of them checked. Raises InputError for what cannot be used."""
    dataset = read(settings)
    if settings.skip_missing:
        dataset = dataset.without_missing()
    dataset = dataset.limited(settings.limit, settings.seed)
    dataset.check()
    return dataset


def read(settings: Settings) -> Dataset:
    annotations, images, segments = settings.annotations, settings.images, settings.segments
    if settings.dataset == "coco":
        return read_coco(annotations, images, segments)
    if settings.dataset == "voc":
        return read_voc(annotations, images, settings.split)
    if settings.dataset == "phrasecut":
        return read_phrasecut(annotations, images)
    if settings.dataset == "refcoco":
        assert settings.refs is not None  # Settings refuses it
        return read_refcoco(settings.refs, annotations, images, settings.split)
    assert segments is not None
    if settings.dataset == "context":
        return read_context(annotations, images, segments, settings.names, settings.split)
    return read_open_images(annotations, images, segments, settings.names)


def usable(settings: Settings, clip: Clip) -> list[str]:
    """The methods that are asked for. Where that is none, all that can be used with the model; warns of the others.

    Raises ModelError for one that is asked for by its name and cannot be used.
    """
    reasons = {method: reason for method in settings.methods or METHODS if (reason := cannot(method, clip.tower))}
    for reason in reasons.values():
        if settings.methods:
            raise ModelError(f"{reason}: leave it out of --methods")
        warn(f"{reason}: it is left out")
    return [method for method in settings.methods or METHODS if method not in reasons]


class Results:
    """The JSON-lines file of one row: a line that says what it is, and by which arithmetic, then a line a picture.

    Its name is a hash of what it is, so that results of other settings, another model or another data set never mix. Raises
    InputError for a file that is damaged, or was begun with another arithmetic: by another library, or with other threads.
    """

    def __init__(self, folder: Path, header: dict, arithmetic: dict):
        words = json.dumps(header, sort_keys=True)
        name = hashlib.sha256(words.encode()).hexdigest()[:16]
        self.path = folder / f"{header['row']['method']}-{name}.jsonl"
        if not self.path.is_file():
            self.path.write_bytes(b"")
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]  # the last line may have been cut off when the run was
        try:
            lines = [dict(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.path} is damaged ({error}): delete it and run this again") from error
        with self.path.open("r+b") as file:
            file.truncate(len(whole))
        first = header | {"arithmetic": arithmetic}
        if not lines:
            self.path.write_text(json.dumps(first, sort_keys=True) + "\n", encoding="utf-8")
        elif lines[0] != first:
            raise InputError(
                f"{self.path} was begun with {told(lines[0].get('arithmetic', {}))}, and this is {told(arithmetic)}, which rounds "
                f"in another way: go on as it was begun (OMP_NUM_THREADS sets the threads, {VARIABLE} the products), or give "
                f"another folder"
            )
        self.found: dict[str, dict] = {line["image"]: line for line in lines[1:]}

    def open(self) -> TextIO:
        return self.path.open("a", encoding="utf-8")

    def add(self, file: TextIO, line: dict) -> None:
        file.write(json.dumps(line) + "\n")
        file.flush()
        self.found[line["image"]] = line


def told(arithmetic: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(arithmetic.items()))


def evaluate(settings: Settings) -> dict:
    """Run what is missing, write the report, and return what report.json holds.

    Raises InputError or ModelError for settings, files or a model that cannot be used, or while another run writes to the folder.
    """
    dataset = load(settings)
    with locked(settings.out), settled():
        return run(settings, dataset, load_clip(settings.clip, settings.architecture, settings.device))


def run(settings: Settings, dataset: Dataset, clip: Clip) -> dict:
    settings = replace(settings, methods=tuple(usable(settings, clip)))
    rows = rows_of(settings)
    inverters = {row: row.inverter(clip) for row in rows}
    folder = settings.out / "results"
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "format": FORMAT, "dataset": settings.dataset, "name": dataset.name, "digest": dataset.digest, "split": settings.split,
        "images": str(settings.images.resolve()),
        "clip": clip.name, "fingerprint": clip.fingerprint, "dtype": str(clip.tower.dtype).removeprefix("torch."),
        "templates": settings.all_templates, "one_to_one": settings.one_to_one,
    }  # fmt: skip
    computed = arithmetic(clip.device)
    results = {row: Results(folder, {**common, "row": asdict(row)}, computed) for row in rows}
    scorer = Scorer(clip, dataset, settings)
    with ExitStack() as stack:
        files = {row: stack.enter_context(results[row].open()) for row in rows}
        for sample in tqdm(dataset.samples, desc=dataset.name, unit="picture"):
            missing = [row for row in rows if sample.name not in results[row].found]
            if missing:
                for row, line in scorer.score(sample, {row: inverters[row] for row in missing}):
                    results[row].add(files[row], line)
    names = [sample.name for sample in dataset.samples]
    lines = [(asdict(row), [results[row].found[name] for name in names]) for row in rows]
    return report(settings.out, {**common, "arithmetic": computed}, lines, dataset.left_out)


class Scorer:
    """The hits of one picture at a time, by the protocol of the data set."""

    def __init__(self, clip: Clip, dataset: Dataset, settings: Settings):
        self.clip, self.templates, self.one_to_one = clip, settings.all_templates, settings.one_to_one
        self.index = {name: index for index, name in enumerate(dataset.classes)}
        self.classes = self.embed(dataset.classes) if dataset.classes else None

    def embed(self, texts: list[str]) -> Tensor:
        return text_embeddings(self.clip, texts, self.templates).float().cpu()

    def score(self, sample: Sample, inverters: dict[Row, MaskInverter]) -> Iterator[tuple[Row, dict]]:
        """For each row: the row, and the line to write. Regions whose mask is empty are left out, and counted."""
        picture = Picture(sample.open())
        masks = sample.masks(picture.size)
        filled = masks.amax((1, 2)) > 0
        masks = masks[filled]
        texts = [region.texts for region, there in zip(sample.regions, filled.tolist(), strict=True) if there]
        facts = {"image": sample.name, "empty": int((~filled).sum()), "regions": len(masks)}
        if not len(masks):
            yield from ((row, facts | {"hits": {}, "area": [], "overlap": []}) for row in inverters)
            return
        facts["area"] = [round(area, 6) for area in masks.mean((1, 2)).tolist()]
        facts["overlap"] = [round(overlap, 4) for overlap in largest_overlaps(masks)]
        against = self.embed(different(texts)) if self.classes is None else self.classes
        degraded: dict[tuple, Tensor] = {}
        for row, inverter in inverters.items():
            quality = (row.mask_quality or "exact", row.mask_radius or 0.0)
            if quality not in degraded:
                degraded[quality] = degrade(masks, *quality)
            found, iou = embeddings(row.method, picture, degraded[quality], inverter)
            similarities = F.normalize(found.float().cpu(), dim=-1) @ against.T
            line = facts | {"hits": self.hits(similarities, texts)}
            if iou is not None:
                line["iou"] = [round(value, 4) for value in iou.tolist()]
            yield row, line

    def hits(self, similarities: Tensor, texts: list[tuple[str, ...]]) -> dict[str, list]:
        if self.classes is None:
            return expression_hits(similarities, texts, self.one_to_one)
        return class_hits(similarities, torch.tensor([self.index[name] for (name,) in texts]))
