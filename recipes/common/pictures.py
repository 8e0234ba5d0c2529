"""What the captioner and the decoders learn from: scenes, portraits of one object, holes, and the bundled CLIP's embeddings.

    python -m recipes.common.pictures                # 10 minutes; writes recipes/build/pictures.npz

--bf16 pays where clip/train.py says so.
"""

import argparse
import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import maskinversion as mi
from maskinversion.operations import nothing
from recipes.common.arguments import parser, start_log
from recipes.common.embedding import embed, region_tokens
from recipes.common.paths import BUILD
from recipes.common.scenes import TRAINED_KINDS, Scene, Scenes, background
from recipes.common.sprites import TRAINING_STYLES

log = logging.getLogger(__name__)
PICTURES = BUILD / "pictures.npz"
SIDE = 64  # pixels, of the pictures that the decoders make
BACKDROP = (208, 208, 208)  # behind the objects that the decoder makes; some of them are white


def cut_out(scene: Scene, which: int) -> Image.Image | None:
    """One object of a scene by its mask, RGBA. None where too little of it is seen."""
    mask = scene.masks[which]
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    if len(rows) < 8 or len(columns) < 8:
        return None
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Image.fromarray(np.dstack([scene.image[cut], (mask[cut] * 255).astype(np.uint8)]))


def resized(cutout: Image.Image, longest: float) -> Image.Image:
    return cutout.resize([max(1, round(side * longest / max(cutout.size))) for side in cutout.size], Image.BICUBIC)


def alone(rng: np.random.Generator, scene: Scene, which: int) -> np.ndarray | None:
    """One object of a scene, somewhere and large on a background of its own: [S, S, 3] uint8. None where too little is seen."""
    cutout = cut_out(scene, which)
    if cutout is None:
        return None
    size = len(scene.image)
    cutout = resized(cutout, rng.uniform(0.5, 0.95) * size)
    canvas = Image.fromarray((background(rng, size).clip(0, 1) * 255).astype(np.uint8))
    canvas.paste(cutout, [int(rng.integers(0, size - side + 1)) for side in cutout.size], cutout)
    return np.asarray(canvas)


def shrunk(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.BICUBIC))


def portrait(cutout: Image.Image) -> np.ndarray:
    """It alone in the middle, on grey: [SIDE, SIDE, 3] uint8."""
    cutout = resized(cutout, 0.9 * SIDE)
    canvas = Image.new("RGB", (SIDE, SIDE), BACKDROP)
    canvas.paste(cutout, [(SIDE - side) // 2 for side in cutout.size], cutout)
    return np.asarray(canvas)


def hole(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Where to paint an object, from its mask: grown, or the box around it; [SIDE, SIDE] bool."""
    small = np.asarray(Image.fromarray(mask).resize((SIDE, SIDE), Image.BOX)) > 0.2
    grow = int(rng.integers(0, 7))
    if rng.random() < 0.5:
        rows, columns = np.flatnonzero(small.max(1)), np.flatnonzero(small.max(0))
        box = np.zeros_like(small)
        box[max(rows[0] - grow, 0) : rows[-1] + grow + 1, max(columns[0] - grow, 0) : columns[-1] + grow + 1] = True
        return box
    grown = F.max_pool2d(torch.from_numpy(small)[None].float(), 2 * grow + 1, stride=1, padding=grow)
    return grown[0].bool().numpy()


def draw_pictures(args: argparse.Namespace) -> None:
    """Of each scene and one object of it: scenes and portraits [n, SIDE, SIDE, 3] uint8, the embeddings of the whole, of the object
    only, somewhere on another background, and of its region in the scene, whole, only and token [n, D], a hole around it, holes
    [n, SIDE, SIDE] bool, which of the names it is, named [n], and which drawing, sprites [n].
    """
    rng = np.random.default_rng(args.seed)
    drawn = Scenes(TRAINING_STYLES)
    clip = mi.load_clip("bundled")
    scenes, portraits, holes, masks, named, sprites = [], [], [], [], [], []
    seen: dict[str, list] = {"whole": [], "only": []}  # by the CLIP
    begin = time.monotonic()
    while len(holes) < args.count:
        count = int(rng.choice((1, 2, 3), p=(0.65, 0.2, 0.15)))
        scene = drawn.draw(rng, TRAINED_KINDS[int(rng.random() < 0.15)], count, augment=rng.random() < 0.5)
        which = int(rng.integers(count))
        only = alone(rng, scene, which)
        if only is None:
            continue
        scenes.append(shrunk(scene.image))
        portraits.append(portrait(cut_out(scene, which)))
        holes.append(hole(rng, scene.masks[which]))
        masks.append(scene.masks[which])
        named.append(scene.classes[which])
        sprites.append(scene.sprites[which])
        seen["whole"].append(scene.image)
        seen["only"].append(only)
    log.info("%d scenes drawn, %.0f a second", len(holes), len(holes) / (time.monotonic() - begin))
    found = {name: embed(clip, images, args.bf16) for name, images in seen.items()}
    found["token"] = region_tokens(clip, seen["whole"], masks)
    log.info("all embedded, %.0f a second", len(holes) / (time.monotonic() - begin))
    nothings = np.stack([nothing(clip, what).embeddings[0].numpy() for what in ("grey", "black")])
    drawings = {"scenes": scenes, "portraits": portraits, "holes": holes, "named": named, "sprites": sprites}
    stacked = {name: np.stack(some) for name, some in drawings.items()}
    np.savez(PICTURES, **stacked, **found, nothings=nothings, names=np.array(drawn.names))


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--count", type=int, default=40_000, help="of pictures to draw")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--bf16", action="store_true", help="faster on some processors, far slower on others: see README.md")
    start_log()
    draw_pictures(options.parse_args())


if __name__ == "__main__":
    main()
