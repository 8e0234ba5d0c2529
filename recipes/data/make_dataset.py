"""Write drawn scenes as a data set in published formats, for `maskinversion eval` without any download.

    python -m recipes.data.make_dataset --out recipes/build/held-out --style held-out --kinds plain overlap --scenes 250
    maskinversion eval coco --annotations recipes/build/held-out/instances.json --images recipes/build/held-out/images --out OUT
    maskinversion eval refcoco --refs recipes/build/held-out/refs.json --annotations ... --images ... --out OUT

`instances.json` has every object of every scene in COCO's format, with exact masks as run lengths. `refs.json` is what RefCOCO's
refs(unc).p holds: expressions such as "the fox", "the left fox" or "the large fox at the bottom", and only such as mean one object.
With --twins, that part of the scenes has two objects of one class, which only where they are or how large they are tells apart.

Needs `pip install pycocotools`, and recipes.common.sprites once. Scenes are drawn from a seed that training never uses.
"""

import copy
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as runs

from recipes.common.arguments import parser
from recipes.common.scenes import IMAGE_SIZE, KINDS, Scene, Scenes, usual_counts
from recipes.common.sprites import STYLES

APART = 0.2  # of the side: how far the centres of twins must be from one another for "left" to be beyond doubt
LARGER = 1.7  # how many times the area of its twin a "large" one has
SEED = 20_000


def draw(scenes: Scenes, rng: np.random.Generator, kind: str, count: int, twins: bool) -> Scene:
    """A scene of `count` objects, of which the first two classes drawn are the same with `twins`."""
    if not twins:
        return scenes.draw(rng, kind, count, augment=False)
    classes = rng.choice(len(scenes.names), count - 1, replace=False)
    slots = [classes[0], *classes]
    few = copy.copy(scenes)
    few.names, few.of_class = [scenes.names[c] for c in slots], [scenes.of_class[c] for c in slots]
    scene = few.draw(rng, kind, count, augment=False)
    return Scene(scene.image, scene.masks, [int(slots[c]) for c in scene.classes], scene.sprites)


def expressions(index: int, names: list[str], boxes: list[tuple], areas: list[float], hidden: bool) -> list[str]:
    """What means object `index` and no other. boxes: (x, y, width, height). hidden: parts may be, so that areas say nothing."""
    name = names[index]
    twins = [i for i in range(len(names)) if names[i] == name and i != index]
    centres = [(x + w / 2, y + h / 2) for x, y, w, h in boxes]

    def where(axis: int, words: tuple[str, str]) -> str | None:
        away = [(centres[index][axis] - centres[i][axis]) / IMAGE_SIZE for i in twins]
        return words[0] if max(away) < -APART else words[1] if min(away) > APART else None

    if not twins:
        return [f"the {name}"]
    side, height = where(0, ("left", "right")), where(1, ("top", "bottom"))
    ratio = [areas[index] / areas[i] for i in twins]
    size = None
    if not hidden:
        size = "large" if min(ratio) > LARGER else "small" if max(ratio) < 1 / LARGER else None
    found = [f"the {word} {name}" for word in (side, size) if word]
    if height:
        found.append(f"the {name} at the {height}")
    if size and side:
        found.append(f"the {size} {name} on the {side}")
    return found


def run_lengths(mask: np.ndarray) -> dict:
    found = runs.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode("ascii")}


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--style", choices=STYLES, default="held-out")
    options.add_argument("--kinds", nargs="+", choices=KINDS, default=["plain"])
    options.add_argument("--scenes", type=int, default=100, help="of each kind (default: %(default)s)")
    options.add_argument("--counts", type=int, nargs="+", help="objects in a scene (default: 2 to 4, in crowds 5 and 6)")
    options.add_argument("--twins", type=float, default=0.0, help="part of the scenes with two objects of one class")
    options.add_argument("--seed", type=int, default=SEED)
    args = options.parse_args()
    scenes = Scenes(STYLES[args.style])
    pictures = args.out / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    images, annotations, refs, sentence = [], [], [], 0
    for kind in args.kinds:
        # Of its own for every kind, so that a kind's scenes are the same whichever others are drawn.
        rng = np.random.default_rng((args.seed, KINDS.index(kind)))
        for _ in range(args.scenes):
            count = int(rng.choice(args.counts or usual_counts(kind)))
            scene = draw(scenes, rng, kind, count, bool(rng.random() < args.twins) and count > 1)
            key = len(images) + 1
            file_name = f"{kind}-{key:06d}.png"
            Image.fromarray(scene.image).save(pictures / file_name)
            images.append({"id": key, "file_name": file_name, "height": IMAGE_SIZE, "width": IMAGE_SIZE})
            solid = [(c, mask > 0.5) for c, mask in zip(scene.classes, scene.masks, strict=True) if (mask > 0.5).any()]
            names = [scenes.names[c] for c, _ in solid]
            masks = [run_lengths(mask) for _, mask in solid]
            boxes = [tuple(float(v) for v in runs.toBbox(mask)) for mask in masks]
            areas = [float(mask.sum()) for _, mask in solid]
            for index, (class_index, _) in enumerate(solid):
                known = {"image_id": key, "category_id": class_index + 1}
                annotations.append(
                    {"id": len(annotations) + 1, **known, "segmentation": masks[index], "area": areas[index],
                     "bbox": boxes[index], "iscrowd": 0}
                )  # fmt: skip
                sentences = []
                for text in expressions(index, names, boxes, areas, kind == "overlap"):
                    sentences.append({"sent_id": sentence, "sent": text, "raw": text, "tokens": text.split()})
                    sentence += 1
                if sentences:
                    refs.append(
                        {"ref_id": len(refs), "ann_id": len(annotations), **known, "file_name": file_name, "split": "test",
                         "sentences": sentences, "sent_ids": [s["sent_id"] for s in sentences]}
                    )  # fmt: skip
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(scenes.names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (args.out / "instances.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    (args.out / "refs.json").write_text(json.dumps(refs) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(images)} pictures, {len(annotations)} objects, {sentence} expressions of {len(refs)} of them")


if __name__ == "__main__":
    main()
