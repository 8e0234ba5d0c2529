"""Draw the example scenes that the package ships: two in a style the bundled CLIP was trained on, two in one it has never seen.

    python -m recipes.data.make_examples

They are made of Google's Noto emoji (Apache-2.0) and Microsoft's Fluent emoji (MIT), at four times the pixels of a training
scene, so that they also look good on a screen.
"""

import json

import numpy as np
from PIL import Image

from recipes.common.arguments import parser
from recipes.common.paths import ROOT
from recipes.common.scenes import Scenes, background

FOLDER = ROOT / "maskinversion" / "bundled" / "examples"
SIDE = 384  # pixels
# name -> style, background seed, and (class, x, y, side) of every object, back to front, in parts of the picture's side
LAYOUTS = {
    "breakfast": (
        "noto",
        11,
        [("croissant", 0.06, 0.10, 0.46), ("cup of coffee", 0.52, 0.42, 0.44), ("strawberry", 0.14, 0.60, 0.34)],
    ),
    "zoo": ("noto", 23, [("elephant", 0.05, 0.08, 0.50), ("penguin", 0.56, 0.42, 0.40), ("fox", 0.12, 0.58, 0.36)]),
    "street": ("fluent-3d", 5, [("bus", 0.06, 0.36, 0.52), ("bicycle", 0.56, 0.06, 0.38), ("umbrella", 0.60, 0.54, 0.36)]),
    "overlap": ("fluent-3d", 42, [("guitar", 0.10, 0.10, 0.62), ("cat", 0.42, 0.40, 0.48)]),
}


def main() -> None:
    parser(__spec__.name, __doc__).parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (style, seed, objects) in LAYOUTS.items():
        scenes = Scenes((style,))
        canvas = background(np.random.default_rng(seed), SIDE)
        masks = np.zeros((len(objects), SIDE, SIDE))
        for i, (label, x, y, part) in enumerate(objects):
            sprite = Image.fromarray(scenes.pixels[scenes.of_class[scenes.names.index(label)][0]])
            side = round(part * SIDE)
            pixels = np.asarray(sprite.resize((side, side), Image.LANCZOS), np.float32) / 255
            alpha = pixels[..., 3]
            where = np.s_[round(y * SIDE) : round(y * SIDE) + side, round(x * SIDE) : round(x * SIDE) + side]
            canvas[where] += alpha[..., None] * (pixels[..., :3] - canvas[where])
            masks[(slice(0, i), *where)] *= 1 - alpha
            masks[(i, *where)] = alpha
        Image.fromarray((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(FOLDER / f"{name}.png")
        for i, mask in enumerate(masks):
            Image.fromarray((mask * 255 + 0.5).astype(np.uint8)).save(FOLDER / f"{name}-mask{i}.png", optimize=True)
    names = {name: [label for label, *_ in objects] for name, (_, _, objects) in LAYOUTS.items()}
    (FOLDER / "examples.json").write_text(json.dumps(names, indent=2) + "\n", encoding="utf-8")
    print(f"{FOLDER}: {', '.join(LAYOUTS)}")


if __name__ == "__main__":
    main()
