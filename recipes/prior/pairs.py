"""What the prior learns from: two objects, each's region in a scene of its own, and a scene that both stand in."""

import argparse
import logging
import time

import numpy as np

import maskinversion as mi
from recipes.common.captions import with_article
from recipes.common.embedding import embed
from recipes.common.paths import BUILD
from recipes.common.pictures import PICTURES
from recipes.common.scenes import TRAINED_KINDS, Scenes
from recipes.common.sprites import TRAINING_STYLES

log = logging.getLogger(__name__)
PAIRS = BUILD / "pairs.npz"
TEMPLATES = ("{} beside {}", "{} and {}", "{} with {}", "{} next to {}", "a picture of {} and {}", "a photo of {} beside {}")
UNNAMED = ("thing", "object")  # words for a subject that say nothing of it: of the first, and of the second


def sentence(template: str, words: list[str]) -> str:
    return template.format(*map(with_article, words))


def draw_pairs(args: argparse.Namespace) -> None:
    """Pairs of the objects that `recipes.common.pictures` drew, in a new scene of both, lit and turned anew: classes [n, 2]; of
    each, tokens and alone [n, 2, D], of its region and of it on another background; and the scene's embedding, together [n, D]."""
    rng = np.random.default_rng(args.seed + 40_000)
    known = np.load(PICTURES)
    drawn = Scenes(TRAINING_STYLES)
    clip = mi.load_clip("bundled")
    begin = time.monotonic()
    objects, scenes = [], []
    while len(objects) < args.count:
        pair = rng.choice(len(known["sprites"]), 2)
        sprites = [int(sprite) for sprite in known["sprites"][pair]]
        if drawn.class_of[sprites[0]] == drawn.class_of[sprites[1]]:
            continue
        objects.append(pair)
        order = 1 if rng.random() < 0.5 else -1  # the last that is drawn lies above
        scenes.append(drawn.draw(rng, TRAINED_KINDS[int(rng.random() < 0.15)], 2, sprites=sprites[::order]).image)
    together = embed(clip, scenes, args.bf16)
    log.info("%d pairs, %.0f a second", len(objects), len(objects) / (time.monotonic() - begin))
    chosen = np.array(objects)
    classes = drawn.class_of[known["sprites"][chosen]]
    np.savez(PAIRS, classes=classes, tokens=known["token"][chosen], alone=known["only"][chosen], together=together)
