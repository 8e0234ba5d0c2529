"""Contact sheets: a row for each question, with what was searched for first and what was found after it, outlined."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..drawing.fonts import chosen
from ..drawing.labels import Text, wrapped
from ..drawing.overlay import outline
from .album import Album, View, view_of
from .group import Group
from .search import Question, Region, RegionSearch

CELL = 192  # pixels, the side of a picture
GAP = 8
ACROSS = 11  # cells of a row
LINE = 18  # pixels, the height of a line of text
LETTERS, LARGE = 13, 20  # pixels, below a picture and in place of one
LONGEST = 120  # letters of what is searched for
CONTEXT = 0.75  # of the larger side of a region, shown on every side of it
BACKGROUND, PAPER = (255, 255, 255), (232, 232, 232)
ASKED, FOUND = (230, 159, 0), (0, 114, 178)  # outlines
NOT_THERE = "this picture cannot be opened"


@dataclass(frozen=True)
class Cell:
    """square: what is seen, a picture of CELL x CELL; or else words. lines: below it."""

    square: Image.Image | None = None
    words: str = ""
    lines: tuple[str, ...] = ()


def found_rows(
    search: RegionSearch, album: Album, questions: Sequence[Question], found: Sequence[Sequence[Region]]
) -> list[list[Cell]]:
    """A row for each question: itself, then what was found, with its cosine, its label and its picture below."""
    rows = []
    for question, regions in zip(questions, found, strict=False):
        rows.append([question_cell(search, album, question), *region_cells(search, album, regions)])
    return rows


def question_cell(search: RegionSearch, album: Album, question: Question) -> Cell:
    if question.row is not None:
        region = search.regions([question.row], [1.0])[0]
        square = squares(album.views(search, [region]), ASKED)[0]
        return Cell(square, question.name, (region.about["label"] or "", PurePosixPath(region.picture).name))
    if question.picture is not None and question.mask is not None:
        square = squares([view_of(question.picture, question.mask)], ASKED)[0]
        return Cell(square, question.name, (question.name,))
    return Cell(words=question.name)


def region_cells(search: RegionSearch, album: Album, regions: Sequence[Region]) -> list[Cell]:
    return [
        Cell(square, NOT_THERE, (f"{region.score:.3f} {region.about['label'] or ''}", PurePosixPath(region.picture).name))
        for region, square in zip(regions, squares(album.views(search, regions), FOUND), strict=True)
    ]


def squares(views: Iterable[View | None], colour: tuple[int, int, int]) -> list[Image.Image | None]:
    """What is seen of each, outlined in the colour."""
    return [None if view is None else portrait(view, CELL, colour) for view in views]


def group_rows(search: RegionSearch, album: Album, groups: Sequence[Group], shown: int) -> list[list[Cell]]:
    """A row for each group: how many there are, then the most typical of them."""
    rows = []
    for group in groups:
        first = search.tokens.take(np.array(group.rows[:1]))[0]
        rows_shown = group.rows[:shown]
        cosines = (search.tokens.take(np.array(rows_shown)) @ first).tolist()
        head = Cell(words=f"{len(group.rows)} regions, likeness {group.likeness:.2f}")
        rows.append([head, *region_cells(search, album, search.regions(rows_shown, cosines))])
    return rows


def contact_sheet(rows: Sequence[Sequence[Cell]]) -> Image.Image:
    """The cells, in rows, of which long ones are broken."""
    rows = [row[first : first + ACROSS] for row in rows for first in range(0, len(row), ACROSS)]
    lines = max((len(one.lines) for row in rows for one in row), default=0)
    across, down = max(map(len, rows)), len(rows)
    step = CELL + GAP, CELL + lines * LINE + GAP
    sheet = Image.new("RGB", (across * step[0] + GAP, down * step[1] + GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, one in enumerate(row):
            left, top = GAP + x * step[0], GAP + y * step[1]
            sheet.paste(written(one.words) if one.square is None else one.square, (left, top))
            for number, words in enumerate(one.lines):
                text = shortened(words, CELL)
                if text is not None:
                    text.write(pen, (left, top + CELL + number * LINE - 3, left + CELL, 0))
    return sheet


def written(text: str) -> Image.Image:
    """A square with a text, where there is no picture."""
    square = Image.new("RGB", (CELL, CELL), PAPER)
    words, letters = chosen(text[:LONGEST])
    length = Text((words,), letters, LARGE).length
    lines = Text(tuple(wrapped(words, CELL - 2 * GAP, length)), letters, LARGE)
    if lines.lines:
        lines.write(ImageDraw.Draw(square), (0, max(0, (CELL - lines.height) / 2 - GAP), CELL, CELL))
    return square


def portrait(view: View, size: int, colour: tuple[int, int, int] | None, context: float = CONTEXT) -> Image.Image:
    """A square around the region, which is outlined. context: of its larger side, on every side of it."""
    width, height = view.picture.size
    left, top, right, bottom = view.box
    side = max(right - left, bottom - top, 1) * (1 + 2 * context)
    x, y = (left + right) / 2, (top + bottom) / 2

    def span(middle: float, whole: int) -> tuple[float, float]:
        if side >= whole:
            return 0.0, float(whole)
        first = min(max(middle - side / 2, 0), whole - side)
        return first, first + side

    (x0, x1), (y0, y1) = span(x, width), span(y, height)
    scale = size / max(x1 - x0, y1 - y0)
    shape = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    cut = view.picture.resize(shape, Image.Resampling.LANCZOS, (x0, y0, x1, y1), reducing_gap=2.0)
    if colour is not None:
        painted = np.array(cut)
        painted[border(view, shape, (x0, y0, x1, y1))] = colour
        cut = Image.fromarray(painted)
    square = Image.new("RGB", (size, size), PAPER)
    square.paste(cut, ((size - shape[0]) // 2, (size - shape[1]) // 2))
    return square


def border(view: View, shape: tuple[int, int], part: tuple[float, float, float, float]) -> np.ndarray:
    """Where the outline of a region is [h, w], in what is shown at `shape` (width, height) of a part of its picture."""
    width = max(1, min(shape) // 80)
    if view.mask is None:
        mask = torch.zeros(shape[1], shape[0])
        (a, b), (c, d) = ((shape[i] * (view.box[i + 2 * j] - part[i]) / (part[i + 2] - part[i]) for j in (0, 1)) for i in (0, 1))
        mask[max(0, round(c)) : max(1, round(d)), max(0, round(a)) : max(1, round(b))] = 1
    else:
        across, down = (own / whole for own, whole in zip(view.mask.size, view.picture.size, strict=True))
        box = (part[0] * across, part[1] * down, part[2] * across, part[3] * down)
        mask = torch.from_numpy(np.array(view.mask.resize(shape, Image.Resampling.BILINEAR, box))).float() / 255
    return outline(mask, width).numpy() > 0


def shortened(words: str, width: int) -> Text | None:
    """One line of at most this width; its beginning, where it is longer."""
    words, letters = chosen(words[:200])
    text = Text((words,), letters, LETTERS)
    if not words or text.length(words) <= width:
        return text if words else None
    while words and text.length(words + "...") > width:
        words = words[:-1]
    return Text((words + "...",), text.letters, LETTERS) if words else None
