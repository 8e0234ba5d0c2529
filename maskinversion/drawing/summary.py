"""All maps of an inversion in one picture, each with its mask, how well they agree, and how its loss fell."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .fonts import opened
from .overlay import overlay

PIXELS = 288  # the longer side of a map
MOST = 25  # maps; the rest is counted
SMALLEST = 144  # pixels of a map, of many
TITLE, CURVE, GAP = 26, 56, 8  # pixels: above a map, below it, between two
BACK, INK, FAINT, BRIGHT = (24, 24, 28), (236, 236, 236), (150, 150, 158), (252, 184, 51)


def map_size(image_size: tuple[int, int], count: int) -> tuple[int, int]:
    """(height, width) in which each of `count` maps of a picture of this (height, width) is drawn."""
    longest = max(SMALLEST, PIXELS * 2 // max(2, math.isqrt(count - 1) + 1))
    scale = min(1.0, longest / max(image_size))
    height, width = (max(1, round(side * scale)) for side in image_size)
    return height, width


@dataclass(frozen=True)
class Cell:
    """Of one token. image [h, w, 3], heat (its map) and mask [h, w], all in 0..1; iou of map and mask; the loss of every step."""

    image: Tensor
    heat: Tensor
    mask: Tensor
    iou: float
    losses: Sequence[float]


def draw_summary(cells: Sequence[Cell], count: int) -> Image.Image:
    """A cell for each token, in rows. The curves have one scale, from 0. count: of all tokens, of which these are the first."""
    shown = len(cells)
    width = max(SMALLEST, *(cell.image.shape[1] for cell in cells))
    height = max(cell.image.shape[0] for cell in cells) + TITLE + CURVE
    # About as wide as high, and the last row as full as can be.
    columns = math.ceil(shown / math.ceil(shown / max(1, round(math.sqrt(1.1 * shown * height / width)))))
    more = TITLE if count > shown else 0
    rows = math.ceil(shown / columns)
    sheet = Image.new("RGB", (columns * (width + GAP) + GAP, rows * (height + GAP) + GAP + more), BACK)
    pen = ImageDraw.Draw(sheet)
    highest = max(max(cell.losses, default=0) for cell in cells)
    for index, cell in enumerate(cells):
        left, top = GAP + index % columns * (width + GAP), GAP + index // columns * (height + GAP)
        painted = overlay(cell.image.float(), cell.heat.float(), cell.mask.float())
        found = Image.fromarray((painted * 255).round().byte().numpy())
        write(pen, left, top, f"region {index + 1}", INK)
        write(pen, left + width, top, f"IoU {cell.iou:.2f}", FAINT, "ra")
        sheet.paste(found, (left + (width - found.width) // 2, top + TITLE))
        draw_curve(pen, (left, top + height - CURVE, left + width, top + height), cell.losses, highest)
    if more:
        write(pen, GAP, sheet.height - more, f"and {count - shown} more", INK)
    return sheet


def draw_curve(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], losses: Sequence[float], top: float) -> None:
    """A loss over its steps, from 0 to `top`, with its first and last value."""
    left, up, right, down = box
    if not losses or not all(map(math.isfinite, losses)):
        return
    room, floor = right - left - 1, down - 2
    rise = (floor - up - 20) / max(top, 1e-12)
    steps = max(1, len(losses) - 1)
    points = [(left + room * step / steps, floor - rise * loss) for step, loss in enumerate(losses)]
    pen.line([(left, floor), (right, floor)], fill=FAINT)
    pen.line(points if len(points) > 1 else [*points, (right, points[0][1])], fill=BRIGHT, width=2)
    write(pen, right, up + 2, f"loss {losses[0]:.2f} to {losses[-1]:.2f}", FAINT, "ra", 13)


def write(
    pen: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: tuple[int, int, int], anchor: str = "la", size: int = 16
) -> None:
    pen.text((x, y), text, fill=colour, font=opened(None, size), anchor=anchor)


def as_tensor(picture: Image.Image) -> Tensor:
    """[h, w, 3] in 0..1."""
    pixels = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(picture.height, picture.width, 3).float() / 255
