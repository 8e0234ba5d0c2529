"""The tokens of a table, and which of them are nearest to others.

Every token is compared, which is exact, needs no waiting for an index, and takes any choice of rows. Of large tables a copy in
half precision is kept in the user's cache folder and mapped from there; for those of millions there is a graph (HNSW, by usearch),
when it is asked for: see docs/search.md for what both cost. Nothing in the table's own folder is written, and nothing that came
with it is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError, first_line
from ..files import cache_folder, written_whole
from ..packages import installed, require
from ..pictures import warn
from .table import RegionTable

IN_MEMORY = 50_000  # rows up to which nothing is kept on disk
AT_ONCE = 512  # rows at a time, whose numbers stay in the processor's cache
QUESTIONS = 256  # questions at a time
GRAPH = {"metric": "ip", "dtype": "i8", "expansion_add": 64}
CANDIDATES = 8  # times as many as asked for are taken from the graph, whose numbers are coarse, and compared in full
NARROW = 0.05  # share of the rows below which those chosen are all compared, graph or not
ADDED_AT_ONCE = 4096
USE = "a graph of many regions"
Progress = Callable[[int, int], None]  # (rows done, of how many); it may raise to stop


class UnitTokens:
    """units [N, D]: the tokens of a table's rows, each of length 1, in float32, or in float16 on disk. graph: of them, if any."""

    def __init__(self, units: np.ndarray, graph: Any = None):
        self.units = units
        self.graph = graph

    def __len__(self) -> int:
        return len(self.units)

    @property
    def width(self) -> int:
        return self.units.shape[1]

    def take(self, rows: np.ndarray) -> Tensor:
        """[R, D] in float32."""
        return torch.from_numpy(self.units[rows]).float()

    @settled()
    def nearest(
        self, questions: Tensor, k: int, among: np.ndarray | None = None, progress: Progress | None = None
    ) -> tuple[Tensor, Tensor]:
        """The rows [Q, k] whose tokens are nearest to questions [Q, D], nearest first, and their cosines [Q, k].

        among: the rows to choose from, ascending; None is all. Where there are fewer than k, so are the columns.
        progress: (questions done, of how many). Raises InputError for questions of another width.
        """
        if questions.shape[1] != self.width:
            raise InputError(f"what is searched for has {questions.shape[1]} numbers, and the tokens of the table {self.width}")
        units = F.normalize(questions.detach().cpu().float(), dim=1)
        k = min(k, len(self) if among is None else len(among))
        if k == 0:
            return torch.empty(len(units), 0, dtype=torch.long), torch.empty(len(units), 0)
        share = 1.0 if among is None else len(among) / len(self)
        found = []
        for some in units.split(QUESTIONS):
            if self.graph is None or share < NARROW:
                found.append(self._compared(some, k, among))
            else:
                found.append(self._by_graph(some, k, among, share))
            if progress is not None:
                progress(sum(len(rows) for rows, _ in found), len(units))
        rows, scores = (torch.cat(part) for part in zip(*found, strict=True))
        return rows, scores

    def _compared(self, units: Tensor, k: int, among: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """As `nearest`, by comparing all."""
        total = len(self) if among is None else len(among)
        scores = torch.empty(len(units), total)
        for first in range(0, total, AT_ONCE):
            last = min(first + AT_ONCE, total)
            part = self.units[first:last] if among is None else self.units[among[first:last]]
            torch.mm(units, torch.from_numpy(part).float().T, out=scores[:, first:last])
        best, places = scores.topk(k, dim=1)
        return (places if among is None else torch.from_numpy(among)[places]), best

    def _by_graph(self, units: Tensor, k: int, among: np.ndarray | None, share: float) -> tuple[Tensor, Tensor]:
        """As `nearest`, of what the graph gives; where that is not enough, by comparing all."""
        wanted = min(len(self), int(CANDIDATES * k / share))
        self.graph.expansion_search = max(2 * wanted, 64)
        matches = self.graph.search(units.numpy(), wanted, threads=torch.get_num_threads())
        rows, scores = [], []
        for number, unit in enumerate(units):
            found = (matches if len(units) == 1 else matches[number]).keys.astype(np.int64)
            if among is not None:
                found = found[np.isin(found, among)]
            if len(found) < k:
                some_rows, some_scores = (part[0] for part in self._compared(unit[None], k, among))
            else:
                found = np.sort(found)
                some_scores, places = (self.take(found) @ unit).topk(k)
                some_rows = torch.from_numpy(found)[places]
            rows.append(some_rows)
            scores.append(some_scores)
        return torch.stack(rows), torch.stack(scores)


def unit_tokens(table: RegionTable, graph: bool = False, progress: Progress | None = None) -> UnitTokens:
    """The tokens of a table, ready to be compared, with their graph where there is one, or `graph` says that there shall be one.

    Raises InputError for a table without rows or with tokens that have no direction, PackageError where a graph is asked for and
    usearch is missing.
    """
    rows = len(table)
    if not rows:
        raise InputError(f"there is no region in {table.folder}: add some first")
    kept = kept_at(table)
    if rows <= IN_MEMORY and not graph:
        return UnitTokens(np.concatenate(list(units_of(table))))
    if kept is None:
        units = np.concatenate([part for _, part in halves(table)])
    else:
        units = opened(kept.with_suffix(".npy"), (rows, table.made.width))
        if units is None:
            units = keep(table, kept.with_suffix(".npy"), rows, progress)
    path = None if kept is None else kept.with_suffix(".usearch")
    made = None if path is None else opened_graph(path, units.shape)
    if made is None and graph:
        made = make_graph(units, path, progress)
    return UnitTokens(units, made)


def units_of(table: RegionTable) -> Iterator[np.ndarray]:
    """The tokens of a table's rows in their order, each divided by its length: [n, D] in float32, some at a time."""
    for batch in table.batches(["token"]):
        tokens = batch.column(0).flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(batch), -1)
        lengths = np.linalg.norm(tokens, axis=1, keepdims=True)
        if not ((lengths > 0) & np.isfinite(lengths)).all():
            raise InputError(f"{table.folder} has a token without a direction: its numbers are zero, NaN or infinite")
        yield tokens / lengths


