"""Draw the README's picture, and the cards of the templates that run offline, from the bundled models.

    python -m recipes.data.make_pictures regions  # writes docs/regions.png
    python -m recipes.data.make_pictures cards    # writes the pictures beside workflows/*.json
    python -m recipes.data.make_pictures brand    # writes docs/icon.png and docs/banner.png, for the list of packs

The README's picture is an example scene, and what the token of each of its regions looks at and is nearest to: the name under each
region is the likeliest of all the names that the bundled model knows.
"""

import argparse

import torch
from PIL import Image, ImageDraw, ImageFont

import maskinversion as mi
from maskinversion.bundled import bundled_classes, load_example
from maskinversion.drawing.labels import draw_labels
from maskinversion.drawing.overlay import overlay
from maskinversion.operations import nothing, pick
from maskinversion.pictures import as_pixels
from maskinversion.settings import PRESETS
from maskinversion.tasks.caption import load_captioner
from maskinversion.tasks.classify import classify
from maskinversion.tasks.diffusion import Settings, load_decoder, load_prior
from maskinversion.tasks.prompt import describe, place_of
from recipes.common.arguments import parser, run_stage
from recipes.common.paths import ROOT

EXAMPLES = ("zoo", "breakfast")
STRIP, FONT = 44, ImageFont.load_default(24)
CARD = (540, 200)


def labelled(picture: Image.Image, text: str) -> Image.Image:
    """The picture over a white strip with the text."""
    sheet = Image.new("RGB", (picture.width, picture.height + STRIP), "white")
    sheet.paste(picture)
    ImageDraw.Draw(sheet).text((picture.width / 2, picture.height + STRIP / 2), text, "black", FONT, anchor="mm")
    return sheet


def row(clip: mi.Clip, name: str) -> list[Image.Image]:
    example = load_example(name)
    inverter = mi.MaskInverter(clip, **PRESETS["region"])  # as the node's own
    encoded = inverter.encode(example.image)
    tokens = inverter.invert(encoded, example.masks)
    whole, *regions = classify(torch.cat([encoded.global_embedding[None], tokens.embeddings]), clip, bundled_classes()).best
    pixels = as_pixels(example.image)[0].permute(1, 2, 0)
    cells = [labelled(example.image.convert("RGB"), f"whole picture: {whole[0]} {whole[1]:.0%}")]
    for heat, mask, (label, probability) in zip(tokens.maps_for(), example.masks, regions, strict=True):
        painted = (overlay(pixels, heat, mask) * 255).round().byte().numpy()
        cells.append(labelled(Image.fromarray(painted), f"{label} {probability:.0%}"))
    return cells


def regions(_args: argparse.Namespace) -> None:
    clip = mi.load_clip("bundled")
    rows = [row(clip, name) for name in EXAMPLES]
    width, height = rows[0][0].size
    sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
    for y, cells in enumerate(rows):
        for x, cell in enumerate(cells):
            sheet.paste(cell, (x * width, y * height))
    sheet.save(ROOT / "docs" / "regions.png", optimize=True)
    print(ROOT / "docs" / "regions.png")


