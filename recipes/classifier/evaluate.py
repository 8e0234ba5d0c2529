"""Does LARE name the regions of a style that nothing was trained on better than a linear probe of the same tokens, and zero-shot?

    python -m recipes.classifier.evaluate tokens      # scenes of one style each, and their regions' tokens
    python -m recipes.classifier.evaluate choose      # settings, on the trained styles only
    python -m recipes.classifier.evaluate measure     # the unseen style, once: prints Markdown; recipes/build/classifier.json

Everything is the bundled CLIP's, and the tokens are of the start `patches`. Learnt is from 1 to 16 tokens of each of the 98
classes, drawn anew for every seed, from all trained styles or from one of them; or from 16 of half of the classes and one of the
others; or from half of the scenes of the unseen style itself.
Intervals are 95% by bootstrap: of the draws of examples and of the scenes, both at once.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import maskinversion as mi
from maskinversion.tasks.boxes import BoxNetwork
from maskinversion.tasks.classifier import fit, fit_layer
from maskinversion.tasks.classifier_settings import PRIORS, TrainingSettings
from maskinversion.tasks.classify import text_embeddings
from maskinversion.tasks.phrases import CLASS_TEMPLATE
from recipes.common.arguments import parser, run_stage
from recipes.common.evaluation import write_report
from recipes.common.paths import BUILD
from recipes.common.scenes import KINDS, Scenes, usual_counts
from recipes.common.sprites import HELD_OUT_STYLES, TRAINING_STYLES

TOKENS = BUILD / "classifier-tokens.npz"
INVERSION = {"start": "patches", "lr": 0.05}
SEED = 20_000  # of scenes, which training never uses
EXAMPLES = (1, 2, 4, 8, 16)  # of each class
ONE_STYLE = "twemoji"
HALF = 200  # scenes of a style
JUDGED = ("twemoji", "noto-v1", "emojione")  # where settings are chosen
RESAMPLES = 1000
# Each at the decay that `choose` found best for it; the library's default, 0.1, is within 0.003 of each with texts.
METHODS = {
    "probe, no prior": TrainingSettings("probe", prior="none", decay=0.1),
    "lare, no prior": TrainingSettings("lare", prior="none", decay=0.1),
    "probe": TrainingSettings("probe", decay=0.3),
    "lare": TrainingSettings("lare", decay=0.03),
}


DIFFERENCES = {"lare - probe, no prior": ("lare, no prior", "probe, no prior"), "lare - probe": ("lare", "probe")}
NOISE = TrainingSettings("lare", decay=0.3, reach=1.0)  # on points of boxes that all have the same sides: reach below and above


class Pool:
    """The tokens of some styles: units [N, D], labels [N], scenes [N]. part: the scenes of each style, from and to."""

    def __init__(self, styles: tuple[str, ...], part: tuple[int, int] = (0, 10_000)):
        data = np.load(TOKENS)
        self.units = F.normalize(torch.from_numpy(np.concatenate([data[f"{style}/tokens"] for style in styles])), dim=1)
        self.labels = torch.from_numpy(np.concatenate([data[f"{style}/labels"] for style in styles]))
        self.scenes = np.concatenate([data[f"{style}/scenes"] + 10_000 * number for number, style in enumerate(styles)])
        kept = (part[0] <= self.scenes % 10_000) & (self.scenes % 10_000 < part[1])
        self.units, self.labels, self.scenes = self.units[kept], self.labels[kept], self.scenes[kept]

    def examples(self, counts: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """As many of each class as counts [C] says, or all there are, drawn by `seed`: more of a class are the fewer and others."""
        order = np.random.default_rng(seed).permutation(len(self.labels))
        drawn = np.concatenate([order[self.labels.numpy()[order] == c][:count] for c, count in enumerate(counts)])
        return self.units[drawn], self.labels[drawn]


class Judge:
    """Which of a pool's tokens a method names right."""

    def __init__(self):
        clip = mi.load_clip("bundled")
        self.texts = text_embeddings(clip, [str(name) for name in np.load(TOKENS)["names"]], [CLASS_TEMPLATE])
        self.scale = clip.logit_scale

    def hits(self, pool: Pool, examples: tuple[Tensor, Tensor], settings: TrainingSettings) -> np.ndarray:
        """[N] of the pool, learnt from the examples."""
        return self.right(pool, fit(*examples, self.texts, self.scale, settings)[0])

    def noisy_hits(self, pool: Pool, examples: tuple[Tensor, Tensor], settings: TrainingSettings) -> np.ndarray:
        """As `hits`, with boxes that are not learnt, but all of the same sides: uniform noise around every token."""
        units, labels = examples
        width = units.shape[1]
        same = [units.new_zeros(size) for size in ((1, width), (1,), (2 * width, 1), (2 * width,))]
        boxes = BoxNetwork(*same, reach=2 * settings.reach)  # sigmoid of 0 is a half
        places = torch.rand(settings.points, *units.shape, generator=torch.Generator().manual_seed(settings.seed))
        points = torch.cat([units[None], boxes.points(units, places)])
        shares = (1 / labels.bincount().to(units)[labels]).repeat(len(points))
        weight = fit_layer(
            points.flatten(0, 1), labels.repeat(len(points)), shares / shares.sum(), self.texts, self.scale, settings.decay
        )
        return self.right(pool, weight)

    def right(self, pool: Pool, weight: Tensor) -> np.ndarray:
        """[N] of the pool, by a layer's weight [C, D]."""
        return (pool.units @ weight.T).argmax(1).eq(pool.labels).double().numpy()


