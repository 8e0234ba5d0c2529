"""Which vector library a search should stand on: the same vectors and questions for each, one core.

    pip install usearch voyager faiss-cpu lancedb     # those to be compared; what is not installed is left out
    python -m recipes.search.libraries --count 100000

Vectors of 768 numbers are drawn around the real tokens that `recipes.search.evaluate embed` wrote: turned into 768 dimensions, with
a spread around each whose spectrum falls as that of embeddings does. Questions are drawn the same way and are not in the table.
Prints Markdown: seconds to build, bytes on disk, seconds to open it again and for the first answer, milliseconds an answer, memory,
and recall at 10, the share of the exact ten nearest that are found. Every library runs in a process of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recipes.common.arguments import parser
from recipes.search.vectors import WIDTH, draw, exact, memory

K = 10
QUESTIONS = 200
LISTS = 4  # times the root of the number of vectors: parts of an inverted file


class Exact:
    """No index: every vector, by numpy in float32, a slice at a time."""

    name = "exact, numpy"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        np.save(folder / "vectors.npy", vectors)

    def open(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        return lambda question: exact(vectors, question[None], K)[0]


class USearchExact:
    """Every vector, by usearch's kernels on the numbers as they are on disk."""

    name = "exact, usearch kernels, float16"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        np.save(folder / "vectors.npy", vectors)

    def open(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        from usearch.index import search

        vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        return lambda question: search(vectors, question.astype(np.float16), K, "ip", exact=True, threads=1).keys


class USearch:
    """A graph (HNSW), mapped from disk."""

    def __init__(self, dtype: str, search: int):
        self.dtype, self.search = dtype, search
        self.name = f"usearch HNSW, {dtype}, ef {search}"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        from usearch.index import Index

        index = Index(ndim=WIDTH, metric="ip", dtype=self.dtype)
        for first in range(0, len(vectors), 10_000):
            some = vectors[first : first + 10_000]
            index.add(np.arange(first, first + len(some)), some, threads=1)
        index.save(str(folder / "index.usearch"))

    def open(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        from usearch.index import Index

        index = Index.restore(str(folder / "index.usearch"), view=True)
        index.expansion_search = self.search
        return lambda question: index.search(question.astype(np.float16), K, threads=1).keys


class Voyager:
    """Spotify's HNSW."""

    name = "voyager HNSW, E4M3"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        import voyager

        index = voyager.Index(voyager.Space.InnerProduct, WIDTH, storage_data_type=voyager.StorageDataType.Float8)
        for first in range(0, len(vectors), 10_000):
            index.add_items(vectors[first : first + 10_000].astype(np.float32), num_threads=1)
        index.save(str(folder / "index.voy"))

    def open(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        import voyager

        index = voyager.Index.load(str(folder / "index.voy"))
        return lambda question: index.query(question, k=K, num_threads=1, query_ef=100)[0]


class Faiss:
    """An inverted file."""

    def __init__(self, kind: str, probes: int):
        self.kind, self.probes = kind, probes
        self.name = f"faiss IVF, {kind}, {probes} parts searched"

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        lists = int(LISTS * len(vectors) ** 0.5)
        index = faiss.index_factory(WIDTH, f"IVF{lists},{self.kind}", faiss.METRIC_INNER_PRODUCT)
        train = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 40 * lists), replace=False)
        index.train(vectors[np.sort(train)].astype(np.float32))
        for first in range(0, len(vectors), 10_000):
            index.add(vectors[first : first + 10_000].astype(np.float32))
        faiss.write_index(index, str(folder / "index.faiss"))

    def open(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP)
        index.nprobe = self.probes
        return lambda question: index.search(question[None].astype(np.float32), K)[1][0]


class LanceDB:
    """A table of its own with an index, both on disk."""

    def __init__(self, kind: str, **options: int):
        self.kind, self.options = kind, options
        self.name = f"lancedb {kind}" + "".join(f", {name} {value}" for name, value in options.items())

    def build(self, vectors: np.ndarray, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float16(), WIDTH))])

        def batches():
            for first in range(0, len(vectors), 10_000):
                some = np.ascontiguousarray(vectors[first : first + 10_000])
                flat = pa.FixedSizeListArray.from_arrays(pa.array(some.reshape(-1)), WIDTH)
                yield pa.record_batch([pa.array(np.arange(first, first + len(some))), flat], schema=schema)

        table = lancedb.connect(folder).create_table("regions", batches(), schema=schema)
        table.create_index(metric="dot", vector_column_name="vector", index_type=self.kind)

    def open(self, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
        import lancedb

        table = lancedb.connect(folder).open_table("regions")

        def answer(question: np.ndarray) -> np.ndarray:
            query = table.search(question.astype(np.float32)).select(["row"]).limit(K)
            for name, value in self.options.items():
                query = getattr(query, name)(value)
            return query.to_arrow()["row"].to_numpy()

        return answer


WAYS = [
    Exact(), USearchExact(), USearch("f16", 64), USearch("i8", 64), USearch("i8", 256), Voyager(), Faiss("SQ8", 32),
    Faiss("SQfp16", 32), LanceDB("IVF_PQ", nprobes=32, refine_factor=10), LanceDB("IVF_HNSW_SQ", nprobes=32, refine_factor=5),
]  # fmt: skip


def build(number: int, folder: Path, count: int) -> None:
    vectors = np.load(folder / "all.npy", mmap_mode="r")[:count]
    start = time.perf_counter()
    WAYS[number].build(vectors, folder / "built")
    size = sum(path.stat().st_size for path in (folder / "built").rglob("*") if path.is_file())
    print(json.dumps({"build": time.perf_counter() - start, "bytes": size, "build memory": memory()}))


def ask(number: int, folder: Path) -> None:
    questions, right = np.load(folder / "questions.npy"), np.load(folder / "right.npy")
    before = memory()
    start = time.perf_counter()
    answer = WAYS[number].open(folder / "built")
    answer(questions[0])
    first = time.perf_counter() - start
    times, hits = [], 0
    for question, nearest in zip(questions, right, strict=True):
        start = time.perf_counter()
        found = answer(question)
        times.append(time.perf_counter() - start)
        hits += len(np.intersect1d(found.astype(np.int64), nearest))
    told = {"first": first, "answer": float(np.median(times)), "recall": hits / right.size, "memory": memory() - before}
    print(json.dumps(told))


def compare(count: int, only: list[str] | None) -> None:
    print("| library | build | on disk | first answer | an answer | memory | recall at 10 |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        np.save(folder / "all.npy", draw(count, seed=1))
        np.save(folder / "questions.npy", draw(QUESTIONS, seed=2))
        right = exact(np.load(folder / "all.npy", mmap_mode="r"), np.load(folder / "questions.npy"), K)
        np.save(folder / "right.npy", right)
        for number, way in enumerate(WAYS):
            if only and not any(word in way.name for word in only):
                continue
            (folder / "built").mkdir()
            told = {}
            for stage in ("build", "ask"):
                command = [sys.executable, "-m", __spec__.name, "--stage", stage, str(number), base, "--count", str(count)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"| {way.name} | {done.stderr.strip().splitlines()[-1]} |", flush=True)
                    break
                told |= json.loads(done.stdout.splitlines()[-1])
            else:
                cells = [
                    f"{told['build']:.1f} s", f"{told['bytes'] / 1e6:.0f} MB", f"{told['first']:.2f} s",
                    f"{1000 * told['answer']:.1f} ms", f"{told['memory'] / 1e6:.0f} MB", f"{told['recall']:.3f}",
                ]  # fmt: skip
                print(f"| {way.name} | {' | '.join(cells)} |", flush=True)
            shutil.rmtree(folder / "built")


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--only", nargs="+", help="libraries whose names have one of these words")
    options.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.stage is None:
        compare(args.count, args.only)
    elif args.stage[0] == "build":
        build(int(args.stage[1]), Path(args.stage[2]), args.count)
    else:
        ask(int(args.stage[1]), Path(args.stage[2]))


if __name__ == "__main__":
    main()
