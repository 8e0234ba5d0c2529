"""Does a picture made of a region's token show what is in the region? And a sheet of examples to look at.

    python -m recipes.decoder.evaluate judge              # trains the judge, 5 minutes; writes recipes/build/judge.safetensors
    python -m recipes.decoder.evaluate measure            # prints a Markdown table, writes recipes/build/decoder-evaluation.json
    python -m recipes.decoder.evaluate grid               # writes docs/generated.png from the bundled models; needs no judge
    python -m recipes.decoder.evaluate painted            # the same for the inpainter: recipes/build/painted.png

The judge is a small convolutional network that knows nothing of the CLIP: it is trained to name what is drawn in a scene, by the
scene's labels alone. For one object of each of 200 scenes that nothing was trained on, the bundled decoder makes a picture of the
scene's global embedding, of the embedding of a masked crop, and of MaskInversion's token, with the same noise; and the bundled
inpainter paints it over the largest object of another scene, of which the judge sees the painted place. `object`: the judge's first
answer is the masked object; `another`: it is another object of its scene. Intervals are 95% Wilson intervals.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import maskinversion as mi
from maskinversion.drawing.overlay import overlay
from maskinversion.evaluation.protocols import wilson
from maskinversion.operations import nothing
from maskinversion.settings import PRESETS
from maskinversion.tasks.diffusion import Decoder, load_decoder
from recipes.common.arguments import parser, run_stage
from recipes.common.evaluation import crops, interval, write_report
from recipes.common.paths import BUILD, ROOT
from recipes.common.pictures import SIDE, alone, cut_out, shrunk
from recipes.common.scenes import Scene, Scenes
from recipes.common.sprites import STYLES, TRAINING_STYLES
from recipes.decoder.judge import load_judge, names_of, train_judge

METHODS = ("global embedding", "masked crop", "MaskInversion, as published", "MaskInversion, region", "the object alone (ceiling)")
KINDS = ("plain", "clutter", "overlap")
STEPS, GUIDANCE = 25, 4.0
MARGIN = 2  # pixels, between an object and the edge of the hole that it leaves
CELL, COLUMNS, PAIRS = 128, 2, 16


@torch.no_grad()
def generate(decoder: Decoder, embeddings: torch.Tensor, against: torch.Tensor, seed: int) -> np.ndarray:
    """Pictures [n, SIDE, SIDE, 3] in 0..1, the k-th of seed + k: as `Decoder.generate` does one by one, here many at once."""
    made = []
    for i in range(0, len(embeddings), 50):
        some = embeddings[i : i + 50]
        made.append(
            decoder.pipeline(
                image_embeds=some, negative_image_embeds=against.expand_as(some), height=SIDE, width=SIDE,
                num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np",
                generator=[torch.Generator().manual_seed(seed + i + j) for j in range(len(some))],
            ).images
        )  # fmt: skip
    return np.concatenate(made)


@dataclass(frozen=True)
class Place:
    """Where the inpainter paints: a scene, and the box around its largest object."""

    picture: np.ndarray  # [SIDE, SIDE, 3] uint8
    box: tuple[int, int, int, int]  # left, top, right, bottom
    classes: list[int]  # that are in the scene

    @classmethod
    def draw(cls, rng: np.random.Generator, source: Scenes) -> "Place":
        scene = source.draw(rng, KINDS[int(rng.integers(len(KINDS)))], int(rng.choice((1, 2, 3))), augment=False)
        largest = scene.masks[int(np.argmax(scene.masks.sum((1, 2))))]
        small = np.asarray(Image.fromarray(largest).resize((SIDE, SIDE), Image.BOX)) > 0.2
        rows, columns = np.flatnonzero(small.max(1)), np.flatnonzero(small.max(0))
        edges = (columns[0] - MARGIN, rows[0] - MARGIN, columns[-1] + 1 + MARGIN, rows[-1] + 1 + MARGIN)
        return cls(shrunk(scene.image), tuple(int(np.clip(edge, 0, SIDE)) for edge in edges), scene.classes)

    @property
    def hole(self) -> np.ndarray:
        """[SIDE, SIDE] float32, 1 where it is to be painted."""
        left, top, right, bottom = self.box
        hole = np.zeros((SIDE, SIDE), np.float32)
        hole[top:bottom, left:right] = 1
        return hole

    def seen(self, picture: np.ndarray) -> np.ndarray:
        """The place in a picture [SIDE, SIDE, 3], enlarged to that size."""
        cut = Image.fromarray((picture * 255).round().astype(np.uint8)).crop(self.box)
        return np.asarray(cut.resize((SIDE, SIDE), Image.BICUBIC)) / 255

    def with_object(self, cutout: Image.Image) -> np.ndarray:
        """The picture [SIDE, SIDE, 3] in 0..1 with a cut-out object in the place, as large as fits."""
        left, top, right, bottom = self.box
        room = (right - left, bottom - top)
        scale = min(room[0] / cutout.width, room[1] / cutout.height)
        cutout = cutout.resize([max(1, round(side * scale)) for side in cutout.size], Image.BICUBIC)
        canvas = Image.fromarray(self.picture)
        canvas.paste(cutout, (left + (room[0] - cutout.width) // 2, top + (room[1] - cutout.height) // 2), cutout)
        return np.asarray(canvas) / 255


@torch.no_grad()
def paint(decoder: Decoder, embeddings: torch.Tensor, place: Place, against: torch.Tensor, seed: int) -> np.ndarray:
    """Pictures [n, SIDE, SIDE, 3] in 0..1, each embedding in the place, with the same noise: as `Decoder.inpaint` without a
    feather, many at once. One place at a time: the pipeline takes the surroundings of a whole batch from its first picture."""
    count, picture, hole = len(embeddings), place.picture / 255, place.hole
    made = decoder.pipeline(
        image_embeds=embeddings, negative_image_embeds=against.expand_as(embeddings), height=SIDE, width=SIDE,
        image=torch.from_numpy(picture).float().movedim(-1, 0).expand(count, -1, -1, -1) * 2 - 1,
        mask_image=torch.from_numpy(hole).expand(count, 1, -1, -1),
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np",
        generator=[torch.Generator().manual_seed(seed) for _ in range(count)],
    ).images  # fmt: skip
    return np.where(hole[..., None] > 0, made, picture)


@dataclass(frozen=True)
class Chosen:
    """One object of a scene: the object alone, and its embedding of every method."""

    scene: Scene
    which: int
    only: np.ndarray
    embeddings: dict[str, torch.Tensor]


def choose(seed: object, source: Scenes, clip: mi.Clip, count: int) -> list[Chosen]:
    """One object of each of so many scenes, and its embeddings."""
    published, inverter = (mi.MaskInverter(clip, **PRESETS[preset]) for preset in ("published", "region"))
    rng = np.random.default_rng(seed)
    chosen: list[Chosen] = []
    while len(chosen) < count:
        scene = source.draw(rng, KINDS[len(chosen) % len(KINDS)], int(rng.choice((2, 3, 4))), augment=False)
        which = int(rng.integers(len(scene.classes)))
        only = alone(rng, scene, which)
        if only is None:
            continue
        encoded = inverter.encode(scene.image)
        found = (
            encoded.global_embedding,
            inverter.encode(crops(scene)[1][which]).global_embedding,
            published.invert(encoded, scene.masks[which]).embeddings[0],
            inverter.invert(encoded, scene.masks[which]).embeddings[0],
            inverter.encode(only).global_embedding,
        )
        chosen.append(Chosen(scene, which, only, dict(zip(METHODS, found, strict=True))))
    return chosen


def measure(args: argparse.Namespace) -> None:
    clip, decoder, inpainter = mi.load_clip("bundled"), load_decoder("bundled"), load_decoder("bundled-inpaint")
    against = nothing(clip).embeddings[0]
    report = []
    print("| style | painted | of | object | another |\n|---|---|---|---|---|")
    for number, (style, styles) in enumerate(STYLES.items()):
        source = Scenes(styles)
        model = load_judge(len(source.names))
        chosen = choose((args.seed + 20_000, number), source, clip, args.scenes)
        places = [Place.draw(np.random.default_rng((args.seed + 40_000, number, i)), source) for i in range(len(chosen))]
        cutouts = [cut_out(one.scene, one.which) for one in chosen]

        def of_place(pictures: Iterable[np.ndarray], places: list[Place] = places) -> np.ndarray:
            return np.stack([place.seen(picture) for place, picture in zip(places, pictures, strict=True)])

        pasted = of_place(place.with_object(cutout) for place, cutout in zip(places, cutouts, strict=True))
        emptied = of_place(np.where(place.hole[..., None] > 0, 0.5, place.picture / 255) for place in places)
        shown: dict[str, dict[str, np.ndarray]] = {
            "alone": {"the real picture of the object": np.stack([one.only for one in chosen]) / 255},
            "into a picture": {"the real object pasted": pasted, "nothing painted": emptied},
        }
        embeddings = torch.stack([torch.stack([one.embeddings[method] for method in METHODS]) for one in chosen])
        filled = [paint(inpainter, each, place, against, args.seed + i) for i, (each, place) in enumerate(zip(embeddings, places))]
        for k, method in enumerate(METHODS):
            shown["alone"][method] = generate(decoder, embeddings[:, k], against, args.seed)
            shown["into a picture"][method] = of_place(pictures[k] for pictures in filled)
        for task, methods in shown.items():
            for method, pictures in methods.items():
                answer = names_of(model, pictures)
                right = [answer[i] == one.scene.classes[one.which] for i, one in enumerate(chosen)]
                other = [not right[i] and answer[i] in one.scene.classes for i, one in enumerate(chosen)]
                shares = [wilson(np.array(hits, float)) for hits in (right, other)]
                row = {"style": style.replace("-", " "), "painted": task, "method": method}
                print(f"| {' | '.join((*row.values(), *map(interval, shares)))} |", flush=True)
                report.append(row | {"scenes": len(chosen), "object": shares[0], "another": shares[1]})
    write_report("decoder-evaluation.json", report)


def enlarged(cell: np.ndarray) -> Image.Image:
    return Image.fromarray((cell.clip(0, 1) * 255).round().astype(np.uint8)).resize((CELL, CELL), Image.LANCZOS)


def sheet(titles: tuple[str, ...], rows: list[list[np.ndarray]], path: Path) -> None:
    """Rows of pictures in 0..1, in two columns, each cell of a row under its title."""
    across, down, gap, head = len(titles), len(rows) // COLUMNS, 16, 26
    page = Image.new("RGB", (COLUMNS * across * CELL + (COLUMNS - 1) * gap, head + down * CELL), "white")
    pen = ImageDraw.Draw(page)
    for column in range(COLUMNS):
        left = column * (across * CELL + gap)
        for x, title in enumerate(titles):
            font = ImageFont.load_default(15 if len(title) < 20 else 11)
            pen.text((left + (x + 0.5) * CELL, head / 2), title, "black", font, anchor="mm")
        for y in range(down):
            for x, cell in enumerate(rows[column * down + y]):
                page.paste(enlarged(cell), (left + x * CELL, head + y * CELL))
    page.save(path, optimize=True)
    print(path)


def shown_regions(args: argparse.Namespace, clip: mi.Clip) -> tuple[list[list[np.ndarray]], torch.Tensor]:
    """Of scenes of the trained styles: the scene with the outline of its largest object, the mask, the map; and tokens [n, D]."""
    inverter = mi.MaskInverter(clip, **PRESETS["region"])
    rng = np.random.default_rng(args.seed + 30_000)
    source = Scenes(TRAINING_STYLES)
    cells, tokens = [], []
    for i in range(PAIRS):
        scene = source.draw(rng, KINDS[i % len(KINDS)], int(rng.choice((2, 3))), augment=False)
        mask = scene.masks[int(np.argmax(scene.masks.sum((1, 2))))]
        found = inverter.invert(inverter.encode(scene.image), mask)
        pixels, heat = torch.from_numpy(scene.image).float() / 255, found.maps_for()[0]
        outlined = overlay(pixels, heat, torch.from_numpy(mask), 0.0).numpy()
        cells.append([outlined, np.repeat(mask[..., None], 3, 2), overlay(pixels, heat).numpy()])
        tokens.append(found.embeddings[0])
    return cells, torch.stack(tokens)


def grid(args: argparse.Namespace) -> None:
    """16 rows: the scene with the mask's outline, the mask, the map of its token, the picture made of the token."""
    clip, decoder = mi.load_clip("bundled"), load_decoder("bundled")
    cells, tokens = shown_regions(args, clip)
    made = generate(decoder, tokens, nothing(clip).embeddings[0], args.seed)
    rows = [[*row, picture] for row, picture in zip(cells, made, strict=True)]
    sheet(("scene", "mask", "what the token looks at", "made of the token"), rows, ROOT / "docs" / "generated.png")


