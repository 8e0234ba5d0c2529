"""Does a picture made of a region's token show what is in the region? And a sheet of examples to look at.

    python -m recipes.decoder.evaluate judge              # trains the judge, 5 minutes; writes recipes/build/judge.safetensors
    python -m recipes.decoder.evaluate measure            # prints a Markdown table, writes recipes/build/decoder-evaluation.json
    python -m recipes.decoder.evaluate grid               # writes docs/generated.png from the bundled models; needs no judge

The judge is a small convolutional network that knows nothing of the CLIP: it is trained to name what is drawn in a scene, by the
scene's labels alone. For one object of each of 200 scenes that nothing was trained on, the bundled decoder makes a picture of the
scene's global embedding, of the embedding of a masked crop, and of MaskInversion's token, with the same noise. `object`: the
judge's first answer is the masked object; `another`: it is another object of the scene. Intervals are 95% Wilson intervals.
"""

import argparse

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
from recipes.common.paths import ROOT
from recipes.common.scenes import Scene, Scenes
from recipes.common.sprites import STYLES, TRAINING_STYLES
from recipes.decoder.judge import load_judge, names_of, train_judge
from recipes.decoder.models import SIDE
from recipes.decoder.pictures import alone

METHODS = ("global embedding", "masked crop", "MaskInversion, as published", "MaskInversion, region", "the object alone (ceiling)")
KINDS = ("plain", "clutter", "overlap")
STEPS, GUIDANCE = 25, 4.0
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


def measure(args: argparse.Namespace) -> None:
    clip, decoder = mi.load_clip("bundled"), load_decoder("bundled")
    published, inverter = (mi.MaskInverter(clip, **PRESETS[preset]) for preset in ("published", "region"))
    against = nothing(clip).embeddings[0]
    report = []
    print("| style | picture made of | object | another |\n|---|---|---|---|")
    for name, styles in STYLES.items():
        style, source = name.replace("-", " "), Scenes(styles)
        model = load_judge(len(source.names))
        rng = np.random.default_rng((args.seed + 20_000, len(report)))
        chosen: list[tuple[Scene, int]] = []
        embeddings: dict[str, list] = {method: [] for method in METHODS}
        lonely = []
        while len(chosen) < args.scenes:
            scene = source.draw(rng, KINDS[len(chosen) % len(KINDS)], int(rng.choice((2, 3, 4))), augment=False)
            which = int(rng.integers(len(scene.classes)))
            only = alone(rng, scene, which)
            if only is None:
                continue
            chosen.append((scene, which))
            lonely.append(only)
            encoded = inverter.encode(scene.image)
            found = [
                encoded.global_embedding,
                inverter.encode(crops(scene)[1][which]).global_embedding,
                published.invert(encoded, scene.masks[which]).embeddings[0],
                inverter.invert(encoded, scene.masks[which]).embeddings[0],
                inverter.encode(only).global_embedding,
            ]
            for method, embedding in zip(METHODS, found, strict=True):
                embeddings[method].append(embedding)
        right = np.array([scene.classes[which] for scene, which in chosen])
        answers = {"the real picture of the object": names_of(model, np.stack(lonely) / 255)}
        answers |= {
            method: names_of(model, generate(decoder, torch.stack(embeddings[method]), against, args.seed)) for method in METHODS
        }
        for method, answer in answers.items():
            other = np.array([a in scene.classes and a != r for a, r, (scene, _) in zip(answer, right, chosen, strict=True)], float)
            shares = [wilson((answer == right).astype(float)), wilson(other)]
            print(f"| {style} | {method} | {' | '.join(map(interval, shares))} |", flush=True)
            report.append({"style": style, "method": method, "scenes": len(chosen), "object": shares[0], "another": shares[1]})
    write_report("decoder-evaluation.json", report)


def grid(args: argparse.Namespace) -> None:
    """16 rows, in two columns: the scene with the mask's outline, the mask, the map of its token, the picture made of the token."""
    clip, decoder = mi.load_clip("bundled"), load_decoder("bundled")
    inverter = mi.MaskInverter(clip, **PRESETS["region"])
    rng = np.random.default_rng(args.seed + 30_000)
    source = Scenes(TRAINING_STYLES)
    chosen, tokens = [], []
    for i in range(PAIRS):
        scene = source.draw(rng, KINDS[i % len(KINDS)], int(rng.choice((2, 3))), augment=False)
        which = int(np.argmax(scene.masks.sum((1, 2))))
        found = inverter.invert(inverter.encode(scene.image), scene.masks[which])
        chosen.append((scene, which, found.maps_for()[0]))
        tokens.append(found.embeddings[0])
    made = generate(decoder, torch.stack(tokens), nothing(clip).embeddings[0], args.seed)
    rows = []
    for (scene, which, heat), picture in zip(chosen, made, strict=True):
        pixels, mask = torch.from_numpy(scene.image).float() / 255, torch.from_numpy(scene.masks[which])
        cells = [overlay(pixels, heat, mask, 0.0).numpy(), np.repeat(scene.masks[which][..., None], 3, 2)]
        cells += [overlay(pixels, heat).numpy(), picture]
        rows.append(
            [
                Image.fromarray((cell.clip(0, 1) * 255).round().astype(np.uint8)).resize((CELL, CELL), Image.LANCZOS)
                for cell in cells
            ]
        )
    across, down, gap, head = len(rows[0]), PAIRS // COLUMNS, 16, 26
    sheet = Image.new("RGB", (COLUMNS * across * CELL + (COLUMNS - 1) * gap, head + down * CELL), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column in range(COLUMNS):
        left = column * (across * CELL + gap)
        for x, title in enumerate(("scene", "mask", "what the token looks at", "made of the token")):
            pen.text(
                (left + (x + 0.5) * CELL, head / 2), title, "black", font if x != 2 else ImageFont.load_default(11), anchor="mm"
            )
        for y in range(down):
            for x, cell in enumerate(rows[column * down + y]):
                sheet.paste(cell, (left + x * CELL, head + y * CELL))
    sheet.save(ROOT / "docs" / "generated.png", optimize=True)
    print(ROOT / "docs" / "generated.png")


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--scenes", type=int, default=200)
    options.add_argument("--pictures", type=int, default=24_000, help="that the judge is trained on")
    options.add_argument("--epochs", type=int, default=8, help="of the judge")
    options.add_argument("--seed", type=int, default=0)
    run_stage(options, {"judge": train_judge, "measure": measure, "grid": grid})


if __name__ == "__main__":
    main()
