"""The sweep, and what it writes: bench.json, bench.md, bench.png."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import InputError

METHODS = ("forward", "exact", "fast", "explicit_decomposition", "shared_autograd", "reference")
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Settings:
    """What to measure. reference: the folder where the published package is installed (tests/reference/compare.py makes it)."""

    model: str = "ViT-B-16"
    size: int = 224
    masks: tuple[int, ...] = (1, 5, 10, 100)
    iterations: int = 10
    layers: int = 1
    lr: float = 0.1
    repeats: int = 3
    methods: tuple[str, ...] = METHODS
    reference: Path | None = None
    slow_masks: int = 10  # the most masks that the baselines by autograd are measured with


def measure(settings: Settings, method: str, masks: int) -> dict | None:
    """Seconds and bytes of one method, in a process of its own; None when it failed."""
    if method in ("reference", "shared_autograd") and masks > settings.slow_masks:
        return None
    case = {
        "method": method, "masks": masks, "model": settings.model, "size": settings.size, "iterations": settings.iterations,
        "layers": settings.layers, "lr": settings.lr, "repeats": settings.repeats, "threads": torch.get_num_threads(),
    }  # fmt: skip
    environment = dict(os.environ)
    command = [sys.executable, "-m", "maskinversion.bench.worker"]
    if method == "reference":
        environment["PYTHONPATH"] = str(settings.reference)
        environment["MPLBACKEND"] = "Agg"
        command = [sys.executable, "-P", str(WORKER)] if sys.version_info >= (3, 11) else [sys.executable, str(WORKER)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.json"
        path.write_text(json.dumps(case), encoding="utf-8")
        done = subprocess.run([*command, str(path)], env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{method}, {masks} masks: failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return case | json.loads(done.stdout.strip().splitlines()[-1])


def sweep(settings: Settings) -> list[dict]:
    """Every method at every number of masks, one after the other. Raises InputError for settings that cannot be measured."""
    methods = [method for method in settings.methods if method != "reference" or settings.reference is not None]
    if settings.layers != 1:
        methods = [method for method in methods if method in ("forward", "exact", "fast", "reference")]
    unknown = set(methods) - set(METHODS)
    if unknown:
        raise InputError(f"there is no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    if settings.reference is not None and not (settings.reference / "legrad").is_dir():
        raise InputError(
            f"{settings.reference} has no published package: run `python tests/reference/compare.py`, which installs it"
        )
    rows = []
    for masks in settings.masks:
        for method in methods:
            row = measure(settings, method, masks)
            if row is not None:
                rows.append(row)
                print(f"{masks:4d} masks  {method:24s} {row['seconds']:8.3f} s", flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown: how many encoder passes each method takes, and its memory, by number of masks."""
    found = {(row["method"], row["masks"]): row for row in rows}
    counts = sorted({row["masks"] for row in rows})
    methods = [method for method in METHODS if any(key[0] == method for key in found)]
    first = rows[0]
    lines = [
        f"{first['model']}, {first['size']} px, {first['iterations']} steps, {first['layers']} layer(s), "
        f"{first['threads']} threads, {platform.machine()}, torch {torch.__version__}. Whole job, encoding included.",
        "",
        "| encoder passes (memory beyond the model) | " + " | ".join(f"{count} masks" for count in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for method in methods:
        cells = []
        for count in counts:
            row, floor = found.get((method, count)), found.get(("forward", count))
            memory = "" if row is None or row["bytes"] is None else f" ({row['bytes'] / 2**20:.0f} MB)"
            cells.append("" if row is None or floor is None else f"{row['seconds'] / floor['seconds']:.2f}{memory}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    for ours in ("exact", "fast"):
        cells = [
            f"{found['reference', count]['seconds'] / found[ours, count]['seconds']:.1f}x"
            if ("reference", count) in found and (ours, count) in found
            else ""
            for count in counts
        ]
        if any(cells):
            lines.append(f"| *{ours}: times faster than the reference* | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict], path: Path) -> None:
    """Time against the number of masks, both logarithmic. Raises InputError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("the plot needs matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for method in METHODS:
        points = [(row["masks"], row["seconds"]) for row in rows if row["method"] == method]
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=method.replace("_", " "))
    axes.set(xlabel="masks", ylabel="seconds", title=f"{rows[0]['model']} at {rows[0]['size']} px, {rows[0]['iterations']} steps")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def run(settings: Settings, out: Path) -> None:
    rows = sweep(settings)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (out / "bench.md").write_text(table(rows), encoding="utf-8")
    print(table(rows), end="")
    plot(rows, out / "bench.png")
    print(out / "bench.md", out / "bench.png", sep="\n")
