"""What lists of pictures, and workers of Ray, cost beside a plain loop: seconds of processor, alternately in one run.

    python -m tests.helpers.collection_speed lists --clip bundled ViT-B-32/random ViT-B-16/random
    python -m tests.helpers.collection_speed ray --coco JSON --pictures FOLDER --clip bundled --limit 200

Seconds of processor, not of the clock, so that other programs do not count. `ray` takes all processes of the cluster together, from
the first part that is done to the last, so that loading the model does not count. Linux only, and one thread.
"""

import argparse
import json
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from threading import Event, Thread

import torch

import maskinversion as mi
from maskinversion.collection.cluster import make_all
from maskinversion.collection.run import parts_of
from maskinversion.collection.sources import CocoInstances
from maskinversion.collection.table import RegionTable
from maskinversion.collection.worker import Job, Worker
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
    for name in args.clip:
        inverter = mi.MaskInverter(mi.load_clip(name, device="cpu"), **PRESETS["published"])
        height, width = inverter.image_size
        pictures = [inverter.see(torch.rand(height, width, 3, generator=generator)) for _ in range(args.together)]
        masks = torch.zeros(MASKS, height, width)
        for index in range(MASKS):
            masks[index, index * height // 4 : (index + 1) * height // 3, width // 4 : width // 2] = 1
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
        print(name, json.dumps({what: {k: round(v, 4) for k, v in one.items()} for what, one in found.items()}))
        print(f"  one by one / as a list of {len(pictures)}, {at_once} at a time; tokens differ by {apart:.1e} of their length")


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


def ray(args: argparse.Namespace) -> None:
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    settings = InversionSettings(**PRESETS["published"])
    source = CocoInstances(args.coco, args.pictures)
    items = list(source.items())[: args.limit]
    for name in args.clip:
        with tempfile.TemporaryDirectory() as folder:
            job = Job(Path(folder) / "ray", name, settings=settings, part=args.part, threads=1, device="cpu")
            worker = Worker(job)
            table = RegionTable.create(job.out, worker.made, source.describe())
            parts = list(parts_of(items, table, job.part))

            def plain() -> None:
                for item in items:
                    picture = item.open()
                    masks = [found.mask for found in item.masks((picture.height, picture.width))]
                    worker.inverter.invert(worker.inverter.encode(picture), masks)  # noqa: B023

            plain()
            before = spent(plain) / len(items)
            own = RegionTable.create(Path(folder) / "own", worker.made, source.describe())
            mine = spent(lambda: [worker.make(own, part) for part in parts]) / len(items)  # noqa: B023
            marks, ended = [], Event()

            def watch() -> None:  # the driver hears of a part later than it is there
                while not ended.wait(0.02):  # noqa: B023
                    there = len(table.parts())  # noqa: B023
                    if there and (not marks or there > marks[-1][2]):  # noqa: B023
                        marks.append((*processor_seconds(os.getpid()), there, time.monotonic()))  # noqa: B023

            watcher = Thread(target=watch)
            watcher.start()
            make_all(job, table, parts, args.workers, None, lambda counts: None)
            ended.set()
            watcher.join()
            pictures = (marks[-1][2] - marks[0][2]) * args.part
            by_worker, by_rest = ((marks[-1][place] - marks[0][place]) / pictures for place in (0, 1))
            clock = (marks[-1][3] - marks[0][3]) / pictures
            after = spent(plain) / len(items)
        loop = (before + after) / 2
        found = {"plain loop": loop, "embed": mine, "a worker of Ray": by_worker, "the rest of Ray": by_rest}
        print(name, {what: f"{1000 * value:.1f} ms of processor a picture" for what, value in found.items()})
        print(f"  throughput a core, of the plain loop's: embed {loop / mine:.3f}, a worker of Ray {loop / by_worker:.3f}")
        print(f"  {clock:.3f} s a picture by the clock, of which the rest of Ray takes {by_rest / clock:.1%} of a core")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = options.add_subparsers(required=True)
    for function in (lists, ray):
        kind = kinds.add_parser(function.__name__)
        kind.set_defaults(run=function)
        kind.add_argument("--clip", nargs="+", default=["bundled"])
        kind.add_argument("--together", type=int, default=8)
        kind.add_argument("--rounds", type=int, default=5)
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