def painted(args: argparse.Namespace) -> None:
    """16 rows: the scene with the mask's outline, another scene, its hole, and what the token paints there."""
    clip, decoder = mi.load_clip("bundled"), load_decoder("bundled-inpaint")
    cells, tokens = shown_regions(args, clip)
    source = Scenes(TRAINING_STYLES)
    places = [Place.draw(np.random.default_rng((args.seed + 50_000, i)), source) for i in range(PAIRS)]
    rows = []
    for i, ((outlined, *_), place) in enumerate(zip(cells, places, strict=True)):
        picture = paint(decoder, tokens[i : i + 1], place, nothing(clip).embeddings[0], args.seed + i)[0]
        hole = np.where(place.hole[..., None] > 0, 0.5, place.picture / 255)
        rows.append([outlined, place.picture / 255, hole, picture])
    sheet(("scene", "another scene", "its hole", "painted"), rows, BUILD / "painted.png")


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--scenes", type=int, default=200)
    options.add_argument("--pictures", type=int, default=24_000, help="that the judge is trained on")
    options.add_argument("--epochs", type=int, default=8, help="of the judge")
    options.add_argument("--seed", type=int, default=0)
    run_stage(options, {"judge": train_judge, "measure": measure, "grid": grid, "painted": painted})


if __name__ == "__main__":
    main()
