"""Runs a worker for each reader, and starts it anew where an input ends it."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = (
    "tokens", "picture", "mask", "labels", "pickle", "refs", "coco", "lvis", "panoptic", "phrasecut", "phrases", "json",
    "captioner", "captioner-pt", "clip", "clip-pt", "clip-folder", "decoder", "adapter", "adapter-pt",
    "collection", "shard", "rows", "part", "manifest",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Give damaged files to every reader.")
    parser.add_argument("--minutes", type=float, default=8, help="for all readers together")
    parser.add_argument("--reader", choices=NAMES, action="append", help="may be repeated (default: all)")
    parser.add_argument("--inputs", type=int, default=10**9, help="for each reader, at most")
    parser.add_argument("--finds", type=Path, default=Path(tempfile.gettempdir()) / "maskinversion-finds")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.finds.mkdir(parents=True, exist_ok=True)
    names = args.reader or NAMES
    total = 0
    for name in names:
        total += fuzz(name, args.minutes * 60 / len(names), args)
    finds = sorted(path.name for path in args.finds.iterdir())
    print(f"{total} inputs, {len(finds)} finds in {args.finds}", *finds, sep="\n  ")
    return bool(finds)


def fuzz(name: str, seconds: float, args: argparse.Namespace) -> int:
    """How many inputs a reader was given in so many seconds."""
    end, done, seed = time.monotonic() + seconds, 0, args.seed
    while (left := end - time.monotonic()) > 1 and done < args.inputs:
        with tempfile.TemporaryDirectory() as scratch:
            worker = [sys.executable, "-m", "tests.fuzz.worker", name, scratch, str(args.finds.resolve())]
            limits = [str(int(left)), str(args.inputs - done), str(seed)]
            code = subprocess.run([*worker, *limits], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
            counted = Path(scratch, "count.json")
            found = json.loads(counted.read_text()) if counted.exists() else 0
            current = Path(scratch, "current")
            if code and current.exists():
                (args.finds / f"{name}-ended-{code}-{seed}").write_bytes(current.read_bytes())
        done, seed = done + found, seed + 1
        if not code:
            break
        if not found:
            print(f"{name}: the worker ended with {code} before the first input")
            break
    print(f"{name}: {done} inputs", flush=True)
    return done


if __name__ == "__main__":
    sys.exit(main())
