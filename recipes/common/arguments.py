"""What the recipes' command lines have in common."""

import argparse
import logging
from collections.abc import Callable


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """name: of the module, from its `__spec__`; doc: of the module, shown as it stands."""
    return argparse.ArgumentParser(f"python -m {name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_training(parser: argparse.ArgumentParser, steps: int, batch: int, lr: float) -> None:
    """What `training.Run` reads, with these defaults."""
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--bf16", action="store_true", help="faster on some processors, far slower on others: see README.md")
    parser.add_argument("--seed", type=int, default=0)


def run_stage(parser: argparse.ArgumentParser, stages: dict[str, Callable[[argparse.Namespace], None]]) -> None:
    """Run the stage that the first argument names."""
    parser.add_argument("what", choices=stages)
    args = parser.parse_args()
    start_log()
    stages[args.what](args)


def start_log() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
