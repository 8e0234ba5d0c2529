"""`maskinversion bench`"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..bench.run import METHODS, Settings, check
from ..bench.run import run as measure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", default=["ViT-B-16"], help="open_clip's ViTs, random weights (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs="+", default=[224], help="pixels (default: %(default)s)")
    parser.add_argument("--masks", type=int, nargs="+", default=[1, 5, 10, 100], help="how many at a time (default: %(default)s)")
    parser.add_argument("--iterations", type=int, nargs="+", default=[10], help="steps (default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", default=[1], help="last blocks of the map (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default: %(default)s)")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD",
        help=f"{', '.join(METHODS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--reference", type=Path, help="folder of the published package; tests/reference/compare.py installs it")
    parser.add_argument(
        "--slow-masks", type=int, default=10, help="most masks for the baselines by autograd (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="where to measure (default: %(default)s)")
    parser.add_argument("--check", type=Path, metavar="JSON", help="measure a bench.json again; fails where 20%% slower")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("maskinversion-bench"),
        help="folder for bench.json, which is added to, bench.md, bench.png",
    )


def run(args: argparse.Namespace) -> None:
    if args.check:
        check(args.check)
        return
    names = {field.name for field in dataclasses.fields(Settings)}
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items() if name in names}
    measure(Settings(**given), args.out)
