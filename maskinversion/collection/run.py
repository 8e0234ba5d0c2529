"""A whole table: its pictures in parts, made by one process, or by those of `cluster`, and what was done, in words."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from tqdm import tqdm

from ..errors import InputError, encodable
from ..lock import locked
from .cluster import make_all
from .sources.base import Item, Source
from .table import RegionTable, Reject, described
from .worker import Counts, Job, Part, Worker

FIRST = 100  # pictures that are looked for before anything is done
SHOWN = 10  # rejects that are printed
LINES_APART = 30  # seconds between lines of progress in a file


def run(
    job: Job, source: Source, workers: int = 1, address: str | None = None, moved: bool = False, retry: bool = False
) -> RegionTable:
    """Makes a table, or goes on with one that was made with the same, and prints what was done.

    workers: 1 is this process; more, or an address, are processes of Ray, see `cluster`; with an address, 0 is as many as the
    cluster has room for. moved: the pictures are those of the table, in a new place. retry: parts with rejects are made again.

    Raises InputError for a table made with something else, for a source without any picture, and where a disk is full. What was
    finished then is kept, and the same again goes on.
    """
    with locked(job.out):
        worker = Worker(job)
        description = source.describe() | ({} if job.segmenter is None else {"segmenter": asdict(job.segmenter)})
        items, rejects = listed_once(source)
        table = RegionTable.create(job.out, worker.made, description, moved)
        if retry:
            table.forget_rejected()
        table.write_source_rejects(rejects)
        parts = list(parts_of(items, table, job.part))
        there = len(items) - sum(len(part.items) for part in parts)
        begin, done = time.monotonic(), Counts()
        often = 0.2 if sys.stderr.isatty() else LINES_APART
        with tqdm(total=len(items), initial=there, unit="picture", desc=str(job.out), mininterval=often) as bar:

            def told(counts: Counts) -> None:
                nonlocal done
                done += counts
                bar.update(counts.pictures)
                bar.set_postfix(regions=done.regions, rejects=done.rejects, refresh=False)

            if workers == 1 and address is None:
                for part in parts:
                    worker.make(table, part, told)
            elif parts:
                del worker  # of which every process has its own
                make_all(job, table, parts, workers, address, told)
        summarise(table, done, time.monotonic() - begin, there)
    return table


def listed_once(source: Source) -> tuple[list[Item], list[Reject]]:
    """The pictures of a source, and what is wrong with it before any is opened.

    Raises InputError where there is none, or where of the first FIRST not one is there, as where a disk is not mounted.
    """
    items: dict[str, Item] = {}
    rejects = []
    for one in source.items():
        if isinstance(one, Reject):
            rejects.append(one)
        elif one.picture in items:
            rejects.append(Reject(one.picture, None, f"the picture {one.picture} is there twice: the first one is taken"))
        else:
            items[one.picture] = one
    if not items:
        raise InputError(f"there is no picture with a region: {rejects[0].reason if rejects else described(source.describe())}")
    first = list(items.values())[:FIRST]
    if not any(item.is_there() for item in first):
        raise InputError(f"none of the first {len(first)} pictures is there, such as {first[0].picture}: is the folder right?")
    return list(items.values()), rejects


def parts_of(items: Sequence[Item], table: RegionTable, size: int) -> Iterator[Part]:
    """What of a table is not done yet, in the order of the pictures.

    A part is named by its number and all of its pictures, done or not: so it has the same name, and the same rows, in whatever run
    and process it is made. Pictures that are done in a part of another name, as when some were added before them, are left out.
    """
    finished, done = table.finished(), table.pictures()
    for number, first in enumerate(range(0, len(items), size)):
        some = items[first : first + size]
        keys = "\0".join(item.picture for item in some).encode("utf-8", "backslashreplace")
        name = f"{number:07d}-{hashlib.sha256(keys).hexdigest()[:12]}"
        todo = tuple(item for item in some if encodable(item.picture) not in done)
        if todo and name not in finished:
            yield Part(name, todo)


def summarise(table: RegionTable, done: Counts, seconds: float, there: int) -> None:
    rate = f", {done.regions / seconds:.1f} regions a second" if done.regions and seconds > 0 else ""
    before = f", {there} were done before" if there else ""
    print(f"{table.folder}: {done.pictures} pictures in {seconds:.0f} s{rate}{before}")
    reasons = Counter(table.read_rejects()["picture"].to_pylist())
    print(f"{len(table)} regions in {len(table.parts())} parts, {size_of(table) / 1e6:.1f} MB; tokens of {table.made.model}")
    if reasons:
        print(f"{reasons.total()} rejects, of {len(reasons)} pictures; which, and why, is in {table.rejects}:")
        for reject in table.read_rejects().slice(0, SHOWN).to_pylist():
            where = f", {reject['annotation']}" if reject["annotation"] else ""
            print(f"  {reject['picture']}{where}: {reject['reason']}")
        if reasons.total() > SHOWN:
            print(f"  ... and {reasons.total() - SHOWN} more")


def size_of(table: RegionTable) -> int:
    return sum(path.stat().st_size for path in table.parts())
