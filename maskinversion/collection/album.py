"""What the regions of a table look like: their pictures, opened when they are shown, and where in them they are."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..pictures.files import open_picture
from .search import Region, RegionSearch
from .sources import source_of
from .table import RegionTable

OPEN = 8  # pictures that are kept


@dataclass(frozen=True)
class View:
    """A region as it can be shown. picture: RGB. mask: L, white where it is, of any size, or None for `box`.
    box: left, top, right, bottom in pixels of the picture."""

    picture: Image.Image
    mask: Image.Image | None
    box: tuple[float, float, float, float]

    def full_mask(self) -> Tensor:
        """[h, w] in 0..1, of the picture's size; the box, where there is no mask."""
        width, height = self.picture.size
        if self.mask is not None:
            return torch.from_numpy(np.array(self.mask.resize((width, height), Image.Resampling.BILINEAR))).float().div_(255)
        found = torch.zeros(height, width)
        left, top, right, bottom = self.box
        found[round(top) : max(round(bottom), round(top) + 1), round(left) : max(round(right), round(left) + 1)] = 1
        return found

    def pixels(self) -> Tensor:
        """[h, w, 3] in 0..1."""
        return torch.from_numpy(np.array(self.picture)).float().div_(255)


class Album:
    """Opens the pictures of a table. folder: where they are now, and nothing outside of it is opened; None is where the table says.

    problems: of those that could not be opened, by their names, why; whoever shows a view asks for it and goes on.
    """

    def __init__(self, table: RegionTable, folder: Path | None = None):
        self.table = table
        self.folder = folder
        self.problems: dict[str, str] = {}
        self._open: OrderedDict[str, Image.Image] = OrderedDict()

    def picture(self, name: str) -> Image.Image | None:
        """In RGB; None where it cannot be opened."""
        if name in self.problems:
            return None
        found = self._open.pop(name, None)
        if found is None:
            try:
                found = opened(self.table, name, self.folder).convert("RGB")
            except InputError as error:
                self.problems[name] = str(error)
                return None
        self._open[name] = found
        while len(self._open) > OPEN:
            self._open.popitem(last=False)
        return found

    def views(self, search: RegionSearch, regions: Sequence[Region]) -> Iterator[View | None]:
        """Of each region, one after the other, as each holds a whole picture; None where its picture cannot be opened."""
        masks = search.masks([region.row for region in regions])
        for region in regions:
            yield self.view(region.about, masks[region.row])

    def view(self, about: dict[str, Any], mask: bytes | None) -> View | None:
        """about: of the row. mask: its PNG."""
        picture = self.picture(about["picture"])
        if picture is None:
            return None
        across, down = (side / max(1, own) for side, own in zip(picture.size, (about["width"], about["height"]), strict=True))
        left, top, right, bottom = about["box"]
        box = (left * across, top * down, right * across, bottom * down)  # the picture may be a smaller copy by now
        try:
            read = None if mask is None else Image.open(BytesIO(mask)).convert("L")
        except (OSError, ValueError, SyntaxError):  # of a damaged table
            read = None
        return View(picture, read, box)

    def told(self) -> str | None:
        """What could not be opened, in a sentence; None where all could."""
        if not self.problems:
            return None
        first = next(iter(self.problems.values()))
        if len(self.problems) == 1:
            return f"a picture cannot be shown: {first}"
        return f"{len(self.problems)} pictures cannot be shown, and the rest is: {first}, and others"


def view_of(picture: Tensor, mask: Tensor) -> View:
    """Of a picture [h, w, 3] and a mask [h, w] of its shape, both in 0..1."""
    height, width = picture.shape[:2]
    seen = Image.fromarray(picture.mul(255).round().byte().cpu().numpy())
    region = Image.fromarray(mask.mul(255).round().byte().cpu().numpy()).resize((width, height), Image.Resampling.BILINEAR)
    box = region.point([0] * 128 + [255] * 128).getbbox() or (0, 0, width, height)
    return View(seen, region, box)


def opened(table: RegionTable, name: str, folder: Path | None) -> Image.Image:
    """A picture of a table, upright. folder: as in `Album`. Raises InputError where it cannot be opened, or is outside of it."""
    if folder is None:
        return source_of(table.source).open(name)
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputError(f"{name} is not read: it is outside of {folder}")
    return open_picture(path)
