"""Is there both in what the prior makes of a prompt with a region in it? In the embedding, and in pictures.

    python -m recipes.prior.evaluate embeddings     # prints a Markdown table, writes recipes/build/prior-embeddings.json
    python -m recipes.prior.evaluate pictures       # the same of the bundled decoder's pictures, by the judge of decoder.evaluate

One object of each of 200 scenes of two to four, that nothing was trained on, is the first; the second is another of the 98 names.
The prompt is "a fox beside a cup" (named), or "a thing beside a cup", which leaves it to the region what the first is. In the
first's place stand nothing (text alone), the embedding of the whole scene, that of a masked crop, and MaskInversion's token.
Without the prior: the embedding of the whole scene, and that of a real picture of both.

first, second, both: whether the first, the second, both are among the bundled CLIP's two best of the 98 names, or among the
judge's two best for the picture. both of five: both among the five best. its picture: of the real pictures of all the pairs, it is
nearest to that of its own. own look: it is nearer to the real picture with this very drawing of the first than to the same with
another drawing of the same thing; chance is 0.50. Intervals are 95% Wilson intervals.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.evaluation.protocols import wilson
from maskinversion.operations import nothing
from maskinversion.settings import PRESETS
from maskinversion.tasks.diffusion import load_decoder, load_prior
from maskinversion.tasks.texts import unit_embeddings
from recipes.common.arguments import parser, run_stage
from recipes.common.captions import with_article
from recipes.common.evaluation import crops, interval, write_report
from recipes.common.scenes import Scenes
from recipes.common.sprites import STYLES
from recipes.decoder.evaluate import generate
from recipes.decoder.judge import best_of, load_judge
from recipes.prior.pairs import TEMPLATES, UNNAMED, sentence

KINDS = ("plain", "clutter", "overlap")
SMALLEST = 0.02  # part of a scene that an object must fill to be chosen
REAL = ("no prior", "a real picture of both")
Key = tuple[str, str]  # the prompt, and what stands in the first's place


@dataclass(frozen=True)
class Case:
    """Two things: their classes, pair; the embeddings [D] that are compared, and those of two real pictures of both, with the
    first's own drawing and with another of it, looks [2, D]; and the first of these, real [S, S, 3] uint8."""

    pair: tuple[int, int]
    embeddings: dict[Key, torch.Tensor]
    looks: torch.Tensor
    real: np.ndarray


def cases(args: argparse.Namespace, style: str) -> list[Case]:
    clip, prior = mi.load_clip("bundled"), load_prior("bundled")
    inverter = mi.MaskInverter(clip, **PRESETS["region"])
    ground = nothing(clip)
    every, own = Scenes([name for names in STYLES.values() for name in names]), Scenes(STYLES[style])
    places = {sprite.tobytes(): number for number, sprite in enumerate(every.pixels)}
    number_of = [places[sprite.tobytes()] for sprite in own.pixels]  # of each drawing among those of all styles
    rng = np.random.default_rng((args.seed + 50_000, list(STYLES).index(style)))
    found: list[Case] = []
    while len(found) < args.scenes:
        scene = own.draw(rng, KINDS[len(found) % len(KINDS)], int(rng.choice((2, 3, 4))), augment=False)
        which = int(rng.integers(len(scene.classes)))
        first, sprite = scene.classes[which], number_of[scene.sprites[which]]
        second = int(rng.choice([c for c in range(len(own.names)) if c not in scene.classes]))
        beside = number_of[rng.choice(own.of_class[second])]
        others = [other for other in every.of_class[first] if other != sprite]
        if not others or scene.masks[which].mean() < SMALLEST:
            continue
        seed = int(rng.integers(2**32))
        real, other = (
            every.draw(np.random.default_rng(seed), "plain", 2, augment=False, sprites=[drawn, beside]).image
            for drawn in (sprite, int(rng.choice(others)))
        )
        encoded = inverter.encode(scene.image)
        looks = torch.stack([inverter.encode(picture).global_embedding for picture in (real, other)])
        placed = {
            "text alone": None,
            "whole picture": encoded.global_embedding,
            "masked crop": inverter.encode(crops(scene)[1][which]).global_embedding,
            "MaskInversion": inverter.invert(encoded, scene.masks[which]).embeddings[0],
        }
        embeddings = {("no prior", "whole picture"): encoded.global_embedding, REAL: looks[0]}
        for prompt, word in (("named", own.names[first]), (f"a {UNNAMED[0]}", UNNAMED[0])):
            text = sentence(TEMPLATES[0], [word, own.names[second]])
            for method, embedding in placed.items():
                subjects = [] if embedding is None else [word]
                tokens = [] if embedding is None else [replace(ground, embeddings=embedding[None])]
                embeddings[prompt, method] = prior.embed(text, clip, subjects, tokens, seed=len(found)).embeddings[0]
        found.append(Case((first, second), embeddings, looks, real))
    return found


