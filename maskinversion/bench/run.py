"""The sweep, and what it writes: bench.json, bench.md, bench.png and, for several numbers of steps, steps.png.

`check` measures again what a bench.json says, and complains about what has become slower.
"""

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..drawing.plots import pyplot
from ..errors import InputError, MaskInversionError
from ..files import written_whole

METHODS = ("forward", "exact", "fast", "patches", "cutout", "both", "explicit_decomposition", "shared_autograd", "reference")
LAST_LAYER_ONLY = ("explicit_decomposition", "shared_autograd")
SETTING = ("model", "size", "layers", "iterations")
TOLERANCE = 1.2
WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Settings:
    """What to measure: every combination. reference: the folder where the published package is installed
    (tests/reference/compare.py makes it)."""

    model: tuple[str, ...] = ("ViT-B-16",)
    size: tuple[int, ...] = (224,)
    masks: tuple[int, ...] = (1, 5, 10, 100)
    iterations: tuple[int, ...] = (10,)
    layers: tuple[int, ...] = (1,)
    lr: float = 0.1
    repeats: int = 3
    methods: tuple[str, ...] = METHODS
    reference: Path | None = None
    slow_masks: int = 10  # the most masks that the baselines by autograd are measured with
    device: str = "cpu"

    def __post_init__(self):
        for what in ("size", "masks", "iterations", "layers"):
            if wrong := [value for value in getattr(self, what) if value < 1]:
                raise InputError(f"{what} is {wrong[0]}; it must be at least 1")
        if self.repeats < 1:
            raise InputError(f"repeats is {self.repeats}; it must be at least 1")


class SlowerError(MaskInversionError):
    """Something takes longer than it did."""


