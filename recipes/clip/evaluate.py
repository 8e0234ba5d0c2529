"""How well does the bundled CLIP name a region? MaskInversion against the global embedding and crops.

    python -m recipes.clip.evaluate --scenes 300          # prints a Markdown table, writes recipes/build/evaluation.json

Every scene has objects of different classes with exact masks. For each object: top-1 and top-5 over all class names, and
`own`: how often its name wins among the names of its own scene. The scenes are drawn anew from a seed that training never
uses. Intervals are 95% Wilson intervals. See common/scenes.py for the kinds of scene, common/sprites.py for the styles.
`maskinversion eval`, on what data/make_dataset.py writes, has more methods and settings; this one needs no files, and its masks
are soft.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F

import maskinversion as mi
from recipes.common.arguments import parser
from recipes.common.evaluation import Measured, add_scenes, crops, tabulate
from recipes.common.scenes import Scene

METHODS = ("global", "box crop", "masked crop", "MaskInversion")
TEMPLATE = "a photo of a {}"


def evaluate(clip: mi.Clip, scenes: list[Scene], names: list[str], settings: list[dict], crops_too: bool) -> dict[str, Measured]:
    """Top-1, top-5 and own of every method; MaskInversion is one for each setting."""
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
    return {m: Measured(np.array(h, float), {"IoU": float(np.mean(ious[m])) if m in ious else None}) for m, h in hits.items()}


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--model", default="bundled")
    add_scenes(options, 300)
    options.add_argument(
        "--setting", action="append", type=json.loads, help="""parameters as JSON, such as '{"lr": 0.2}'; may repeat"""
    )
    options.add_argument("--no-crops", action="store_true")
    args = options.parse_args()
    clip = mi.load_clip(args.model)

    def measure(scenes: list[Scene], names: list[str]) -> dict[str, Measured]:
        return evaluate(clip, scenes, names, args.setting or [{}], not args.no_crops)

    tabulate(args, "evaluation.json", ("top-1", "top-5", "own"), measure, ("IoU",))


if __name__ == "__main__":
    main()
