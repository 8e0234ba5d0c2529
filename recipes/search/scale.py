"""What a search among a million regions costs: time, memory, and whether it finds what comparing everything in float32 finds.

    python -m recipes.search.scale draw       # vectors of 768 numbers, and questions, to recipes/build/search-scale
    python -m recipes.search.scale graph      # adds to their graph for --minutes, and goes on where it was; again until it is whole
    python -m recipes.search.scale measure    # prints JSON

Vectors are drawn around real tokens, see `recipes.search.vectors`. Seconds are the processor's own, of one thread, which other work
on the machine does not change; memory is what the process holds more than before, pages of mapped files among it.
"""

import argparse
import json
import time

import numpy as np
import torch

from maskinversion.collection.neighbours import ADDED_AT_ONCE, GRAPH, UnitTokens
from recipes.common.arguments import parser, run_stage
from recipes.common.paths import BUILD
from recipes.search.vectors import WIDTH, draw, exact, memory

FOLDER = BUILD / "search-scale"
VECTORS, GRAPH_FILE = FOLDER / "vectors.npy", FOLDER / "graph.usearch"
TIMES = FOLDER / "graph.json"
QUESTIONS = 100
DEPTHS = (10, 100)
SHARES = (0.5, 0.1, 0.01)


def make(args: argparse.Namespace) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in (GRAPH_FILE, TIMES):
        path.unlink(missing_ok=True)
    np.save(VECTORS, draw(args.count, seed=1))
    np.save(FOLDER / "questions.npy", draw(QUESTIONS, seed=2))
    questions = np.load(FOLDER / "questions.npy")
    np.save(FOLDER / "right.npy", exact(np.load(VECTORS, mmap_mode="c"), questions, max(DEPTHS)))


def build(args: argparse.Namespace) -> None:
    from usearch.index import Index

    units = np.load(VECTORS, mmap_mode="c")
    index = Index.restore(str(GRAPH_FILE)) if GRAPH_FILE.is_file() else Index(ndim=WIDTH, **GRAPH)
    assert index is not None
    spent = json.loads(TIMES.read_text()) if TIMES.is_file() else {"seconds": 0.0}
    start, before = time.perf_counter(), time.process_time()
    while len(index) < len(units) and time.perf_counter() - start < 60 * args.minutes:
        first = len(index)
        some = np.asarray(units[first : first + ADDED_AT_ONCE], np.float32)
        index.add(np.arange(first, first + len(some), dtype=np.uint64), some, threads=1)
    spent["seconds"] += time.process_time() - before
    spent["memory"] = memory()
    index.save(str(GRAPH_FILE))
    TIMES.write_text(json.dumps(spent))
    print(f"{len(index)} of {len(units)}, {spent}", flush=True)


def measure(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    questions, right = torch.from_numpy(np.load(FOLDER / "questions.npy")).float(), np.load(FOLDER / "right.npy")
    units = np.load(VECTORS, mmap_mode="c")
    report: dict = {"vectors": len(units), "bytes on disk": VECTORS.stat().st_size}
    before = memory()
    ways = {"compared": UnitTokens(units)}
    report["compared"] = asked(ways["compared"], questions[: args.questions], right)
    report["compared"]["memory"] = memory() - before
    start = time.process_time()
    ways["compared"].nearest(questions, 10)
    report["compared"]["seconds each of 100 together"] = (time.process_time() - start) / len(questions)
    if GRAPH_FILE.is_file():
        from usearch.index import Index

        before = memory()
        index = Index.restore(str(GRAPH_FILE), view=True)
        assert index is not None
        if len(index) < len(units):  # not whole yet: measured among what it has
            units = units[: len(index)]
            right = exact(units, questions.numpy(), max(DEPTHS))
        report["graph"] = {"vectors": len(index), "bytes on disk": GRAPH_FILE.stat().st_size, **json.loads(TIMES.read_text())}
        ways["graph"] = UnitTokens(units, index)
        report["graph"] |= asked(ways["graph"], questions, right)
        report["graph"]["memory"] = memory() - before
        for share in SHARES:
            among = np.flatnonzero(np.random.default_rng(0).random(len(units)) < share)
            expected = UnitTokens(units).nearest(questions[:10], 10, among)[0].numpy()
            start = time.process_time()
            rows = ways["graph"].nearest(questions[:10], 10, among)[0].numpy()
            seconds = (time.process_time() - start) / 10
            report["graph"][f"among {share:g}"] = {"seconds": seconds, "recall": recall(rows, expected)}
    print(json.dumps(report, indent=1))
    (BUILD / "search-scale.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def asked(tokens: UnitTokens, questions: torch.Tensor, right: np.ndarray) -> dict:
    """Of questions one by one: the median of their seconds, and the share of the right rows that are found."""
    tokens.nearest(questions[:1], 10)  # pages are read once
    told = {}
    for depth in DEPTHS:
        times, found = [], []
        for question in questions:
            start = time.process_time()
            found.append(tokens.nearest(question[None], depth)[0][0].numpy())
            times.append(time.process_time() - start)
        told[f"top {depth}"] = {"seconds": float(np.median(times)), "recall": recall(np.stack(found), right[: len(found), :depth])}
    return told


def recall(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, right, strict=True)]))


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--count", type=int, default=1_000_000)
    options.add_argument("--minutes", type=float, default=7.0, help="of the clock, for one run of graph (default: %(default)s)")
    options.add_argument("--questions", type=int, default=20, help="that are compared with everything (default: %(default)s)")
    run_stage(options, {"draw": make, "graph": build, "measure": measure})


if __name__ == "__main__":
    main()
