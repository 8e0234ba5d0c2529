"""What lists of pictures, and workers of Ray, cost beside a plain loop: seconds of processor, alternately in one run.

    python -m tests.helpers.collection_speed lists --clip bundled ViT-B-32/random ViT-B-16/random
    python -m tests.helpers.collection_speed calls --clip bundled
    python -m tests.helpers.collection_speed ray --coco JSON --pictures FOLDER --clip bundled --limit 200

Seconds of processor, not of the clock, so that other programs count as little as they can. `ray` takes the workers, and all else
that runs for them, from the first part that is done to the last, so that loading the model does not count. Linux only, one thread.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import maskinversion as mi
from maskinversion.collection.cluster import make_all, start
from maskinversion.collection.run import parts_of
from maskinversion.collection.sources import CocoInstances
from maskinversion.collection.table import RegionTable
from maskinversion.collection.worker import Job, Part, Worker
from maskinversion.settings import PRESETS, InversionSettings

TICKS = os.sysconf("SC_CLK_TCK")
MASKS = 3  # of a picture


def spent(function) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def compare(one, other, rounds: int) -> dict[str, float]:
    """Seconds of each, and how many times as long the first takes: medians of rounds, which alternate."""
    one(), other()
    pairs = [(spent(one), spent(other)) for _ in range(rounds)]
    return {"first": median(a for a, _ in pairs), "second": median(b for _, b in pairs), "ratio": median(a / b for a, b in pairs)}


def lists(args: argparse.Namespace) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, count in product(args.clip, args.masks):
        inverter = mi.MaskInverter(mi.load_clip(name, device="cpu"), **PRESETS["published"])
        height, width = inverter.image_size
        pictures = [inverter.see(torch.rand(height, width, 3, generator=generator)) for _ in range(args.together)]
        masks = torch.zeros(count, height, width)
        for mask in masks:
            top, left = (int(torch.randint(side // 2, (1,), generator=generator)) for side in (height, width))
            mask[top : top + height // 3, left : left + width // 3] = 1
        found = {
            "encode": compare(
                lambda: [inverter.encode(one) for one in pictures],  # noqa: B023
                lambda: inverter.encode(pictures),  # noqa: B023
                args.rounds,
            ),
            "encode and invert": compare(
                lambda: [inverter.invert(inverter.encode(one), masks) for one in pictures],  # noqa: B023
                lambda: inverter.invert(inverter.encode(pictures), [masks] * len(pictures)),  # noqa: B023
                args.rounds,
            ),
        }
        alone = [inverter.invert(inverter.encode(one), masks).embeddings for one in pictures]
        several = [one.embeddings for one in inverter.invert(inverter.encode(pictures), [masks] * len(pictures))]
        apart = max(float(((a - b).norm(dim=1) / a.norm(dim=1)).max()) for a, b in zip(alone, several))
        at_once = inverter.pictures_at_once(inverter.image_size)
        print(f"{name}, {count} masks a picture; pictures a second of one core, and times as fast as one by one:")
        for what, one in found.items():
            rates = (args.together / one[way] for way in ("first", "second"))
            print("  {}: {:.2f} one by one, {:.2f} as a list, {:.2f} times".format(what, *rates, one["ratio"]))
        print(f"  a list of {len(pictures)}, {at_once} at a time; tokens differ by {apart:.1e} of their length", flush=True)


class Counted(TorchDispatchMode):
    """Counts the operations of PyTorch within it, but for views of what is there."""

    calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.calls += not function.is_view
        return function(*args, **(kwargs or {}))


def calls(args: argparse.Namespace) -> None:
    """Operations a picture of several that go together, as many as on a GPU."""
    generator = torch.Generator().manual_seed(0)
    for name in args.clip:
        inverter = mi.MaskInverter(mi.load_clip(name, device="cpu"), **PRESETS["published"])
        height, width = inverter.image_size
        masks = torch.zeros(MASKS, height, width)
        masks[:, height // 4 : height // 2, width // 4 : width // 2] = 1
        inverter.encode(torch.rand(height, width, 3, generator=generator))
        for count in (1, 8, 32):
            pictures = [inverter.see(torch.rand(height, width, 3, generator=generator)) for _ in range(count)]
            with patch.multiple("maskinversion.inverter", ROWS=10**6, pictures_at_once=lambda *_: count):  # noqa: B023
                with Counted() as encoding:
                    encoded = inverter.encode(pictures)
                with Counted() as inverting:
                    inverter.invert_seen(encoded, [masks] * count)
            each = {"encode": encoding.calls / count, "invert": inverting.calls / count}
            print(f"{name}, {count} pictures of {MASKS} masks together, operations a picture: {each}", flush=True)


def processor_seconds(root: int) -> tuple[float, float]:
    """Of the workers, and of a process and all else that it started, as far as they live."""
    times, parents, workers = {}, {}, set()
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            times[int(path.name)] = (int(fields[11]) + int(fields[12])) / TICKS
            parents[int(path.name)] = int(fields[1])
            if (path / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                workers.add(int(path.name))
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    own = sum(times[process] for process in family & workers)
    return own, sum(times.get(process, 0) for process in family) - own


def by_ray(job: Job, table: RegionTable, parts: list[Part], workers: int) -> tuple[float, float, float]:
    """Of a picture: seconds of processor of the workers, and of all else that runs for them, and seconds of the clock."""
    sizes = {f"{part.name}.parquet": len(part.items) for part in parts}
    marks, ended = [], Event()

    def watch() -> None:  # the driver hears of a part later than it is there
        while not ended.wait(0.02):
            there = sum(sizes[path.name] for path in table.parts())
            if there and (not marks or there > marks[-1][2]):
                marks.append((*processor_seconds(os.getpid()), there, time.monotonic()))

    watcher = Thread(target=watch)
    watcher.start()
    make_all(job, table, parts, workers, None, lambda counts: None)
    ended.set()
    watcher.join()
    first, last = marks[0], marks[-1]
    pictures = last[2] - first[2]
    return (last[0] - first[0]) / pictures, (last[1] - first[1]) / pictures, (last[3] - first[3]) / pictures


def ray(args: argparse.Namespace) -> None:
    import ray as library

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    source = CocoInstances(args.coco, args.pictures)
    items = list(source.items())[: args.limit]
    start(library, None, args.workers)
    for name in args.clip:
        settings = InversionSettings(**PRESETS["published"])
        job = Job(Path(), name, settings=settings, part=args.part, together=args.together, threads=1, device="cpu")
        worker = Worker(job)

        def plain() -> None:
            for item in items:
                picture = item.open()
                masks = [found.mask for found in item.masks((picture.height, picture.width))]
                worker.inverter.invert(worker.inverter.encode(picture), masks)  # noqa: B023

        plain()
        rounds: dict[str, list[float]] = defaultdict(list)
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as folder:
                own, other = (RegionTable.create(Path(folder) / kind, worker.made, source.describe()) for kind in ("own", "ray"))
                parts = list(parts_of(items, own, job.part))
                before = spent(plain) / len(items)
                mine = spent(lambda: [worker.make(own, part) for part in parts]) / len(items)  # noqa: B023
                between = spent(plain) / len(items)
                by_worker, by_rest, clock = by_ray(replace(job, out=other.folder), other, parts, args.workers)
                loop = (before + between) / 2
                later = (between + spent(plain) / len(items)) / 2
            measured = {"plain loop": later, "embed": mine, "worker of Ray": by_worker, "rest of Ray": by_rest, "clock": clock}
            measured |= {"by embed": loop / mine, "by a worker": later / by_worker, "by all": later / (by_worker + by_rest)}
            for what, value in measured.items():
                rounds[what].append(value)
            print(name, {what: round(value, 4) for what, value in measured.items()}, flush=True)
        print(f"{name}, seconds a picture, and throughput a core as shares of the plain loop's, medians of {args.rounds} rounds:")
        print({what: round(median(values), 3) for what, values in rounds.items()}, flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = options.add_subparsers(required=True)
    for function in (lists, calls, ray):
        kind = kinds.add_parser(function.__name__)
        kind.set_defaults(run=function)
        kind.add_argument("--clip", nargs="+", default=["bundled"])
        kind.add_argument("--together", type=int, default=16)
        kind.add_argument("--rounds", type=int, default=5)
        kind.add_argument("--masks", type=int, nargs="+", default=[MASKS], help="of a picture, for lists")
        kind.add_argument("--coco")
        kind.add_argument("--pictures")
        kind.add_argument("--limit", type=int, default=200)
        kind.add_argument("--part", type=int, default=16)
        kind.add_argument("--workers", type=int, default=1)
    args = options.parse_args()
    torch.set_num_threads(1)
    args.run(args)


if __name__ == "__main__":
    main()