def brand(_args: argparse.Namespace) -> None:
    """One region lit by the map of its token: alone, and beside the scene with its mask."""
    example = load_example("zoo")
    pixels = as_pixels(example.image)[0].permute(1, 2, 0)
    inverter = mi.MaskInverter(mi.load_clip("bundled"))
    tokens = inverter.invert(inverter.encode(example.image), example.masks)
    areas = [mask.sum() for mask in example.masks]
    chosen = max(range(len(areas)), key=lambda i: areas[i])
    mask, heat = example.masks[chosen], tokens.maps_for()[chosen]
    marked, lit = (Image.fromarray((overlay(pixels, heat, mask, by) * 255).round().byte().numpy()) for by in (0.0, 0.75))
    rows, columns = mask.nonzero(as_tuple=True)
    height, width = mask.shape
    side = min(height, width, int(1.25 * max(rows.max() - rows.min(), columns.max() - columns.min())))
    left = min(max(int(columns.float().mean()) - side // 2, 0), width - side)
    top = min(max(int(rows.float().mean()) - side // 2, 0), height - side)
    lit.crop((left, top, left + side, top + side)).resize((400, 400), Image.LANCZOS).save(ROOT / "docs" / "icon.png", optimize=True)
    sheet = Image.new("RGB", (1260, 540), "#15171c")
    shown = (round(370 * width / height), 370)
    for picture, middle in ((marked, 415), (lit, 845)):
        sheet.paste(picture.resize(shown, Image.LANCZOS), (middle - shown[0] // 2, 24))
    pen = ImageDraw.Draw(sheet)
    pen.text((630, 440), "MaskInversion", "white", ImageFont.load_default(64), anchor="mm")
    words = "a picture and a mask in, an embedding of that region out"
    pen.text((630, 500), words, "#b8bcc6", ImageFont.load_default(28), anchor="mm")
    sheet.save(ROOT / "docs" / "banner.png", optimize=True)


def card(name: str, pictures: list[torch.Tensor], texts: list[str]) -> None:
    """Pictures [h, w, 3] in 0..1 side by side, each over its text."""
    sheet = Image.new("RGB", CARD, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    side = min(CARD[1] - 24, CARD[0] // len(pictures) - 4)
    for i, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        middle = round((i + 0.5) * CARD[0] / len(pictures))
        shown = Image.fromarray((picture * 255).round().byte().numpy()).resize((side, side), Image.LANCZOS)
        sheet.paste(shown, (middle - side // 2, (CARD[1] - 24 - side) // 2))
        pen.text((middle, CARD[1] - 12), text, "black", font, anchor="mm")
    sheet.save(ROOT / "workflows" / f"{name}.jpg", quality=88)
    print(ROOT / "workflows" / f"{name}.jpg")


def cards(_args: argparse.Namespace) -> None:
    clip = mi.load_clip("bundled")
    inverter = mi.MaskInverter(clip, **PRESETS["region"])  # as the node's own

    def seen(name: str):
        example = load_example(name)
        return example, as_pixels(example.image)[0].permute(1, 2, 0), inverter.invert(inverter.encode(example.image), example.masks)

    example, zoo, tokens = seen("zoo")
    other, breakfast, taken = seen("breakfast")
    made = load_decoder("bundled").generate(pick([taken], [2]), Settings(steps=25, count=2), [nothing(clip)])
    outlined = overlay(breakfast, taken.maps_for()[2], other.masks[2], 0.0)
    card("picture_of_a_region", [outlined, *made], ["a mask", "pictures of", "what is in it"])

    hole = torch.nn.functional.max_pool2d(example.masks[2:], 17, stride=1, padding=8)[0]
    painted = load_decoder("bundled-inpaint").inpaint(pick([taken], [2]), zoo, hole, Settings(steps=25), 8, [nothing(clip)])[0]
    outlined = overlay(breakfast, taken.maps_for()[2], other.masks[2], 0.0)
    into = overlay(zoo, tokens.maps_for()[2], hole, 0.0)
    card("region_into_another_picture_offline", [outlined, into, painted], ["from here", "into here", "painted"])

    prompted = load_prior("bundled").embed("a fox beside a cup of coffee", clip, ["fox"], pick([tokens], [2]))
    made = load_decoder("bundled").generate([prompted], Settings(steps=25, count=2), [nothing(clip)])
    outlined = overlay(zoo, tokens.maps_for()[2], example.masks[2], 0.0)
    card("region_in_a_prompt", [outlined, *made], ['this "fox"', 'of "a fox beside', 'a cup of coffee"'])

    labels = [phrase for phrase, _ in classify(tokens.embeddings, clip, bundled_classes()).best]
    penguin = overlay(zoo, example.masks[1], example.masks[1], 0.5)
    card("name_and_find_regions", [draw_labels(zoo, example.masks, labels), penguin], ["every region named", '"a penguin"'])

    prompts = describe(tokens.embeddings, clip, {"things": bundled_classes()})
    placed = [f"{place_of(mask)}, {prompt.text}" for mask, prompt in zip(example.masks, prompts, strict=True)]
    outlines = [overlay(zoo, mask, mask, 0.3) for mask in example.masks]
    card("prompt_of_regions", outlines[::2], placed[::2])

    maps = [overlay(breakfast, heat, mask) for heat, mask in zip(taken.maps_for(), other.masks, strict=True)]
    captions = [caption if len(caption) < 24 else f"{caption[:22]}…" for (caption,) in load_captioner("bundled").caption(taken)]
    card("caption_a_region", maps, captions)

    wanted = {"breakfast": "strawberry", "zoo": "fox", "street": "bicycle"}
    outlines = []
    for scene, name in wanted.items():
        example, pixels, _ = seen(scene)
        mask = example.masks[example.names.index(name)]
        outlines.append(overlay(pixels, mask, mask, 0.3))
    card("collect_and_find_regions", outlines, [f'"{name}"' for name in wanted.values()])


def main() -> None:
    run_stage(parser(__spec__.name, __doc__), {"regions": regions, "cards": cards, "brand": brand})


if __name__ == "__main__":
    main()