def seen(best: np.ndarray, pairs: np.ndarray) -> list[np.ndarray]:
    """Of the best classes [n, k]: whether the first, the second and both of each pair [n, 2] are among them."""
    first, second = ((best == pairs[:, [which]]).any(1) for which in (0, 1))
    return [first, second, first & second]


class Table:
    """Printed as it grows, and written as JSON at the end."""

    def __init__(self, *columns: str):
        self.columns, self.report = columns, []
        print(f"| style | prompt | in the first's place | {' | '.join(columns)} |\n|{'---|' * (3 + len(columns))}", flush=True)

    def add(self, style: str, key: Key, hits: list[np.ndarray]) -> None:
        shares = [wilson(np.asarray(column, float)) for column in hits]
        print(f"| {style.replace('-', ' ')} | {' | '.join(key)} | {' | '.join(map(interval, shares))} |", flush=True)
        row = {"style": style, "prompt": key[0], "method": key[1], "scenes": len(hits[0])}
        self.report.append(row | dict(zip(self.columns, shares, strict=True)))


def measure_embeddings(args: argparse.Namespace) -> None:
    clip = mi.load_clip("bundled")
    table = Table("first", "second", "both", "both of five", "its picture", "own look")
    for style in args.styles:
        drawn = cases(args, style)
        pairs = np.array([case.pair for case in drawn])
        own, other = torch.stack([F.normalize(case.looks, dim=1) for case in drawn], 1)
        names = unit_embeddings(clip, [with_article(name) for name in Scenes(STYLES[style]).names])
        for key in drawn[0].embeddings:
            made = F.normalize(torch.stack([case.embeddings[key] for case in drawn]), dim=1)
            order = (made @ names.T).argsort(1, descending=True).numpy()
            nearest = (made @ own.T).argmax(1).numpy() == np.arange(len(drawn))
            look = ((made * own).sum(1) > (made * other).sum(1)).numpy()
            table.add(style, key, [*seen(order[:, :2], pairs), seen(order[:, :5], pairs)[2], nearest, look])
    write_report("prior-embeddings.json", table.report)


def measure_pictures(args: argparse.Namespace) -> None:
    clip, decoder = mi.load_clip("bundled"), load_decoder("bundled")
    against = nothing(clip).embeddings[0]
    table = Table("first", "second", "both")
    for style in args.styles:
        drawn = cases(args, style)
        pairs = np.array([case.pair for case in drawn])
        model = load_judge(len(Scenes(STYLES[style]).names))
        table.add(style, ("not painted", REAL[1]), seen(best_of(model, np.stack([case.real for case in drawn]) / 255, 2), pairs))
        for key in (key for key in drawn[0].embeddings if key[1] != "masked crop"):
            pictures = generate(decoder, torch.stack([case.embeddings[key] for case in drawn]), against, args.seed)
            table.add(style, key, seen(best_of(model, pictures, 2), pairs))
    write_report("prior-pictures.json", table.report)


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--scenes", type=int, default=200)
    options.add_argument("--styles", nargs="+", choices=STYLES, default=[*STYLES])
    options.add_argument("--seed", type=int, default=1, help="0 is that with which settings were chosen")
    run_stage(options, {"embeddings": measure_embeddings, "pictures": measure_pictures})


if __name__ == "__main__":
    main()
