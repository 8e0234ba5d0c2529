"""`maskinversion eval`"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..evaluation.settings import LOSSES, METHODS, QUALITIES, WHOLE_PICTURE, Settings
from ..settings import LR_UNITS, PRECISIONS, STARTS
from ..tasks.phrases import TEMPLATES
from .arguments import add_model

HELP = {
    "coco": "instances in COCO's format: given a mask, which class (also LVIS, panoptic, PascalVOC, OpenImages, converted)",
    "refcoco": "RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO: masks and expressions of one picture, each way",
    "phrasecut": "PhraseCut: the same",
}
ANNOTATIONS = {
    "coco": "instances_val2017.json, panoptic_val2017.json, lvis_v1_val.json or the like",
    "refcoco": "the instances.json that comes with the expressions",
    "phrasecut": "refer_val.json, refer_test.json, ...",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand for each format."""
    kinds = parser.add_subparsers(required=True, metavar="FORMAT", dest="dataset")
    for name, words in HELP.items():
        kind = kinds.add_parser(name, help=words)
        if name == "refcoco":
            kind.add_argument("--refs", type=Path, required=True, help="refs(unc).p, grefs(unc).json, or the same as .json")
            kind.add_argument("--split", help="val, testA, testB, test, ... (default: all)")
        kind.add_argument("--annotations", type=Path, required=True, help=ANNOTATIONS[name])
        kind.add_argument("--images", type=Path, required=True, help="folder of the pictures")
        if name == "coco":
            kind.add_argument("--segments", type=Path, help="folder of panoptic PNGs (default: the one named as the annotations)")
        kind.add_argument("--skip-missing", action="store_true", help="leave out pictures that are not there, and count them")
        kind.add_argument(
            "--out", type=Path, default=Path("maskinversion-eval"),
            help="folder of the report; the same again goes on where it stopped (default: %(default)s)",
        )  # fmt: skip
        kind.add_argument("--limit", type=int, help="only so many pictures, drawn at random")
        kind.add_argument("--seed", type=int, default=0, help="of that draw (default: %(default)s)")
        kind.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD", help=", ".join(METHODS))
        kind.add_argument(
            "--templates", nargs="+", default=[], metavar="TEMPLATE",
            help=f"what texts are put into, averaged, or {', '.join(TEMPLATES)} (default: 'a photo of a {{}}', or the bare text)",
        )  # fmt: skip
        if name != "coco":
            kind.add_argument("--one-to-one", action="store_true", help="also assign expressions and regions one to one")
        add_model(kind)
        several = kind.add_argument_group("to compare", "each may have several values; every combination is a row")
        several.add_argument("--mask-quality", nargs="+", choices=QUALITIES, default=["exact"])
        several.add_argument("--iterations", type=int, nargs="+", default=[10])
        several.add_argument("--lr", type=float, nargs="+", default=[0.1])
        several.add_argument("--alpha", type=float, nargs="+", default=[], help="default: 0 for classes, 5 for expressions")
        several.add_argument("--layers", type=int, nargs="+", default=[1])
        several.add_argument("--loss", nargs="+", choices=LOSSES, default=["dice"])
        several.add_argument("--start", nargs="+", choices=STARTS, default=["picture"])
        several.add_argument("--image-size", type=int, nargs="+", default=[None], help="pixels that the model sees")
        several.add_argument("--fit", nargs="+", choices=WHOLE_PICTURE, default=["stretch"])
        kind.add_argument(
            "--mask-radius", type=float, default=Settings.mask_radius,
            help="to erode or dilate by, in parts of the square root of a mask's area (default: %(default)s)",
        )  # fmt: skip
        kind.add_argument("--lr-unit", choices=LR_UNITS, default="absolute")
        kind.add_argument("--precision", choices=PRECISIONS, default="exact")


def settings_of(args: argparse.Namespace) -> Settings:
    names = {field.name for field in dataclasses.fields(Settings)}
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items() if name in names}
    return Settings(**given)


def run(args: argparse.Namespace) -> None:
    from ..evaluation.run import evaluate

    evaluate(settings_of(args))
