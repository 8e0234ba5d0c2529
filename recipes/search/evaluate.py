"""Does a search by a region's token, or by a phrase, find the regions of the same object, and other ways to embed regions?

    python -m recipes.search.evaluate embed       # every region of two data sets of drawn scenes, in every way
    python -m recipes.search.evaluate measure     # prints Markdown; recipes/build/search-evaluation.json

Reads what `recipes.data.make_dataset` wrote to recipes/build/trained and recipes/build/held-out, so everything is the bundled
CLIP's and nothing was trained on. A region is looked for among those of other pictures, so that no way is right for knowing its
picture again. Precision at k is the share of the nearest k that show the same object, or of all there are.
Intervals are 95%, with pictures (or, for phrases, phrases) as the unit.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import maskinversion as mi
from maskinversion.datasets.coco import read_coco
from maskinversion.evaluation.baselines import Picture, embeddings
from maskinversion.evaluation.protocols import wilson
from maskinversion.settings import PRESETS
from maskinversion.tasks.phrases import CLASS_TEMPLATE
from maskinversion.tasks.texts import text_embeddings
from recipes.common.arguments import parser, run_stage
from recipes.common.evaluation import interval, write_report
from recipes.common.paths import BUILD

EMBEDDED = BUILD / "search-embeddings.npz"
SETS = ("trained", "held-out")  # styles
WAYS = {"maskinversion": "MaskInversion", "masked-crop": "masked cut-out", "crop": "cut-out", "global": "whole picture"}
DEPTHS = (1, 5, 10)


def embed(args: argparse.Namespace) -> None:
    inverter = mi.MaskInverter(mi.load_clip("bundled"), **PRESETS["region"])
    found: dict[str, np.ndarray] = {}
    for name in SETS:
        data = read_coco(BUILD / name / "instances.json", BUILD / name / "images")
        by_way: dict[str, list[Tensor]] = {way: [] for way in WAYS}
        labels, pictures = [], []
        for number, sample in enumerate(data.samples[: args.limit]):
            picture = Picture(sample.open())
            masks = sample.masks(picture.size)
            for way, rows in by_way.items():
                rows.append(embeddings(way, picture, masks, inverter)[0])
            labels += [data.classes.index(region.texts[0]) for region in sample.regions]
            pictures += [number] * len(masks)
        found |= {f"{name}/{way}": torch.cat(rows).numpy() for way, rows in by_way.items()}
        found |= {f"{name}/labels": np.array(labels), f"{name}/pictures": np.array(pictures), "classes": np.array(data.classes)}
        print(f"{name}: {len(labels)} regions", flush=True)
    np.savez(EMBEDDED, **found)


def precision(scores: Tensor, right: Tensor, allowed: Tensor) -> np.ndarray:
    """[Q, depths]: of the nearest regions by scores [Q, N], how many are right [Q, N]; NaN where there is none to find."""
    order = scores.masked_fill(~allowed, -torch.inf).argsort(1, descending=True)
    hits = (right & allowed).gather(1, order)
    there = hits.sum(1)
    found = [hits[:, :depth].sum(1) / there.clamp(max=depth) for depth in DEPTHS]
    return torch.stack(found, 1).double().numpy()


def measure(args: argparse.Namespace) -> None:
    data = np.load(EMBEDDED)
    clip = mi.load_clip("bundled")
    texts = text_embeddings(clip, [str(name) for name in data["classes"]], [CLASS_TEMPLATE])
    head = [f"by {what}: {depth}" for what in ("region", "phrase") for depth in DEPTHS]
    report = []
    print(f"| styles | searched with | {' | '.join(head)} |\n|{'---|' * (2 + len(head))}")
    for name in SETS:
        labels, pictures = (torch.from_numpy(data[f"{name}/{what}"]) for what in ("labels", "pictures"))
        for way, title in WAYS.items():
            units = F.normalize(torch.from_numpy(data[f"{name}/{way}"]).float(), dim=1)
            same, others = labels[:, None] == labels, pictures[:, None] != pictures
            by_region = precision(units @ units.T, same, others)
            of = torch.arange(len(texts))[:, None] == labels
            by_phrase = precision(texts @ units.T, of, torch.ones_like(of))
            shares = [share(by_region, pictures.numpy()), share(by_phrase, np.arange(len(texts)))]
            row = {"styles": name, "searched with": title}
            cells = [cell for part in shares for cell in part]
            print(f"| {' | '.join((*row.values(), *map(interval, cells)))} |", flush=True)
            report.append(row | dict(zip(head, cells, strict=True)))
    write_report("search-evaluation.json", report)


def share(found: np.ndarray, groups: np.ndarray) -> list[tuple[float, float, float]]:
    """The mean and its interval for each depth, of those that have something to find."""
    known = ~np.isnan(found[:, 0])
    return [wilson(column[known], groups=groups[known].astype(float)) for column in found.T]


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--limit", type=int, help="pictures of each data set (default: all)")
    run_stage(options, {"embed": embed, "measure": measure})


if __name__ == "__main__":
    main()
