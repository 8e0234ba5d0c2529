"""Does the bundled captioner name the region? Tokens of MaskInversion (presets `published` and `region`) against the global
embedding and masked crops.

    python -m recipes.captioner.evaluate --scenes 100      # prints a Markdown table, writes recipes/build/captioner-evaluation.json

For each object of a scene, one caption, decoded greedily. `named`: the object's name is in it, word for word, the longest name
first, so that a "red apple" is no other apple. `only`: it is, and no other name. Scenes, seed and intervals are as in
clip/evaluate.py, so they are none that the CLIP or the captioner was trained with.
"""

import re
from functools import partial

import numpy as np
import torch

import maskinversion as mi
from maskinversion.settings import PRESETS
from maskinversion.tasks.caption import Captioner, Decoding, load_captioner
from recipes.common.arguments import parser
from recipes.common.evaluation import Measured, add_scenes, crops, tabulate
from recipes.common.scenes import Scene

METHODS = ("global", "masked crop", "as published", "region")


def named(text: str, names: list[str]) -> set[str]:
    """Which of `names` are in a text, as whole words."""
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return set(re.findall(rf"\b({'|'.join(longest_first)})\b", text))


def evaluate(clip: mi.Clip, captioner: Captioner, scenes: list[Scene], names: list[str]) -> dict[str, Measured]:
    """Named and only of every method."""
    published, inverter = (mi.MaskInverter(clip, **PRESETS[preset]) for preset in ("published", "region"))
    hits = {method: [] for method in METHODS}
    for scene in scenes:
        encoded = inverter.encode(scene.image)
        embeddings = {
            "global": encoded.global_embedding[None],
            "masked crop": torch.stack([inverter.encode(image).global_embedding for image in crops(scene)[1]]),
            "as published": published.invert(encoded, scene.masks).embeddings,
            "region": inverter.invert(encoded, scene.masks).embeddings,
        }
        for method in METHODS:
            found = [named(text, names) for (text,) in captioner.caption(embeddings[method], Decoding())]
            found = found * len(scene.classes) if method == "global" else found
            hits[method] += [(names[c] in said, {names[c]} == said) for c, said in zip(scene.classes, found, strict=True)]
    return {method: Measured(np.array(found, float), {}) for method, found in hits.items()}


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--captioner", default="bundled")
    add_scenes(options, 100)
    args = options.parse_args()
    measure = partial(evaluate, mi.load_clip("bundled"), load_captioner(args.captioner))
    tabulate(args, "captioner-evaluation.json", ("named", "only"), measure)


if __name__ == "__main__":
    main()
