"""Compose pictures of several emoji, with the exact mask of every object.

    python -m recipes.common.scenes --out recipes/build/preview.png          # a sheet of examples to look at

Kinds of scene. Trained: `plain` (objects apart on a colour, gradient or cloud background) and `clutter` (the same among
shapes that no caption names). Held out from training: `overlap` (objects hide parts of one another) and `crowd`
(5 or 6 small objects).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes.common.arguments import parser
from recipes.common.paths import BUILD
from recipes.common.sprites import SIZE, STYLES

IMAGE_SIZE = 96  # pixels, the side of a scene
TRAINED_KINDS = ("plain", "clutter")
HELD_OUT_KINDS = ("overlap", "crowd")
KINDS = TRAINED_KINDS + HELD_OUT_KINDS


@dataclass(frozen=True)
class Scene:
    image: np.ndarray  # [S, S, 3] uint8
    masks: np.ndarray  # [n, S, S] float32 in 0..1: what of each object is visible
    classes: list[int]  # n class indices, all different
    sprites: list[int]  # which of `Scenes.pixels` each object is


class Scenes:
    """Draws scenes from the sprites of the given styles. The same generator state gives the same scene."""

    def __init__(self, styles: Iterable[str]):
        path = BUILD / "sprites.npz"
        if not path.is_file():
            raise SystemExit(f"{path} is missing: run `python -m recipes.common.sprites` first")
        data = np.load(path)
        keep = np.isin(data["style_of"], list(styles))
        self.names = [str(name) for name in data["names"]]
        self.pixels, self.class_of = data["pixels"][keep], data["class_of"][keep]
        self.of_class = [np.flatnonzero(self.class_of == i) for i in range(len(self.names))]

    def draw(
        self, rng: np.random.Generator, kind: str, count: int, augment: bool = True, sprites: Sequence[int] | None = None
    ) -> Scene:
        """One scene of `count` different objects. `augment` also varies their colour, light and shape. sprites: which, if not
        chance is to say."""
        size = IMAGE_SIZE
        canvas = background(rng, size)
        if kind == "clutter":
            canvas = scatter_shapes(rng, canvas)
        classes = rng.choice(len(self.names), count, replace=False) if sprites is None else self.class_of[list(sprites)]
        drawn = []
        masks = np.zeros((count, size, size), np.float32)
        for i, (box, name) in enumerate(zip(layout(rng, kind, count, size), classes, strict=True)):
            drawn.append(int(rng.choice(self.of_class[name])) if sprites is None else sprites[i])
            colour, alpha = vary(rng, self.pixels[drawn[-1]], box[2], augment)
            x, y, side = box
            canvas[y : y + side, x : x + side] += alpha[..., None] * (colour - canvas[y : y + side, x : x + side])
            masks[:i, y : y + side, x : x + side] *= 1 - alpha
            masks[i, y : y + side, x : x + side] = alpha
        return Scene((canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8), masks, [int(c) for c in classes], drawn)


def usual_counts(kind: str) -> tuple[int, ...]:
    """How many objects there are in a scene that is to be measured on."""
    return (5, 6) if kind == "crowd" else (2, 3, 4)


def layout(rng: np.random.Generator, kind: str, count: int, size: int) -> list[tuple[int, int, int]]:
    """Square boxes (x, y, side): apart from one another, except in `overlap`."""
    smallest, largest = {1: (34, 90), 2: (30, 60), 3: (30, 50), 4: (28, 44)}.get(count, (22, 34))
    allowed = 0.12
    if kind == "overlap":
        largest, allowed = largest + 8, 0.45
    boxes: list[tuple[int, int, int]] = []
    for _ in range(count):
        best, best_cover = None, 2.0
        for attempt in range(30):
            side = int(rng.uniform(smallest, largest) if attempt < 15 else rng.uniform(smallest - 2, smallest + 4))
            box = (int(rng.integers(0, size - side + 1)), int(rng.integers(0, size - side + 1)), side)
            cover = max([shared(box, other) for other in boxes], default=0.0)
            if cover < best_cover:
                best, best_cover = box, cover
            if cover <= allowed and (kind != "overlap" or not boxes or cover >= 0.15):
                best = box
                break
        boxes.append(best)
    return boxes


def shared(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """The part of the smaller box that both cover."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[2], b[1] + b[2]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0) / min(a[2], b[2]) ** 2