def kept_at(table: RegionTable) -> Path | None:
    """Where the copy of a table is kept, without the suffix: another name for every state of its files."""
    folder = cache_folder()
    if folder is None:
        return None
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in table.parts()]
    state = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
    return folder / "search" / f"{named(table)}-{state}"


def named(table: RegionTable) -> str:
    return hashlib.sha256(os.fsencode(table.folder.resolve())).hexdigest()[:16]


def opened(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The array of a file, mapped; None where there is none, or it is another one."""
    try:
        found = np.load(path, mmap_mode="c", allow_pickle=False)  # never written, but PyTorch warns of what cannot be
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.float16 else None


def keep(table: RegionTable, path: Path, rows: int, progress: Progress | None) -> np.ndarray:
    """The unit tokens in float16, on disk where they can be; what was kept of the table before is deleted."""
    header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": (rows, table.made.width)}
    try:
        with written_whole(path) as partial, partial.open("wb") as file:  # not mapped: a full disk would end the process
            np.lib.format.write_array_header_1_0(file, header)
            for done, part in halves(table):
                file.write(part.tobytes())
                if progress is not None:
                    progress(done, rows)
        for old in path.parent.glob(f"{named(table)}-*"):
            if old.stem != path.stem:
                with suppress(OSError):  # another process may have it mapped
                    old.unlink()
        found = opened(path, (rows, table.made.width))
        if found is not None:
            return found
    except (OSError, InputError) as error:
        if isinstance(error, InputError) and not isinstance(error.__cause__, OSError):
            raise
        warn(f"the tokens of {table.folder} are read at every start: no copy can be kept in {path.parent} ({first_line(error)})")
    return np.concatenate([part for _, part in halves(table)])


def halves(table: RegionTable) -> Iterator[tuple[int, np.ndarray]]:
    """As `units_of` in float16, each with how many there are up to its end."""
    done = 0
    for part in units_of(table):
        done += len(part)
        yield done, part.astype(np.float16)


def opened_graph(path: Path, shape: tuple[int, int]) -> Any:
    """The graph in a file, mapped; None where there is none, it is another one, or usearch is missing."""
    if not path.is_file() or installed("usearch") is None:
        return None
    try:
        found = require("usearch.index", USE).Index.restore(str(path), view=True)
    except (ValueError, RuntimeError):  # a file that is not whole
        return None
    return found if found is not None and (len(found), found.ndim) == shape else None


def make_graph(units: np.ndarray, path: Path | None, progress: Progress | None) -> Any:
    """The graph of units [N, D], kept in the file `path`, if any. It takes minutes for a million."""
    made = require("usearch.index", USE).Index(ndim=units.shape[1], **GRAPH)
    for first in range(0, len(units), ADDED_AT_ONCE):
        some = np.asarray(units[first : first + ADDED_AT_ONCE], np.float32)
        made.add(np.arange(first, first + len(some), dtype=np.uint64), some, threads=torch.get_num_threads())
        if progress is not None:
            progress(first + len(some), len(units))
    if path is not None:
        with written_whole(path) as partial:
            made.save(str(partial))
    return made
