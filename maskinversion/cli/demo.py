"""`maskinversion demo`"""

import argparse
from pathlib import Path

from ..bundled import EXAMPLES, bundled_classes, load_example
from ..settings import PRESETS
from .arguments import save_overlays
from .classify import print_classification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--example", choices=EXAMPLES, default=EXAMPLES[0], help="the scene (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("maskinversion-demo"), help="folder to write to (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    from .. import MaskInverter, load_clip

    example = load_example(args.example)
    inverter = MaskInverter(load_clip("bundled"), **PRESETS["region"])
    tokens = inverter.invert(inverter.encode(example.image), example.masks)
    for path in save_overlays(example.image, example.masks, tokens, args.out):
        print(path)
    print(f"The masks are of: {', '.join(example.names)}. What the tokens say:")
    print_classification(tokens.embeddings, inverter.clip, bundled_classes(), top=3)