def measure(case: dict, reference: Path | None) -> dict | None:
    """Seconds and bytes of one case, in a process of its own; None when it failed."""
    environment = dict(os.environ)
    command = [sys.executable, "-m", "maskinversion.bench.worker"]
    if case["method"] == "reference":
        environment["PYTHONPATH"] = str(reference)
        environment["MPLBACKEND"] = "Agg"
        command = [sys.executable, "-P", str(WORKER)] if sys.version_info >= (3, 11) else [sys.executable, str(WORKER)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.json"
        path.write_text(json.dumps(case), encoding="utf-8")
        done = subprocess.run([*command, str(path)], env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{described(case)}: failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return case | json.loads(done.stdout.strip().splitlines()[-1])


def described(case: dict) -> str:
    return (
        f"{case['model']} {case['size']} px, {case['layers']} layer(s), {case['iterations']:3d} steps, {case['masks']:4d} masks  "
        f"{case['method']:24s}"
    )


def cases(settings: Settings) -> list[dict]:
    """Every case of a sweep. Raises InputError for settings that cannot be measured, ModelError for a model that is not known."""
    import torch

    from ..models.loading import check_architecture

    for model in settings.model:
        check_architecture(model)
    unknown = set(settings.methods) - set(METHODS)
    if unknown:
        raise InputError(f"there is no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    if settings.reference is not None and not (settings.reference / "legrad").is_dir():
        raise InputError(
            f"{settings.reference} has no published package: run `python tests/reference/compare.py`, which installs it"
        )
    found = []
    for model, size, layers, iterations, masks, method in itertools.product(
        settings.model, settings.size, settings.layers, settings.iterations, settings.masks, settings.methods
    ):
        slow = method in ("reference", "shared_autograd") and masks > settings.slow_masks
        if slow or (method == "reference" and settings.reference is None) or (method in LAST_LAYER_ONLY and layers != 1):
            continue
        found.append(
            {
                "method": method, "masks": masks, "model": model, "size": size, "iterations": iterations, "layers": layers,
                "lr": settings.lr, "repeats": settings.repeats, "threads": torch.get_num_threads(), "device": settings.device,
            }
        )  # fmt: skip
    return found


def sweep(settings: Settings, rows: list[dict], measured: Callable[[list[dict]], None]) -> list[dict]:
    """All cases, one after the other, after the `rows` that there are; `measured` is told after each what there is so far."""
    for case in cases(settings):
        row = measure(case, settings.reference)
        if row is not None:
            rows.append(row)
            print(f"{described(row)} {row['seconds']:8.3f} s {passes(row):8.2f} encoder passes", flush=True)
            measured(rows)
    return rows


def groups(rows: list[dict], *names: str) -> dict[tuple, list[dict]]:
    """Rows that have these in common, in the order in which they come."""
    found: dict[tuple, list[dict]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def passes(row: dict) -> float:
    """How many encoder passes it takes, measured in turns in one process."""
    return row["seconds"] / row["floor"]


def tables(rows: list[dict]) -> str:
    """Markdown: a table for every model, size, number of layers and number of steps."""
    import torch

    head = f"{rows[0]['threads']} threads, {platform.machine()}, torch {torch.__version__}. Whole job, encoding included.\n"
    return "\n".join([head, *(table(some) for some in groups(rows, *SETTING).values())])


def table(rows: list[dict]) -> str:
    """Markdown: how many encoder passes each method takes, and its memory, by number of masks.

    Each method's passes are those of its own process: "times faster" compares passes, not seconds of different minutes.
    """
    found = {(row["method"], row["masks"]): row for row in rows}
    counts = sorted({row["masks"] for row in rows})
    methods = [method for method in METHODS if any(key[0] == method for key in found)]
    first = rows[0]
    heads = [f"{count} masks" if count > 1 else "1 mask" for count in counts]
    lines = [
        f"**{first['model']}, {first['size']} px, {first['iterations']} steps, {first['layers']} layer(s)**",
        "",
        f"| encoder passes (memory beyond the model) | {' | '.join(heads)} |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for method in methods:
        cells = []
        for count in counts:
            row = found.get((method, count))
            memory = "" if row is None or row["bytes"] is None else f" ({row['bytes'] / 2**20:.0f} MB)"
            cells.append("" if row is None else f"{passes(row):.2f}{memory}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
        if method == "exact":
            counted = [found[method, count].get("predicted") if (method, count) in found else None for count in counts]
            lines.append(f"| *predicted by counting* | {' | '.join('' if p is None else f'{p:.2f}' for p in counted)} |")
        if method == "fast":
            cosines = [found[method, count].get("cosines") if (method, count) in found else None for count in counts]
            cells = ["" if c is None else f"{min(c):.5f} ({sum(x >= 0.999 for x in c)} of {len(c)})" for c in cosines]
            lines.append(f"| *its tokens' smallest cosine to exact (from 0.999 on)* | {' | '.join(cells)} |")
    for baseline, ours in itertools.product(("reference", "shared_autograd", "explicit_decomposition"), ("exact", "fast")):
        cells = [
            f"{passes(found[baseline, count]) / passes(found[ours, count]):.1f}x"
            if (baseline, count) in found and (ours, count) in found
            else ""
            for count in counts
        ]
        if any(cells):
            lines.append(f"| *{ours}: times faster than {baseline.replace('_', ' ')}* | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict], path: Path) -> None:
    """Time against the number of masks, both logarithmic; a panel for every setting, without those of one number of masks only."""
    settings = groups(rows, *SETTING)
    panels = {key: some for key, some in settings.items() if len({row["masks"] for row in some}) > 1} or settings
    columns = min(3, len(panels))
    down = -(-len(panels) // columns)
    figure, axes = pyplot().subplots(down, columns, figsize=(2 + 5 * columns, 4.5 * down), layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, some in zip(axes.flat, panels.values()):
        for index, method in enumerate(METHODS):
            points = sorted((row["masks"], row["seconds"]) for row in some if row["method"] == method)
            if points:
                axis.loglog(*zip(*points, strict=True), marker="o", color=f"C{index}", label=method.replace("_", " "))
        title = f"{some[0]['model']} at {some[0]['size']} px, {some[0]['iterations']} steps, {some[0]['layers']} layer(s)"
        axis.set(xlabel="masks", ylabel="seconds", title=title)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=120)
    pyplot().close(figure)


def plot_steps(rows: list[dict], path: Path) -> None:
    """The paper's figure: by how many seconds the decomposition is quicker than autograd, against the number of steps."""
    figure, axis = pyplot().subplots(figsize=(7, 4.5), layout="constrained")
    for (model, size, layers, masks), some in groups(rows, "model", "size", "layers", "masks").items():
        for baseline in ("reference", "shared_autograd"):
            seconds = {(row["method"], row["iterations"]): row["seconds"] for row in some}
            steps = sorted(k for method, k in seconds if method == baseline and ("exact", k) in seconds)
            if len(steps) > 1:
                saved = [seconds[baseline, k] - seconds["exact", k] for k in steps]
                label = f"{masks} masks, {model} {size} px, {layers} layer(s), against {baseline.replace('_', ' ')}"
                axis.plot(steps, saved, marker="o", label=label)
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set(xlabel="steps", ylabel="seconds saved")
    axis.grid(True, alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=120)
    pyplot().close(figure)


def read(path: Path) -> list[dict]:
    """The measurements in a bench.json. Raises InputError for another file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
        groups(rows, *SETTING, "masks", "method", "seconds", "floor")  # each has these
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path} is not a bench.json ({error})") from error
    return rows


def write(rows: list[dict], out: Path) -> None:
    for name, text in (("bench.json", json.dumps(rows, indent=1) + "\n"), ("bench.md", tables(rows))):
        with written_whole(out / name) as path:
            path.write_text(text, encoding="utf-8")


def run(settings: Settings, out: Path) -> None:
    """Measure and write. A bench.json in `out` is added to: what is measured again is replaced, all methods of it together.

    Raises InputError for settings that cannot be measured, or when nothing could be.
    """
    out.mkdir(parents=True, exist_ok=True)
    wanted = groups(cases(settings), *SETTING, "masks")
    earlier = groups(read(out / "bench.json"), *SETTING, "masks") if (out / "bench.json").is_file() else {}
    kept = [row for key, some in earlier.items() if key not in wanted for row in some]
    rows = sweep(settings, list(kept), lambda so_far: write(so_far, out))
    if len(rows) == len(kept):
        raise InputError("nothing was measured: see the messages above")
    print(tables(rows), end="")
    plot(rows, out / "bench.png")
    print(out / "bench.md", out / "bench.png", sep="\n")
    if len(settings.iterations) > 1:
        plot_steps(rows, out / "steps.png")
        print(out / "steps.png")


def check(stored: Path) -> None:
    """Measure our cases of a bench.json again: how many encoder passes they take may be TOLERANCE times as many.

    Raises SlowerError where it is more, InputError for a file that is not a bench.json or has none of our cases.
    """
    rows = [row for row in read(stored) if row["method"] in ("exact", "fast")]
    if not rows:
        raise InputError(f"{stored} has nothing to compare with: measure with the methods exact and fast")
    slower = []
    for row in rows:
        now = measure(row, None)
        if now is None:
            raise InputError(f"{described(row)}: this could not be measured here; see the message above")
        words = f"{described(row)} {passes(row):6.2f} encoder passes then, {passes(now):6.2f} now"
        print(words, flush=True)
        slower += [words] if passes(now) > passes(row) * TOLERANCE else []
    if slower:
        raise SlowerError(f"more than {TOLERANCE - 1:.0%} slower than {stored} says: " + "; ".join(slower))