def make_tokens(args: argparse.Namespace) -> None:
    inverter = mi.MaskInverter(mi.load_clip("bundled"), **INVERSION)
    found = {}
    for number, style in enumerate((*TRAINING_STYLES, *HELD_OUT_STYLES)):
        source = Scenes([style])
        known = np.flatnonzero([len(sprites) for sprites in source.of_class])  # of all classes, as few styles draw every one
        found["names"] = np.array(source.names)
        source.names, source.of_class = [source.names[c] for c in known], [source.of_class[c] for c in known]
        rng = np.random.default_rng((SEED, number))
        tokens, labels, scenes = [], [], []
        for index in range(args.scenes):
            kind = KINDS[index % 3]  # without crowds, whose objects are three patches wide
            scene = source.draw(rng, kind, int(rng.choice(usual_counts(kind))), augment=False)
            seen = scene.masks.max((1, 2)) > 0.5
            tokens.append(inverter.invert(inverter.encode(scene.image), scene.masks[seen]).embeddings.numpy())
            labels += list(known[np.array(scene.classes)[seen]])
            scenes += [index] * len(tokens[-1])
        of_style = {"tokens": np.concatenate(tokens), "labels": np.array(labels), "scenes": np.array(scenes)}
        found |= {f"{style}/{name}": value for name, value in of_style.items()}
        print(f"{style}: {len(known)} classes, {len(labels)} tokens", flush=True)
    np.savez(TOKENS, **found)


def choose(args: argparse.Namespace) -> None:
    """Means over trained styles, with 1 and 4 examples of each class: of the other four styles (across), of its own (within)."""
    judge, styles = Judge(), tuple(TRAINING_STYLES)
    across = [(Pool(tuple(style for style in styles if style != judged)), Pool((judged,))) for judged in JUDGED]
    within = [(Pool((judged,), (0, HALF)), Pool((judged,), (HALF, 2 * HALF))) for judged in JUDGED]

    def means(settings: TrainingSettings) -> str:
        found = [
            np.mean([judge.hits(named, source.examples(np.full(98, count), 0), settings).mean() for source, named in folds])
            for folds in (across, within)
            for count in (1, 4)
        ]
        return " ".join(f"{value:.3f}" for value in (*found, np.mean(found)))

    zero_shot = [np.mean([judge.right(named, judge.texts).mean() for _, named in folds]) for folds in (across, within)]
    print("zero-shot {:.3f} {:.3f}".format(*zero_shot))
    for prior in PRIORS:
        for decay in args.decay:
            probe = TrainingSettings("probe", prior=prior, decay=decay)
            print("probe", prior, decay, means(probe), flush=True)
            for reach in args.reach:
                for size in args.size:
                    lare = replace(probe, method="lare", reach=reach, size=size)
                    print("lare", prior, decay, reach, size, means(lare), flush=True)


