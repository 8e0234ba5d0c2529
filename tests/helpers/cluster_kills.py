"""A table of regions whose makers are killed again and again, against that of one process, row for row.

    python -m tests.helpers.cluster_kills --coco JSON --pictures FOLDER --out FOLDER [what `maskinversion embed` takes]

A cluster of Ray with two nodes on this machine; a worker is killed, and the program that drives it twice, at given shares of the
work; each time the same command is started again. Linux only: it looks for the workers in /proc.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from maskinversion.collection.table import RegionTable

ROOT = Path(__file__).parents[2]
DRIVER, WORKER = "the driver", "a worker"
KILLS = ((0.1, DRIVER), (0.3, WORKER), (0.6, DRIVER))  # from which share of the parts on, and who


def embed(arguments: list[str], out: Path, *more: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "maskinversion", "embed", *arguments, "--out", str(out), "--threads", "1", *more]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    printed, _ = process.communicate(timeout=3000)
    assert not process.returncode, printed
    return printed


def workers_of(raylets: set[int]) -> list[int]:
    """The processes of these nodes that hold a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            name, parent = (path / "cmdline").read_bytes(), (path / "stat").read_text().rpartition(")")[2].split()[1]
            if name.startswith(b"ray::MapWorker") and int(parent) in raylets:
                found.append(int(path.name))
    return found


def parts(out: Path) -> int:
    return len(list((out / "regions").glob("*.parquet")))


def make_with_kills(arguments: list[str], out: Path, expected: int, kills: tuple = KILLS) -> list[str]:
    """The table by two nodes with a worker each. expected: parts that there will be. Returns what happened."""
    from ray.cluster_utils import Cluster

    happened = []
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        raylets = {process.process.pid for node in cluster.list_all_nodes() for process in node.all_processes["raylet"]}
        driver = embed(arguments, out, "--address", cluster.address, "--workers", "2")
        for share, victim in kills:
            while parts(out) < share * expected or (victim == WORKER and not workers_of(raylets)):
                assert driver.poll() is None, f"it ended before {victim} was killed:\n{driver.communicate()[0]}"
                time.sleep(0.05)
            there = parts(out)
            if victim == WORKER:
                os.kill(workers_of(raylets)[0], signal.SIGKILL)
            else:
                driver.kill()
                driver.communicate()
                driver = embed(arguments, out, "--address", cluster.address, "--workers", "2")
            happened.append(f"{victim} was killed when {there} of {expected} parts were there")
        happened.append(finish(driver))
    finally:
        cluster.shutdown()
    return happened


def compare(one: Path, other: Path) -> int:
    """The rows of two tables, which are the same."""
    a, b = (RegionTable.open(folder) for folder in (one, other))
    rows, others = a.read(), b.read()
    ids = rows["id"].to_pylist()
    assert len(set(ids)) == len(ids), "a region is there twice"
    assert ids == others["id"].to_pylist(), "the regions are not the same"
    for name in rows.schema.names:
        assert rows[name].equals(others[name]), f"{name} is not the same"
    assert pa.Table.equals(a.read_rejects(), b.read_rejects()), "the rejects are not the same"
    return len(ids)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--coco", required=True)
    options.add_argument("--pictures", required=True)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--part", type=int, default=16)
    args, more = options.parse_known_args()
    arguments = ["--coco", args.coco, "--pictures", args.pictures, "--part", str(args.part), *more]
    begin = time.monotonic()
    print(finish(embed(arguments, args.out / "one-process")))
    single = time.monotonic() - begin
    expected = parts(args.out / "one-process")
    begin = time.monotonic()
    happened = make_with_kills(arguments, args.out / "killed", expected)
    print(*happened, sep="\n")
    rows = compare(args.out / "one-process", args.out / "killed")
    print(json.dumps({"rows": rows, "equal": True, "one process, s": single, "with kills, s": time.monotonic() - begin}))


if __name__ == "__main__":
    main()
