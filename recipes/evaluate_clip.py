"""How well does the bundled CLIP name a region? MaskInversion against the global embedding and crops.

    python recipes/evaluate_clip.py --scenes 300          # prints a Markdown table, writes recipes/build/evaluation.json

Every scene has objects of different classes with exact masks. For each object: top-1 and top-5 over all class names, and
`own`: how often its name wins among the names of its own scene. The scenes are drawn anew from a seed that training never
uses. Intervals are 95% Wilson intervals. See scenes.py for the kinds of scene, sprites.py for the styles. `maskinversion eval`, on
what make_dataset.py writes, has more methods and settings; this one needs no files, and its masks are soft.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scenes import BUILD, HELD_OUT_KINDS, HELD_OUT_STYLES, TRAINED_KINDS, TRAINING_STYLES, Scene, Scenes

sys.path.insert(0, str(Path(__file__).parents[1]))
import maskinversion as mi
from maskinversion.evaluation.baselines import crop, masked_crop, to_pil
from maskinversion.evaluation.protocols import wilson
from maskinversion.pictures import as_pixels

METHODS = ("global", "box crop", "masked crop", "MaskInversion")
TEMPLATE = "a photo of a {}"


def crops(scene: Scene) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The bounding box of every object, as it is and with everything outside of the mask grey."""
    pixels, masks = as_pixels(scene.image)[0], torch.from_numpy(scene.masks)
    return tuple([np.array(to_pil(cut)) for cut in way(pixels, masks)] for way in (crop, masked_crop))


def evaluate(clip: mi.Clip, scenes: list[Scene], names: list[str], settings: list[dict], crops_too: bool = True) -> dict:
    """Hits of every method: {method: array [objects, 3] of top-1, top-5, own}; one MaskInversion column per setting."""
    texts = F.normalize(clip.encode_text([TEMPLATE.format(name) for name in names]), dim=-1)
    plain = mi.MaskInverter(clip)
    hits: dict[str, list] = {}
    ious: dict[str, list] = {}

    def count(method: str, embeddings: torch.Tensor, classes: list[int]) -> None:
        scores = F.normalize(embeddings, dim=-1) @ texts.T
        for score, right in zip(scores, classes, strict=True):
            rank = int((score > score[right]).sum())
            own = int(score[classes].argmax()) == classes.index(right)
            hits.setdefault(method, []).append((rank == 0, rank < 5, own))

    for scene in scenes:
        if crops_too:
            count("global", plain.encode(scene.image).global_embedding.expand(len(scene.classes), -1), scene.classes)
            for method, images in zip(METHODS[1:3], crops(scene), strict=True):
                count(method, torch.stack([plain.encode(image).global_embedding for image in images]), scene.classes)
        for setting in settings:
            inverter = mi.MaskInverter(clip, **setting)
            tokens = inverter.invert(inverter.encode(scene.image), scene.masks)
            label = "MaskInversion" + "".join(f" {k}={v}" for k, v in setting.items())
            count(label, tokens.embeddings, scene.classes)
            ious.setdefault(label, []).extend(tokens.iou.tolist())
    return {m: {"hits": np.array(h, float), "iou": float(np.mean(ious[m])) if m in ious else None} for m, h in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--scenes", type=int, default=300, help="per row of the table")
    parser.add_argument(
        "--setting", action="append", type=json.loads, help="""parameters as JSON, such as '{"lr": 0.2}'; may repeat"""
    )
    parser.add_argument("--kinds", nargs="+", default=[*TRAINED_KINDS, *HELD_OUT_KINDS])
    parser.add_argument("--no-crops", action="store_true")
    parser.add_argument("--seed", type=int, default=10_000)
    args = parser.parse_args()
    clip = mi.load_clip(args.model)
    report = []
    print("| style | scenes | method | top-1 | top-5 | own | IoU |\n|---|---|---|---|---|---|---|")
    for style, styles in (("trained", TRAINING_STYLES), ("held out", HELD_OUT_STYLES)):
        source = Scenes(tuple(styles))
        for kind in args.kinds:
            rng = np.random.default_rng((args.seed, len(report)))
            counts = (5, 6) if kind == "crowd" else (2, 3, 4)
            scenes = [source.draw(rng, kind, int(rng.choice(counts)), augment=False) for _ in range(args.scenes)]
            for method, found in evaluate(clip, scenes, source.names, args.setting or [{}], not args.no_crops).items():
                shares = [wilson(column) for column in found["hits"].T]
                iou = "" if found["iou"] is None else f"{found['iou']:.2f}"
                print(
                    f"| {style} | {kind} | {method} | {' | '.join(f'{p:.2f} ({a:.2f}-{b:.2f})' for p, a, b in shares)} | {iou} |",
                    flush=True,
                )
                report.append(
                    {"style": style, "kind": kind, "method": method, "objects": len(found["hits"]), "iou": found["iou"]}
                    | dict(zip(("top1", "top5", "own"), shares, strict=True))
                )
    (BUILD / "evaluation.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
