"""Labels drawn on the regions of a picture."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..errors import InputError
from .fonts import Letters, chosen, pieces
from .overlay import around, outline, outline_width

# Okabe and Ito's, told apart with any kind of colour vision ("Color Universal Design", 2008).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
TINT = 0.25
MARGIN = 4  # pixels around a text
SMALLEST = 8  # pixels of a font
LONGEST = 1000  # letters of a label
CUT = "..."

Box = tuple[float, float, float, float]  # left, top, right, bottom


def draw_labels(image: Tensor, masks: Tensor | Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """Tint every region in a colour of its own, and write its label on it, in as many lines as it takes to keep it in the picture.

    image [h, w, 3] in 0..1; masks, M of [h, w] in 0..1; M labels, of which an empty one is not written, and one that is too long
    for the whole picture is cut. Returns [h, w, 3] in 0..1. Warns of letters that no font here has. Raises InputError when the
    sizes or numbers differ.
    """
    for mask in masks:
        if mask.shape != image.shape[:2]:
            raise InputError(f"a mask is {tuple(mask.shape)}, the image {tuple(image.shape[:2])}: they must be the same size")
    if len(labels) != len(masks):
        raise InputError(f"there are {len(masks)} masks and {len(labels)} labels: give one label, on its own line, for each mask")
    painted = image.to("cpu", torch.float32, copy=True)
    middles = [tint(painted, mask.float().cpu(), torch.tensor(colour_of(index)) / 255) for index, mask in enumerate(masks)]
    picture = Image.fromarray(painted.clamp_(0, 1).mul_(255).round_().byte().numpy())
    pen = ImageDraw.Draw(picture)
    taken: list[Box] = []
    for index, (middle, label) in enumerate(zip(middles, labels, strict=True)):
        text = fitted(label, picture.size)
        if middle is not None and text is not None:
            box = place(text.width + 2 * MARGIN, text.height + 2 * MARGIN, middle[0], middle[1], picture.size, taken)
            taken.append(box)
            pen.rectangle(box, colour_of(index))
            text.write(pen, box)
    return torch.from_numpy(np.array(picture)).float().div_(255)


def colour_of(index: int) -> tuple[int, int, int]:
    return COLOURS[index % len(COLOURS)]


def tint(painted: Tensor, mask: Tensor, colour: Tensor) -> tuple[float, float] | None:
    """Tints a picture [h, w, 3] in place, where a mask [h, w] is; returns the middle (x, y) of it, None of an empty one."""
    width = outline_width(mask)
    part = around(mask != 0, width)
    if part is None:
        return None
    mask = mask[part]
    painted[part].lerp_(colour, outline(mask, width).add_(mask, alpha=TINT).clamp_(max=1)[..., None])
    solid = mask >= 0.5 * mask.max()
    across, down = (solid.sum(dim) for dim in (0, 1))
    total = across.sum()
    x, y = (float((count * torch.arange(len(count))).sum() / total) for count in (across, down))
    return part[1].start + x, part[0].start + y


@dataclass(frozen=True)
class Text:
    """Lines of a label in the fonts that have their letters. size: of these, in pixels."""

    lines: tuple[str, ...]
    letters: Letters
    size: int

    def length(self, line: str) -> float:
        return sum(font.getlength(piece) for piece, font in pieces(line, self.letters, self.size))

    @property
    def width(self) -> float:
        return max((self.length(line) for line in self.lines), default=0)

    @property
    def rise(self) -> int:
        """From the top of a line to where its letters stand."""
        return max(font.getmetrics()[0] for line in self.lines for _, font in pieces(line, self.letters, self.size))

    @property
    def line_height(self) -> int:
        return self.rise + max(font.getmetrics()[1] for line in self.lines for _, font in pieces(line, self.letters, self.size))

    @property
    def height(self) -> int:
        return self.line_height * len(self.lines)

    def write(self, pen: ImageDraw.ImageDraw, box: Box) -> None:
        for number, line in enumerate(self.lines):
            x = (box[0] + box[2] - self.length(line)) / 2
            y = box[1] + MARGIN + self.rise + number * self.line_height
            for piece, font in pieces(line, self.letters, self.size):
                pen.text((x, y), piece, "black", font, anchor="ls")
                x += font.getlength(piece)


def fitted(label: str, size: tuple[int, int]) -> Text | None:
    """A label in lines that fit into a picture of `size` (width, height), in as large a font as can be; only its beginning, where
    all of it does not fit. None where there is nothing to write, or no room for it."""
    words, letters = chosen(label if len(label) <= LONGEST else label[:LONGEST] + CUT)
    if not words:
        return None
    width, height = (side - 2 * MARGIN for side in size)
    pixels = max(10, min(size) // 22)
    while True:
        text = Text((words,), letters, pixels)
        lines = [words] if text.length(words) <= width else wrapped(words, width, text.length)
        text = Text(tuple(lines), letters, pixels)
        if text.width <= width and text.height <= height:
            return text
        if pixels <= SMALLEST:
            break
        pixels = max(SMALLEST, pixels * 7 // 8)
    fit = int(height // text.line_height)
    if fit < 1 or text.length(CUT) > width:
        return None
    kept, last = lines[: fit - 1], lines[fit - 1]
    while last and text.length(last + CUT) > width:
        last = last[:-1]
    return Text((*kept, last.rstrip() + CUT), letters, pixels)


def wrapped(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """The text in lines of at most `width`, broken after blanks and beside Chinese and Japanese letters, else anywhere."""
    spaced = "".join(f"\0{letter}\0" if east_asian_width(letter) in "WF" else letter for letter in text)
    units = [unit for unit in re.split(r"\0+|(?<= )", spaced) if unit]
    lines = [""]
    for unit in units:
        if length((lines[-1] + unit).rstrip()) <= width:
            lines[-1] += unit
        elif length(unit.rstrip()) <= width:
            lines.append(unit)
        else:
            for letter in unit:
                if lines[-1] and length((lines[-1] + letter).rstrip()) > width:
                    lines.append("")
                lines[-1] += letter
    return [line.strip() for line in lines if line.strip()]


def place(width: float, height: float, x: float, y: float, size: tuple[int, int], taken: list[Box]) -> Box:
    """The box of a label about (x, y), inside the picture of `size` (width, height), and below the labels already there."""
    left = min(max(x - width / 2, 0), max(size[0] - width, 0))
    top = min(max(y - height / 2, 0), max(size[1] - height, 0))
    for other in sorted(taken, key=lambda box: box[1]):
        if left < other[2] and other[0] < left + width and top < other[3] and other[1] < top + height:
            top = other[3] + 1
    if top + height > size[1]:
        top = max(size[1] - height, 0)
    return left, top, left + width, top + height
