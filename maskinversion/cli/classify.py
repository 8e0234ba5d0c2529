"""`maskinversion classify`"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..tasks.phrases import CLASS_TEMPLATE, NAMES, TEMPLATES
from .arguments import add_inversion, add_masks, add_model, at_least_one, invert_files, lines_of, make_inverter, saved_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.clip import Clip
    from ..tasks.classify import Classification


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="a picture, or the tokens.safetensors that `invert` wrote")
    add_masks(parser)
    parser.add_argument("--phrase", action="append", help="may be repeated; the bundled model has its own list")
    parser.add_argument("--phrases", type=Path, help="a text file with a phrase a line")
    parser.add_argument("--list", choices=NAMES, help="phrases that come with the library")
    parser.add_argument(
        "--template",
        action="append",
        help=f"what a phrase is put into (default: {CLASS_TEMPLATE!r}); several are averaged; or one of {', '.join(TEMPLATES)}",
    )
    parser.add_argument("--classifier", type=Path, help="what `train` wrote, instead of phrases")
    parser.add_argument("--top", type=at_least_one, default=5, help="phrases to print of each region (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model(parser)
    add_inversion(parser)


def run(args: argparse.Namespace) -> None:
    from ..identity import check_made_with

    if args.classifier:
        run_classifier(args)
        return
    phrases = list(args.phrase or [])
    if args.phrases:
        phrases += lines_of(args.phrases)
    if args.list or (not phrases and args.clip == "bundled"):
        phrases += NAMES[args.list or "bundled"]()
    inverter = make_inverter(args)
    tokens = saved_tokens(args)
    if tokens is None:
        tokens = invert_files(inverter, args.image, args)
    else:
        check_made_with([tokens], inverter.clip, "give that one as --clip", what=f"{args.image} was")
    templates = [template for given in args.template or [CLASS_TEMPLATE] for template in TEMPLATES.get(given, [given])]
    print_classification(tokens.embeddings, inverter.clip, phrases, templates, args.top, args.json)


def run_classifier(args: argparse.Namespace) -> None:
    from ..tasks.classifier_files import load_classifier

    if args.phrase or args.phrases or args.list or args.template:
        raise InputError("a classifier has its own names: leave out --phrase, --phrases, --list and --template, or --classifier")
    classifier = load_classifier(args.classifier)
    tokens = saved_tokens(args)
    if tokens is None:
        tokens = invert_files(make_inverter(args), args.image, args)
    print_found(classifier.classify([tokens]), args.top, args.json)


def print_classification(
    embeddings: Tensor,
    clip: Clip,
    phrases: list[str],
    templates: str | list[str] = CLASS_TEMPLATE,
    top: int = 5,
    as_json: bool = False,
) -> None:
    from ..tasks.classify import classify

    print_found(classify(embeddings, clip, phrases, templates), top, as_json)


def print_found(found: Classification, top: int, as_json: bool) -> None:
    values, indices = found.probabilities.topk(min(top, len(found.phrases)))
    regions = [
        {found.phrases[i]: round(v, 4) for i, v in zip(i_row, v_row)} for i_row, v_row in zip(indices.tolist(), values.tolist())
    ]
    if as_json:
        print(json.dumps(regions, indent=2))
        return
    for number, region in enumerate(regions):
        print(f"region {number}: " + ", ".join(f"{phrase} {probability:.0%}" for phrase, probability in region.items()))
