"""`maskinversion train`"""

import argparse
import dataclasses
from pathlib import Path

from ..errors import InputError
from ..tasks.classifier_settings import TrainingSettings
from ..tasks.phrases import CLASS_TEMPLATE, TEMPLATES
from .arguments import add_model, lines_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tokens",
        type=Path,
        nargs="+",
        help="a folder with a folder of tokens for each class; or the tokens.safetensors that `invert` wrote, with --labels",
    )
    parser.add_argument(
        "--labels", type=Path, help="a text file: what each region is, one a line; regions of an empty line are left out"
    )
    parser.add_argument("--out", type=Path, required=True, help="the classifier, for `classify --classifier`")
    parser.add_argument(
        "--template",
        action="append",
        help=f"what a label is put into (default: {CLASS_TEMPLATE!r}); several are averaged; or one of {', '.join(TEMPLATES)}",
    )
    add_model(parser)
    for field in dataclasses.fields(TrainingSettings):
        words = f"{field.metadata['help']} (default: %(default)s)"
        parser.add_argument(
            f"--{field.name}", type=field.type, default=field.default, choices=field.metadata["choices"], help=words
        )


def run(args: argparse.Namespace) -> None:
    from .. import load_clip
    from ..tasks.classifier import train
    from ..tasks.classifier_files import read_labelled, save_classifier
    from ..tokens import LocalizedTokens

    settings = TrainingSettings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(TrainingSettings)})
    tokens, labels = [], []
    if args.labels is not None:
        tokens, labels = [LocalizedTokens.load(path) for path in args.tokens], lines_of(args.labels, "labels")
        if args.out.exists() and any(path.samefile(args.out) for path in args.tokens):
            raise InputError(f"{args.out} has the tokens to learn from, and would be written over: give --out another name")
    else:
        for path in args.tokens:
            if path.is_file():
                raise InputError(f"{path} does not say what its regions are: give --labels, or a folder of folders of tokens")
            found, known = read_labelled(path)
            tokens, labels = tokens + found, labels + known
    templates = [template for given in args.template or [CLASS_TEMPLATE] for template in TEMPLATES.get(given, [given])]
    classifier = train(tokens, labels, load_clip(args.clip, args.architecture, args.device), settings, templates)
    save_classifier(classifier, args.out)
    counts = classifier.parameters["examples"]
    print(f"{args.out}: {settings.method}, {len(counts)} classes, {sum(counts.values())} tokens")
    for name, count in counts.items():
        print(f"{name}: {count}")
