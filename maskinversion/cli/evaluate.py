"""`maskinversion eval`"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..evaluation.settings import CLASSES, LOSSES, METHODS, QUALITIES, WHOLE_PICTURE, Settings
from ..settings import LR_UNITS, PRECISIONS, STARTS, InversionSettings
from ..tasks.phrases import TEMPLATES
from .arguments import add_model

PAPER_COMMAND = "paper"
HELP = {
    "coco": "instances in COCO's format: given a mask, which class (also LVIS, panoptic)",
    "voc": "PASCAL VOC: the same",
    "context": "PASCAL-Context, 59 classes: the same",
    "open-images": "Open Images V5 to V7: the same",
    "refcoco": "RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO: masks and expressions of one picture, each way",
    "phrasecut": "PhraseCut: the same",
}
PAPER = "the paper's tables: on all of its data sets that are in a folder, every method and every start"
ANNOTATIONS = {
    "coco": "instances_val2017.json, panoptic_val2017.json, lvis_v1_val.json or the like",
    "voc": "the folder VOCdevkit/VOC2012",
    "context": "the folder VOCdevkit/VOC2010, which has the lists of pictures",
    "open-images": "validation-annotations-object-segmentation.csv or the like",
    "refcoco": "the instances.json that comes with the expressions",
    "phrasecut": "refer_val.json, refer_test.json, ...",
}
SEGMENTS = {
    "coco": "folder of panoptic PNGs (default: the one named as the annotations)",
    "context": "the folder 59_context_labels",
    "open-images": "folder of the PNGs of masks",
}
NAMES = {
    "context": "59_labels.txt (default: beside the folder of segments)",
    "open-images": "class-descriptions-boxable.csv (default: beside the annotations)",
}

SETTINGS = {field.name: field.metadata["help"] for field in dataclasses.fields(InversionSettings)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand for each format."""
    kinds = parser.add_subparsers(required=True, metavar="FORMAT", dest="dataset")
    for name, words in HELP.items():
        kind = kinds.add_parser(name, help=words)
        add_files(kind, name)
        add_common(kind, "maskinversion-eval")
        kind.add_argument(
            "--methods", nargs="+", choices=METHODS, default=[], metavar="METHOD",
            help=f"{', '.join(METHODS)} (default: all that can be used with the model)",
        )  # fmt: skip
        kind.add_argument(
            "--templates", nargs="+", default=[], metavar="TEMPLATE",
            help=f"what texts are put into, averaged, or {', '.join(TEMPLATES)} (default: 'a photo of a {{}}', or the bare text)",
        )  # fmt: skip
        if name not in CLASSES:
            kind.add_argument("--one-to-one", action="store_true", help="also assign expressions and regions one to one")
        add_compared(kind)
    paper = kinds.add_parser(PAPER_COMMAND, help=PAPER, description=f"Repeats {PAPER}; docs/evaluation.md says where it looks.")
    paper.add_argument("--data", type=Path, required=True, help="folder of the data sets, each as it comes unpacked")
    add_common(paper, "maskinversion-paper")


def add_files(kind: argparse.ArgumentParser, name: str) -> None:
    if name == "refcoco":
        kind.add_argument("--refs", type=Path, required=True, help="refs(unc).p, grefs(unc).json, or the same as .json")
        kind.add_argument("--split", help="val, testA, testB, test, ... (default: all)")
    if name in ("voc", "context"):
        kind.add_argument("--split", help="train, val, ... (default: val)")
    kind.add_argument("--annotations", type=Path, required=True, help=ANNOTATIONS[name])
    kind.add_argument("--images", type=Path, required=True, help="folder of the pictures")
    if name in SEGMENTS:
        kind.add_argument("--segments", type=Path, required=name != "coco", help=SEGMENTS[name])
    if name in NAMES:
        kind.add_argument("--names", type=Path, help=NAMES[name])


def add_common(kind: argparse.ArgumentParser, out: str) -> None:
    kind.add_argument("--skip-missing", action="store_true", help="leave out pictures that are not there, and count them")
    kind.add_argument(
        "--out", type=Path, default=Path(out),
        help="folder of the report; the same again goes on where it stopped (default: %(default)s)",
    )  # fmt: skip
    kind.add_argument("--limit", type=int, help="only so many pictures of a data set, drawn at random")
    kind.add_argument("--seed", type=int, default=0, help="of that draw (default: %(default)s)")
    add_model(kind)


def add_compared(kind: argparse.ArgumentParser) -> None:
    several = kind.add_argument_group("to compare", "each may have several values; every combination is a row")

    def add(name: str, default: Any, words: str, **options: Any) -> None:
        several.add_argument(name, nargs="+", default=[default], help=f"{words} (default: {default})", **options)

    add("--mask-quality", "exact", "how masks were drawn", choices=QUALITIES)
    add("--iterations", 10, SETTINGS["iterations"], type=int)
    add("--lr", 0.1, SETTINGS["lr"], type=float)
    add("--layers", 1, SETTINGS["layers"], type=int)
    add("--loss", "dice", "what is minimised", choices=LOSSES)
    add("--start", "picture", SETTINGS["start"], choices=STARTS)
    add("--fit", "stretch", SETTINGS["fit"], choices=WHOLE_PICTURE)
    alpha = f"{SETTINGS['alpha']} (default: 0 for classes, 5 for expressions)"
    several.add_argument("--alpha", type=float, nargs="+", default=[], help=alpha)
    several.add_argument("--image-size", type=int, nargs="+", default=[None], help=SETTINGS["image_size"])
    kind.add_argument(
        "--mask-radius", type=float, default=Settings.mask_radius,
        help="to erode or dilate by, in parts of the square root of a mask's area (default: %(default)s)",
    )  # fmt: skip
    kind.add_argument("--lr-unit", choices=LR_UNITS, default="absolute", help=SETTINGS["lr_unit"])
    kind.add_argument("--precision", choices=PRECISIONS, default="exact", help=SETTINGS["precision"])


def settings_of(args: argparse.Namespace) -> Settings:
    names = {field.name for field in dataclasses.fields(Settings)}
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items() if name in names}
    return Settings(**given)


def run(args: argparse.Namespace) -> None:
    if args.dataset == PAPER_COMMAND:
        from ..evaluation.paper import repeat

        names = ("data", "out", "clip", "architecture", "device", "limit", "seed", "skip_missing")
        repeat(**{name: getattr(args, name) for name in names})
        return
    from ..evaluation.run import evaluate

    evaluate(settings_of(args))