def vary(rng: np.random.Generator, sprite: np.ndarray, side: int, augment: bool) -> tuple[np.ndarray, np.ndarray]:
    """Flip, turn, stretch and relight a sprite: colour [side, side, 3] and alpha [side, side], in 0..1."""
    image = Image.fromarray(sprite)
    if side <= SIZE // 2:
        image = image.reduce(2)
    angle = rng.normal(0, 0.17 if augment else 0.1)
    stretch = np.exp(rng.normal(0, 0.08 if augment else 0.03, 2))
    source = image.width / side * (abs(np.cos(angle)) + abs(np.sin(angle)) * 0.5)
    flip = rng.choice((-1, 1))
    cos, sin = np.cos(angle) * source, np.sin(angle) * source
    a, b, d, e = flip * cos * stretch[0], flip * sin * stretch[1], -sin * stretch[0], cos * stretch[1]
    half = side / 2
    matrix = (a, b, image.width / 2 - a * half - b * half, d, e, image.height / 2 - d * half - e * half)
    pixels = np.asarray(image.transform((side, side), Image.AFFINE, matrix, Image.BILINEAR), np.float32) / 255
    colour, alpha = pixels[..., :3], pixels[..., 3]
    if augment:
        colour = relight(rng, colour)
    return colour, alpha


def relight(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    if rng.random() < 0.6:  # turn the hue: a rotation about the grey axis
        turn = rng.normal(0, 0.25)
        c, s = np.cos(turn), np.sin(turn) / np.sqrt(3)
        k = (1 - c) / 3
        colour = colour @ np.array([[c + k, k + s, k - s], [k - s, c + k, k + s], [k + s, k - s, c + k]], np.float32)
    grey = colour.mean(-1, keepdims=True)
    saturation = rng.choice((0.0, rng.uniform(0.5, 1.4)), p=(0.04, 0.96))
    colour = (grey + saturation * (colour - grey) - 0.5) * rng.uniform(0.75, 1.2) + 0.5 + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.6:  # light from one side, as on a solid thing
        line = np.linspace(-1, 1, colour.shape[0], dtype=np.float32)
        x, y = np.cos(turn := rng.uniform(0, 2 * np.pi)), np.sin(turn)
        light = x * line[None, :] + y * line[:, None]
        colour = colour + rng.uniform(0.05, 0.3) * light[..., None]
    return colour.astype(np.float32)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    base = rng.uniform(0.1, 1, 3)
    kind = rng.integers(3)
    if kind == 0:
        weight = np.zeros((size, size))
    elif kind == 1:
        line = np.linspace(0, 1, size)
        weight = rng.uniform(-1, 1) * line[None, :] + rng.uniform(-1, 1) * line[:, None]
    else:
        weight = clouds(rng, size)
    other = np.clip(base + rng.normal(0, 0.3, 3), 0, 1)
    return (base + weight[..., None] * (other - base)).astype(np.float32)


def clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    total = np.zeros((size, size))
    for cells in (3, 6, 12):
        noise = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += np.asarray(noise.resize((size, size), Image.BICUBIC)) * 3 / cells
    return total / 1.75


def scatter_shapes(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    image = Image.fromarray((canvas.clip(0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(3, 9)):
        x, y = rng.integers(0, image.width, 2)
        w, h = rng.integers(5, 26, 2)
        fill = tuple(int(v) for v in rng.integers(0, 256, 3))
        shape = rng.integers(3)
        if shape == 0:
            pen.ellipse((x, y, x + w, y + h), fill=fill)
        elif shape == 1:
            pen.rectangle((x, y, x + w, y + h), fill=fill)
        else:
            pen.line((x, y, x + 2 * w - 26, y + 2 * h - 26), fill=fill, width=int(rng.integers(1, 5)))
    return np.asarray(image, np.float32) / 255


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--out", type=Path, default=BUILD / "preview.png")
    args = options.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for which, styles in STYLES.items():
        scenes = Scenes(styles)
        for kind in KINDS:
            counts = rng.integers(5, 7, 8) if kind == "crowd" else rng.integers(2, 5, 8)
            rows.append(np.concatenate([scenes.draw(rng, kind, int(c), which == "trained").image for c in counts], 1))
    Image.fromarray(np.concatenate(rows)).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
