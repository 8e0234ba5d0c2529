"""What the pack adds to the start of a ComfyUI, with and without it in turn: seconds until its server answers, seconds
of a processor until it has described every node, which a busy machine hardly changes, and megabytes then.

    python -m tests.helpers.comfyui_start [TIMES]
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil  # ComfyUI's own

from tools.comfyui_server import ROOT, Server


def start(packs: list[Path]) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = time.perf_counter()
        with Server(Path(folder) / "base", packs=packs) as server:
            seconds = time.perf_counter() - started
            server.get("/object_info")
            process = psutil.Process(server.process.pid)
            return seconds, sum(process.cpu_times()[:2]), process.memory_info().rss / 2**20


def main(times: int) -> None:
    found = {"without": [], "with": []}
    for _ in range(times):
        found["without"].append(start([]))
        found["with"].append(start([ROOT]))
    for name, measured in found.items():
        seconds, busy, megabytes = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name} the pack: {seconds:.1f} s, {busy:.1f} s of a processor, {megabytes:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
