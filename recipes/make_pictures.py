"""Draw the README's picture: an example scene, and what the token of each of its regions looks at and is nearest to.

    python recipes/make_pictures.py          # writes docs/regions.png, from the bundled model

The name under each region is the likeliest of all the names that the bundled model knows.
"""

import sys
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parents[1]))
import maskinversion as mi
from maskinversion.examples import load_example
from maskinversion.geometry import as_pixels
from maskinversion.loading import bundled_classes
from maskinversion.overlay import overlay
from maskinversion.tasks.classify import classify

ROOT = Path(__file__).parents[1]
EXAMPLES = ("zoo", "breakfast")
STRIP, FONT = 44, ImageFont.load_default(24)


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """The picture over a white strip with the text."""
    sheet = Image.new("RGB", (picture.width, picture.height + STRIP), "white")
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text((picture.width / 2, picture.height + STRIP / 2), text, "black", FONT, anchor="mm")
    return sheet


def row(clip: mi.Clip, name: str) -> list[Image.Image]:
    example = load_example(name)
    inverter = mi.MaskInverter(clip)
    encoded = inverter.encode(example.image)
    tokens = inverter.invert(encoded, example.masks)
    whole, *regions = classify(torch.cat([encoded.global_embedding[None], tokens.embeddings]), clip, bundled_classes()).best
    pixels = as_pixels(example.image)[0].permute(1, 2, 0)
    cells = [labelled(example.image.convert("RGB"), f"whole picture: {whole[0]} {whole[1]:.0%}")]
    for heat, mask, (label, probability) in zip(tokens.maps_for(), example.masks, regions, strict=True):
        painted = (overlay(pixels, heat, mask) * 255).round().byte().numpy()
        cells.append(labelled(Image.fromarray(painted), f"{label} {probability:.0%}"))
    return cells


def main() -> None:
    clip = mi.load_clip("bundled")
    rows = [row(clip, name) for name in EXAMPLES]
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    for y, cells in enumerate(rows):
        for x, cell in enumerate(cells):
            sheet.paste(cell, (x * width, y * height))
    sheet.save(ROOT / "docs" / "regions.png", optimize=True)
    print(ROOT / "docs" / "regions.png")


if __name__ == "__main__":
    main()
