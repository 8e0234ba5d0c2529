"""Tables of how often something is right about the objects of scenes that nothing was trained on."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maskinversion.evaluation.baselines.pictures import crop, masked_crop, to_pil
from maskinversion.evaluation.protocols import wilson
from maskinversion.pictures import as_pixels
from recipes.common.paths import BUILD
from recipes.common.scenes import KINDS, Scene, Scenes, usual_counts
from recipes.common.sprites import STYLES


@dataclass(frozen=True)
class Measured:
    """One method on some scenes. hits [objects, columns]: right or not; means: numbers that are no share, by their names."""

    hits: np.ndarray
    means: dict[str, float | None]


def crops(scene: Scene) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The bounding box of every object, as it is and with everything outside of the mask grey."""
    pixels, masks = as_pixels(scene.image)[0], torch.from_numpy(scene.masks)
    return tuple([np.array(to_pil(cut)) for cut in way(pixels, masks)] for way in (crop, masked_crop))


def add_scenes(parser: argparse.ArgumentParser, scenes: int) -> None:
    """What `tabulate` reads, with this default."""
    parser.add_argument("--scenes", type=int, default=scenes, help="per row of the table")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS])
    parser.add_argument("--seed", type=int, default=10_000)


def tabulate(
    args: argparse.Namespace,
    file_name: str,
    columns: Sequence[str],
    evaluate: Callable[[list[Scene], list[str]], dict[str, Measured]],
    means: Sequence[str] = (),
) -> None:
    """Print a Markdown table, and write it to recipes/build as JSON: for every style and kind of scene, a row for each method.

    evaluate: gets the scenes and all names of classes. columns, means: the titles of what it measures.
    """
    report = []
    print(f"| {' | '.join(('style', 'scenes', 'method', *columns, *means))} |\n|{'---|' * (3 + len(columns) + len(means))}")
    for style, styles in STYLES.items():
        source = Scenes(styles)
        for kind in args.kinds:
            rng = np.random.default_rng((args.seed, len(report)))
            counts = usual_counts(kind)
            scenes = [source.draw(rng, kind, int(rng.choice(counts)), augment=False) for _ in range(args.scenes)]
            for method, found in evaluate(scenes, source.names).items():
                row = {"style": style.replace("-", " "), "kind": kind, "method": method}
                shares = [wilson(column) for column in found.hits.T]
                extra = ["" if found.means[name] is None else f"{found.means[name]:.2f}" for name in means]
                print(f"| {' | '.join((*row.values(), *map(interval, shares), *extra))} |", flush=True)
                row |= {"objects": len(found.hits)} | {name.lower(): found.means[name] for name in means}
                report.append(row | {name.replace("-", ""): share for name, share in zip(columns, shares, strict=True)})
    write_report(file_name, report)


def interval(share: tuple[float, float, float]) -> str:
    """A share and its interval, as `wilson` gives them."""
    return "{:.2f} ({:.2f}-{:.2f})".format(*share)


def write_report(file_name: str, report: list[dict]) -> None:
    (BUILD / file_name).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
