"""`maskinversion embed`"""

import argparse
import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, InputWarning
from .arguments import add_inversion, add_model, at_least_one, settings_of

if TYPE_CHECKING:
    from ..collection.sources.base import Source

SOURCES = """where pictures and masks come from, one of:
  --coco JSON --pictures FOLDER      COCO's instances, LVIS, and what was converted to that format
  --pictures FOLDER --masks FOLDER   masks of 1.jpg: 1.png, 1_*.png, and whatever is in the folder 1
  --pictures FOLDER --labels FOLDER  a label map for each picture, of the same name
  --shards FOLDER                    WebDataset: 000.jpg with 000.mask.png, 000.mask.2.png, 000.labels.png or 000.json
  --parquet FILE                     or a folder of such: columns image (or path), masks, labels
  --pictures FOLDER --segmenter DIR  a SAM or SAM 2 of transformers finds the masks"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"The tokens of regions of many pictures, in a table of Parquet files (docs/scale.md).\n\n{SOURCES}"
    source = parser.add_argument_group("pictures")
    source.add_argument("--pictures", type=Path, help="folder of the pictures")
    source.add_argument("--coco", type=Path, help="annotations as JSON")
    source.add_argument("--masks", type=Path, help="folder of mask files")
    source.add_argument("--labels", type=Path, help="folder of label maps")
    source.add_argument("--shards", type=Path, help="folder of .tar files")
    source.add_argument("--parquet", type=Path, help="a file or a folder")
    segmenter = parser.add_argument_group("masks that a segmenter finds, instead of those that are there")
    segmenter.add_argument("--segmenter", type=Path, metavar="DIR", help="folder of a SAM or SAM 2 of transformers")
    segmenter.add_argument("--points", type=at_least_one, default=32, help="of a side of its grid (default: %(default)s)")
    segmenter.add_argument("--least-quality", type=float, default=0.88, help="of a mask, by itself, 0..1 (default: %(default)s)")
    segmenter.add_argument(
        "--least-stability", type=float, default=0.95, help="of a mask, cut at other levels, 0..1 (default: %(default)s)"
    )
    segmenter.add_argument("--least-area", type=float, default=0.001, help="share of the picture (default: %(default)s)")
    segmenter.add_argument("--most", type=int, default=0, help="masks of a picture, the largest first; 0 is all")
    table = parser.add_argument_group("table")
    table.add_argument("--out", type=Path, required=True, help="its folder; the same command again goes on where it stopped")
    table.add_argument("--numbers", choices=("float32", "float16"), default="float32", help="of a token (default: %(default)s)")
    table.add_argument(
        "--part", type=at_least_one, default=64,
        help="pictures in a file of it; so many at most are done again when it was stopped (default: %(default)s)",
    )  # fmt: skip
    table.add_argument("--moved", action="store_true", help="the pictures are those of the table, in a new place")
    table.add_argument("--retry", action="store_true", help="make parts with rejects again")
    work = parser.add_argument_group("work")
    work.add_argument(
        "--workers", type=int,
        help="processes, by Ray; 1 is this one, without Ray (default: 1; with --address, as many as there is room for)",
    )  # fmt: skip
    work.add_argument("--address", help="of a cluster of Ray, such as auto or 10.0.0.1:6379")
    work.add_argument("--threads", type=at_least_one, help="cores of each (default: PyTorch's choice; with Ray, 1)")
    work.add_argument("--readers", type=at_least_one, default=2, help="threads of each that read pictures (default: %(default)s)")
    work.add_argument("--together", type=at_least_one, default=16, help="pictures that go together (default: %(default)s)")
    add_model(parser)
    add_inversion(parser)


def run(args: argparse.Namespace) -> None:
    from ..collection.run import run
    from ..collection.segmenters import SegmenterSettings
    from ..collection.worker import Job

    warnings.simplefilter("ignore", InputWarning)  # there would be one for many a region
    if args.workers is not None and args.workers < (0 if args.address else 1):
        raise InputError(f"--workers is {args.workers}; it must be at least 1")
    segmenter = None
    if args.segmenter is not None:
        own = ("points", "least_quality", "least_stability", "least_area", "most")
        segmenter = SegmenterSettings(str(args.segmenter.absolute()), **{name: getattr(args, name) for name in own})
    shared = {field.name: getattr(args, field.name) for field in dataclasses.fields(Job) if hasattr(args, field.name)}
    clip = str(Path(args.clip).absolute()) if Path(args.clip).is_file() else args.clip  # of processes in other folders
    job = Job(**shared | {"clip": clip, "segmenter": segmenter, "settings": settings_of(args), "out": args.out.absolute()})
    workers = args.workers if args.workers is not None else (0 if args.address else 1)
    run(job, source_given(args), workers, args.address, args.moved, args.retry)


def source_given(args: argparse.Namespace) -> "Source":
    """The source that the arguments name. Raises InputError for none and for several."""
    from ..collection import sources
    from ..collection.sources.base import absolute

    kinds = {
        ("coco", "pictures"): sources.CocoInstances,
        ("pictures", "masks"): sources.MaskFiles,
        ("pictures", "labels"): sources.LabelMaps,
        ("shards",): sources.Shards,
        ("parquet",): sources.ParquetRows,
        ("pictures",): sources.Pictures,
    }
    names = ("coco", "pictures", "masks", "labels", "shards", "parquet")  # in the order of the fields of each
    given = tuple(name for name in names if getattr(args, name) is not None)
    if given not in kinds or (given == ("pictures",) and args.segmenter is None):
        got = " ".join(f"--{name}" for name in given) or "none of them"
        raise InputError(f"give the pictures and their masks in one of the ways of maskinversion embed --help, not {got}")
    return kinds[given](*(absolute(getattr(args, name)) for name in given))
