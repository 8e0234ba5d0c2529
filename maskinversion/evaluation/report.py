"""What came of an evaluation: report.json, report.md and report.png. Intervals are 95%, with pictures as the unit, see `wilson`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..drawing.plots import pyplot
from ..errors import PackageError
from ..files import written_whole
from .protocols import wilson

METRICS = {
    "acc1": ("Acc@1", "its class is the nearest of all the data set's"),
    "acc5": ("Acc@5", "... among the five nearest"),
    "own": ("own", "its class is the nearest of those in its picture, where there are others"),
    "phrase": ("mask to phrase", "one of its expressions is the nearest of all in its picture, where there are other regions"),
    "region": ("phrase to mask", "the region that an expression means is the nearest of those in its picture"),
    "assigned": ("one to one", "an expression and its region are put together when all are assigned one to one"),
}
SHOWN = ("start", "iterations", "lr", "lr_unit", "alpha", "layers", "loss", "precision")
LEFT_OUT = {"missing_pictures": "missing pictures", "expressions_of_nothing": "expressions that mean nothing in their picture"}
MAIN = ("acc1", "phrase")  # one hit for each region, so it can be told by what the regions are like
# Groups of regions, each by its line, from..to (to excluded), and how it is called.
GROUPS: dict[str, tuple[Callable[[dict], list], list[tuple[float, float, str]]]] = {
    "regions in the picture": (
        lambda line: [line["regions"]] * line["regions"],
        [(1, 2, "1"), (2, 3, "2"), (3, 6, "3 to 5"), (6, 11, "6 to 10"), (11, np.inf, "more than 10")],
    ),
    "part of the picture": (
        lambda line: line["area"],
        [(0, 0.01, "below 1%"), (0.01, 0.1, "1 to 10%"), (0.1, np.inf, "above 10%")],
    ),
    "overlap of its box with another": (
        lambda line: line["overlap"],
        [(0, 1e-9, "none"), (1e-9, 0.1, "IoU below 0.1"), (0.1, 0.3, "0.1 to 0.3"), (0.3, np.inf, "above 0.3")],
    ),
}


def report(out: Path, common: dict, rows: list[tuple[dict, list[dict]]], left_out: Mapping[str, int]) -> dict:
    """Write the three files to the folder `out`, from each row's settings and its lines, one a picture; returns report.json's.

    left_out: see `LEFT_OUT`. Each file appears whole. Without matplotlib there is no picture, which is said.
    """
    first = rows[0][1]
    content = {
        **common,
        "pictures": len(first),
        "regions": sum(line["regions"] for line in first),
        "empty_masks": sum(line["empty"] for line in first),
        **{name: left_out.get(name, 0) for name in LEFT_OUT},
        "rows": [summary(row, lines) for row, lines in rows],
    }
    words = markdown(content)
    for name, text in (("report.json", json.dumps(content, indent=1) + "\n"), ("report.md", words)):
        with written_whole(out / name) as path:
            path.write_text(text, encoding="utf-8")
    print(words, end="")
    try:
        plot(content, out / "report.png")
    except PackageError as error:
        print(error)
    return content


def summary(row: dict, lines: list[dict]) -> dict:
    """Of one row: its settings, each metric with its interval, and the main metric for groups of regions."""
    found = {**row, "metrics": {}, "groups": {}}
    for metric in METRICS:
        hits = [(hit, index) for index, line in enumerate(lines) for hit in line["hits"].get(metric, []) if hit is not None]
        if hits:
            found["metrics"][metric] = share(hits)
    for kind, (values_of, bounds) in GROUPS.items():
        told = [
            (value, hit, index)
            for index, line in enumerate(lines)
            for metric in MAIN
            if line["hits"].get(metric)
            for value, hit in zip(values_of(line), line["hits"][metric], strict=True)
        ]
        for low, high, name in bounds:
            hits = [(hit, index) for value, hit, index in told if low <= value < high]
            if hits:
                found["groups"].setdefault(kind, {})[name] = share(hits)
    ious = [iou for line in lines for iou in line.get("iou", [])]
    if ious:
        found["iou"] = float(np.mean(ious))
    return found


def share(hits: list[tuple[float, int]]) -> dict:
    values, pictures = (np.array(column, float) for column in zip(*hits, strict=True))
    p, low, high = wilson(values, groups=pictures)
    return {"value": p, "low": low, "high": high, "n": len(hits)}


def varying(rows: list[dict]) -> list[str]:
    """The names of the settings in which the rows that have them differ."""
    names = [name for name in rows[0] if name not in ("method", "metrics", "groups", "iou")]
    return [name for name in names if len({row[name] for row in rows if row[name] is not None}) > 1]


def label(row: dict, names: list[str]) -> str:
    told = [f"{name.replace('_', ' ')} {row[name]}" for name in names if row[name] is not None]
    return row["method"] + (f" ({', '.join(told)})" if told else "")


def cell(found: dict | None) -> str:
    return "" if found is None else f"{100 * found['value']:.1f} ({100 * found['low']:.1f}-{100 * found['high']:.1f})"


def table(head: list[str], body: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def markdown(content: dict) -> str:
    """A table of all rows, and one of the main metric for each kind of group."""
    rows = content["rows"]
    names = varying(rows)
    metrics = [metric for metric in METRICS if any(metric in row["metrics"] for row in rows)]
    templates = content["templates"]
    lines = [
        f"# {content['name']}: {content['clip']}",
        "",
        f"{content['pictures']} pictures, {content['regions']} regions"
        + (f" (and {content['empty_masks']} with an empty mask, left out)" if content["empty_masks"] else "")
        + f"; texts as {templates[0]!r}"
        + (f" and {len(templates) - 1} more templates, averaged" if len(templates) > 1 else "")
        + "".join(f"; left out: {content[name]} {what}" for name, what in LEFT_OUT.items() if content[name])
        + ". Percent, with 95% intervals that take the regions of a picture as dependent; equal scores share the hit.",
        "",
        *(f"- **{METRICS[metric][0]}**: {METRICS[metric][1]}" for metric in metrics),
        *(["- **IoU**: of the token's map with the mask it was given"] if any("iou" in row for row in rows) else []),
        "",
    ]
    settings = [", ".join(f"{n.replace('_', ' ')} {row[n]}" for n in SHOWN if row[n] is not None) for row in rows]
    head = ["method", *(METRICS[metric][0] for metric in metrics), "IoU", "n"]
    body = []
    for row in rows:
        found = [row["metrics"].get(metric) for metric in metrics]
        iou = f"{row['iou']:.2f}" if "iou" in row else ""
        body.append([label(row, names), *map(cell, found), iou, str(found[0]["n"]) if found and found[0] else ""])
    lines += table(head, body)
    inverted = sorted({words for words in settings if words})
    if len(inverted) == 1:
        lines += ["", f"MaskInversion with {inverted[0]}."]
    lines += ["", f"Computed with {', '.join(f'{name} {value}' for name, value in content['arithmetic'].items())}."]
    main = next((METRICS[metric][0] for metric in MAIN if metric in metrics), "")
    for kind in GROUPS:
        groups = [name for *_, name in GROUPS[kind][1] if any(name in row["groups"].get(kind, {}) for row in rows)]
        if len(groups) > 1:
            count = {name: max(row["groups"].get(kind, {}).get(name, {"n": 0})["n"] for row in rows) for name in groups}
            lines += ["", f"{main} by {kind}:", ""]
            of_kind = [row["groups"].get(kind, {}) for row in rows]
            lines += table(
                ["method", *(f"{name} (n = {count[name]})" for name in groups)],
                [
                    [label(row, names), *(cell(found.get(name)) for name in groups)]
                    for row, found in zip(rows, of_kind, strict=True)
                ],
            )
    return "\n".join(lines) + "\n"


def plot(content: dict, path: Path) -> None:
    """Every row's metrics with their intervals. Raises PackageError without matplotlib."""
    rows = content["rows"]
    names = varying(rows)
    metrics = [metric for metric in METRICS if any(metric in row["metrics"] for row in rows)]
    if not metrics:
        return
    size = (3.2 + 2.6 * len(metrics), 1.2 + 0.3 * len(rows))
    figure, panels = pyplot().subplots(1, len(metrics), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for axes, metric in zip(panels[0], metrics, strict=True):
        for height, row in enumerate(rows):
            if found := row["metrics"].get(metric):
                value = 100 * found["value"]
                spread = [[max(0, value - 100 * found["low"])], [max(0, 100 * found["high"] - value)]]
                colour = "C1" if row["method"] == "maskinversion" else "C0"
                axes.errorbar(value, height, xerr=spread, fmt="o", color=colour, capsize=2)
        axes.set(xlabel=f"{METRICS[metric][0]} (%)")
        axes.grid(True, axis="x", alpha=0.3)
    panels[0][0].set(yticks=range(len(rows)), yticklabels=[label(row, names) for row in rows])
    panels[0][0].invert_yaxis()
    figure.suptitle(f"{content['name']}, {content['clip']}", fontsize=10, parse_math=False)
    with written_whole(path) as partial:
        figure.savefig(partial, dpi=120)
    pyplot().close(figure)
