"""Does the bundled captioner name the region? Tokens of MaskInversion against the global embedding and masked crops.

    python -m recipes.captioner.evaluate --scenes 100      # prints a Markdown table, writes recipes/build/captioner-evaluation.json

For each object of a scene, one caption, decoded greedily. `named`: the object's name is in it, word for word, the longest name
first, so that a "red apple" is no other apple. `only`: it is, and no other name. Scenes, seed and intervals are as in
clip/evaluate.py, so they are none that the CLIP or the captioner was trained with.
"""

import argparse
import json
import re

import numpy as np
import torch

import maskinversion as mi
from maskinversion.tasks.caption import Captioner, Decoding, load_captioner
from recipes.clip.evaluate import crops, wilson
from recipes.common.scenes import BUILD, HELD_OUT_KINDS, HELD_OUT_STYLES, TRAINED_KINDS, TRAINING_STYLES, Scene, Scenes

METHODS = ("global", "masked crop", "MaskInversion")


def named(text: str, names: list[str]) -> set[str]:
    """Which of `names` are in a text, as whole words."""
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return set(re.findall(rf"\b({'|'.join(longest_first)})\b", text))


def evaluate(inverter: mi.MaskInverter, captioner: Captioner, scenes: list[Scene], names: list[str]) -> dict[str, np.ndarray]:
    """Hits of every method: {method: [objects, 2] of named, only}."""
    hits = {method: [] for method in METHODS}
    for scene in scenes:
        encoded = inverter.encode(scene.image)
        embeddings = {
            "global": encoded.global_embedding[None],
            "masked crop": torch.stack([inverter.encode(image).global_embedding for image in crops(scene)[1]]),
            "MaskInversion": inverter.invert(encoded, scene.masks).embeddings,
        }
        for method in METHODS:
            found = [named(text, names) for (text,) in captioner.caption(embeddings[method], Decoding())]
            found = found * len(scene.classes) if method == "global" else found
            hits[method] += [(names[c] in said, {names[c]} == said) for c, said in zip(scene.classes, found, strict=True)]
    return {method: np.array(found, float) for method, found in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captioner", default="bundled")
    parser.add_argument("--scenes", type=int, default=100, help="per row of the table")
    parser.add_argument("--kinds", nargs="+", default=[*TRAINED_KINDS, *HELD_OUT_KINDS])
    parser.add_argument("--seed", type=int, default=10_000)
    args = parser.parse_args()
    inverter = mi.MaskInverter(mi.load_clip("bundled"))
    captioner = load_captioner(args.captioner)
    report = []
    print("| style | scenes | method | named | only |\n|---|---|---|---|---|")
    for style, styles in (("trained", TRAINING_STYLES), ("held out", HELD_OUT_STYLES)):
        source = Scenes(tuple(styles))
        for kind in args.kinds:
            rng = np.random.default_rng((args.seed, len(report)))
            counts = (5, 6) if kind == "crowd" else (2, 3, 4)
            scenes = [source.draw(rng, kind, int(rng.choice(counts)), augment=False) for _ in range(args.scenes)]
            for method, found in evaluate(inverter, captioner, scenes, source.names).items():
                shares = [wilson(column) for column in found.T]
                cells = " | ".join(f"{p:.2f} ({a:.2f}-{b:.2f})" for p, a, b in shares)
                print(f"| {style} | {kind} | {method} | {cells} |", flush=True)
                report.append(
                    {"style": style, "kind": kind, "method": method, "objects": len(found)}
                    | dict(zip(("named", "only"), shares, strict=True))
                )
    (BUILD / "captioner-evaluation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
