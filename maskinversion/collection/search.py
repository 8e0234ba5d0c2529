"""Searching a table of regions: those nearest to tokens, phrases or other regions, of all or of some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cached_property
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..inverter import MaskInverter
from ..models.clip import Clip
from ..operations import embeddings_of
from ..pictures import as_pixels
from ..settings import InversionSettings
from ..tasks.phrases import CLASS_TEMPLATE
from ..tasks.texts import text_embeddings
from ..tokens import Sets, sets_of
from .neighbours import Progress, UnitTokens, unit_tokens
from .table import Made, RegionTable

if TYPE_CHECKING:
    import pyarrow as pa

ABOUT = ("id", "picture", "annotation", "label", "box", "width", "height", "area", "iou", "loss")  # of a row; not its vectors


@dataclass(frozen=True)
class Only:
    """Which regions are looked at; what is None, or empty, leaves nothing out.

    pictures: a pattern such as "holiday/*.jpg", of which * also takes folders. labels: any of these. area: from and to, the share
    of the picture, 0..1, both included. Raises InputError for an area that is none.
    """

    pictures: str | None = None
    labels: Sequence[str] = ()
    area: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        if not 0 <= self.area[0] <= self.area[1] <= 1:
            raise InputError(
                f"the area is from {self.area[0]:g} to {self.area[1]:g}; give shares of the picture, such as from 0.01 to 0.5"
            )


@dataclass(frozen=True)
class Question:
    """What is searched for. name: to show. unit [D]. row: where it is a region of the table itself. picture, mask: where it is a
    region of some picture, [h, w, 3] and [h, w] in 0..1."""

    name: str
    unit: Tensor
    row: int | None = None
    picture: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Region:
    """A row of the table, without its token. score: its cosine with what was searched for."""

    row: int
    score: float
    about: dict[str, Any]

    @property
    def picture(self) -> str:
        return self.about["picture"]

    def to_dict(self) -> dict[str, Any]:
        """What JSON can say of it."""
        return {"score": round(self.score, 4), **self.about}


class RegionSearch:
    """A table that is searched again and again: what is needed of it is read once.

    graph: whether a graph of the tokens shall be made where there is none, see `neighbours`.
    """

    def __init__(self, table: RegionTable, graph: bool = False, progress: Progress | None = None):
        self.table = table
        self.tokens: UnitTokens = unit_tokens(table, graph, progress)
        self.rows: pa.Table = table.read(ABOUT)
        if len(self.rows) != len(self.tokens):
            raise InputError(f"{table.folder} is being written to: search it when that is done")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.rows["id"].to_pylist())}

    def of_tokens(self, tokens: Sets, name: str = "region") -> list[Question]:
        """Raises InputError for tokens of another CLIP than the table's, naming both."""
        for one in sets_of(tokens):
            self._check(one.fingerprint, one.model, "the tokens were made")
        units = embeddings_of(tokens).cpu().float()
        return [Question(f"{name} {number}" if len(units) > 1 else name, unit) for number, unit in enumerate(units)]

    def of_phrases(self, phrases: Sequence[str], clip: Clip, template: str | Sequence[str] = CLASS_TEMPLATE) -> list[Question]:
        """Raises InputError for another CLIP than the table's, naming both, and for phrases or a template that cannot be read."""
        self._check(clip.fingerprint, clip.name, "the phrases would be read")
        phrases = [phrase.strip() for phrase in phrases if phrase.strip()]
        units = text_embeddings(clip, phrases, [template] if isinstance(template, str) else template).cpu()
        return [Question(phrase, unit) for phrase, unit in zip(phrases, units, strict=True)]

    def of_picture(
        self, image: object, masks: Sequence[Tensor], clip: Clip, names: Sequence[str] | None = None
    ) -> list[Question]:
        """Regions of any accepted picture, of masks [h, w]: their tokens are made as those of the table were.

        Raises InputError for another CLIP than the table's, naming both.
        """
        self._check(clip.fingerprint, clip.name, "the region would be read")
        picture = as_pixels(image)[0].permute(1, 2, 0)
        inverter = MaskInverter(clip, settings_of(self.table.made, clip))
        units = inverter.invert(inverter.encode(picture), masks).embeddings.cpu().float()
        names = names or [f"region {number}" for number in range(len(units))]
        return [Question(name, unit, None, picture, mask) for name, unit, mask in zip(names, units, masks, strict=True)]

    def of_regions(self, ids: Sequence[str]) -> list[Question]:
        """Regions of the table itself. Raises InputError for an id that it has not."""
        for name in ids:
            if name not in self._row_of:
                raise InputError(f"there is no region with the id {shown(name)} in {self.table.folder}: a search prints them")
        rows = np.array([self._row_of[name] for name in ids], np.int64)
        units = self.tokens.take(rows)
        return [Question(name, unit, int(row)) for name, unit, row in zip(ids, units, rows, strict=True)]

    def of_table(self, other: RegionSearch) -> list[Question]:
        """The regions of another table. Raises InputError for one of another CLIP, naming both."""
        made = other.table.made
        self._check(made.fingerprint, made.model, f"{other.table.folder} was made")
        abouts = other.rows.select(["picture", "annotation"]).to_pylist()
        names = [f"{about['picture']} {about['annotation']}" for about in abouts]
        return [Question(name, unit) for name, unit in zip(names, other.tokens.take(np.arange(len(other))), strict=True)]

    def _check(self, fingerprint: str, model: str, what: str) -> None:
        made = self.table.made
        if fingerprint != made.fingerprint:
            raise InputError(
                f"{what} with {model}, and the tokens of {self.table.folder} with {made.model}: embeddings of different CLIPs "
                f"cannot be compared. Use {made.model} for both"
            )

    def chosen(self, only: Only | None) -> np.ndarray | None:
        """The rows [R] that these are, ascending; None is all."""
        if only is None or only == Only():
            return None
        kept = np.ones(len(self), bool)
        if only.pictures is not None:
            pictures = self.rows["picture"].to_pylist()
            fits = {name: fnmatchcase(name, only.pictures) for name in set(pictures)}
            kept &= np.array([fits[name] for name in pictures], bool)
        if only.labels:
            wanted = set(only.labels)
            kept &= np.array([label in wanted for label in self.rows["label"].to_pylist()], bool)
        if only.area != (0.0, 1.0):
            area = self.rows["area"].to_numpy()
            kept &= (area >= np.float32(only.area[0])) & (area <= np.float32(only.area[1]))
        return np.flatnonzero(kept)

    def nearest(
        self, questions: Sequence[Question], k: int = 10, only: Only | None = None, progress: Progress | None = None
    ) -> list[list[Region]]:
        """For each question, the k nearest regions, nearest first. A region of the table is not its own neighbour.

        progress: (questions done, of how many). Raises InputError where there is no question, and where `only` leaves nothing.
        """
        if not questions:
            raise InputError("there is nothing to search for: give a token, a phrase or a region")
        if k < 1:
            raise InputError(f"the number of regions to find is {k}; it must be at least 1")
        among = self.chosen(only)
        if among is not None and not len(among):
            raise InputError(f"no region of {self.table.folder} is left to search: {self._why(only)}")
        own = any(question.row is not None for question in questions)
        units = torch.stack([question.unit for question in questions])
        rows, scores = self.tokens.nearest(units, k + own, among, progress)
        found = []
        for question, its_rows, its_scores in zip(questions, rows.tolist(), scores.tolist(), strict=True):
            pairs = [(row, score) for row, score in zip(its_rows, its_scores, strict=True) if row != question.row][:k]
            found.append(self.regions([row for row, _ in pairs], [score for _, score in pairs]))
        return found

    def regions(self, rows: Sequence[int], scores: Sequence[float]) -> list[Region]:
        abouts = self.rows.take(np.asarray(rows, np.int64)).to_pylist()
        return [Region(int(row), float(score), about) for row, score, about in zip(rows, scores, abouts, strict=True)]

    def masks(self, rows: Sequence[int]) -> dict[int, bytes | None]:
        """The PNG of each row's mask, read from the table when it is wanted."""
        wanted = sorted(set(rows))
        found = self.table.take(wanted, "mask") if wanted else []
        return dict(zip(wanted, found, strict=True))

    def _why(self, only: Only | None) -> str:
        labels = sorted({label for label in self.rows["label"].to_pylist() if label is not None})
        if only is not None and only.labels and not set(only.labels) & set(labels):
            there = "its labels are " + shown(", ".join(labels)) if labels else "its regions have no labels"
            return f"none has the label {shown(', '.join(only.labels))}, and {there}"
        return "choose other pictures, labels or areas"


def settings_of(made: Made, clip: Clip) -> InversionSettings:
    """What the tokens of a table were made with, for more of the same CLIP."""
    known = {field.name for field in fields(InversionSettings)}
    given = {name: value for name, value in made.settings.items() if name in known}
    size = given.pop("image_size", None)
    if isinstance(size, list | tuple):
        size = None if tuple(size) == tuple(clip.tower.image_size) else size[0]
    return InversionSettings(**given, image_size=size)