def measure(args: argparse.Namespace) -> None:
    judge, held_out = Judge(), tuple(HELD_OUT_STYLES)
    rows = {  # what is learnt from, what is named, and up to how many examples there are
        "five styles": (Pool(tuple(TRAINING_STYLES)), Pool(held_out), 16),
        "one style": (Pool((ONE_STYLE,)), Pool(held_out), 4),
        "the unseen style": (Pool(held_out, (0, HALF)), Pool(held_out, (HALF, 2 * HALF)), 4),
    }
    report = []
    columns = ("learnt from", "examples", "zero-shot", *METHODS, "noise", *DIFFERENCES)
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, (pool, unseen, most) in rows.items():
        conditions = {str(count): [np.full(98, count)] * args.seeds for count in EXAMPLES if count <= most}
        if name == "five styles":
            rare = [np.random.default_rng(seed).permutation(98) < 49 for seed in range(args.seeds)]
            conditions["16 or 1"] = [np.where(few, 1, 16) for few in rare]
        for examples, counts in conditions.items():
            drawn = [pool.examples(count, seed) for seed, count in enumerate(counts)]
            hits = {
                method: np.stack([judge.hits(unseen, few, replace(settings, seed=seed)) for seed, few in enumerate(drawn)])
                for method, settings in METHODS.items()
            }
            hits["noise"] = np.stack([judge.noisy_hits(unseen, few, replace(NOISE, seed=seed)) for seed, few in enumerate(drawn)])
            hits = {"zero-shot": judge.right(unseen, judge.texts)[None].repeat(args.seeds, 0)} | hits
            hits |= {difference: hits[one] - hits[other] for difference, (one, other) in DIFFERENCES.items()}
            cells = {method: interval(found, unseen.scenes) for method, found in hits.items()}
            report += [{"pool": name, "examples": examples, "method": method, **cell} for method, cell in cells.items()]
            print(f"| {name} | {examples} | {' | '.join(map(shown, cells.values()))} |", flush=True)
            if examples == "16 or 1":
                for words, wanted in (("of these: 16", False), ("of these: 1", True)):
                    # Each draw has other rare classes, so a token counts in those draws only where its class is one of them.
                    chosen = np.stack([few[unseen.labels.numpy()] == wanted for few in rare])
                    parts = {method: interval(found, unseen.scenes, chosen) for method, found in hits.items()}
                    report += [{"pool": name, "examples": words, "method": method, **cell} for method, cell in parts.items()]
                    print(f"| {name} | {words} | {' | '.join(map(shown, parts.values()))} |", flush=True)
    write_report("classifier.json", report)


def interval(hits: np.ndarray, scenes: np.ndarray, chosen: np.ndarray | None = None) -> dict[str, float]:
    """The mean of hits [draws, tokens], and its 95% interval by bootstrap. chosen: those that count; None is all."""
    counted = np.ones_like(hits) if chosen is None else chosen.astype(float)
    first = np.unique(scenes, return_inverse=True)[1]
    by_scene = np.eye(first.max() + 1)[first]
    right, of = (hits * counted) @ by_scene, counted @ by_scene  # [draws, scenes]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(RESAMPLES):
        draws, drawn = rng.integers(len(hits), size=len(hits)), rng.integers(right.shape[1], size=right.shape[1])
        means.append(right[draws][:, drawn].sum() / of[draws][:, drawn].sum())
    low, high = np.quantile(means, (0.025, 0.975))
    return {"value": float(right.sum() / of.sum()), "low": float(low), "high": float(high)}


def shown(found: dict) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * found[name] for name in ("value", "low", "high")))


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--scenes", type=int, default=400, help="of each style (default: %(default)s)")
    options.add_argument("--seeds", type=int, default=8, help="draws of examples (default: %(default)s)")
    options.add_argument("--decay", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1, 0.3])
    options.add_argument("--reach", type=float, nargs="+", default=[1.0, 2.0])
    options.add_argument("--size", type=float, nargs="+", default=[0.03])
    run_stage(options, {"tokens": make_tokens, "choose": choose, "measure": measure})


if __name__ == "__main__":
    main()
