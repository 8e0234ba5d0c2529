"""What several commands share: arguments, and what is made of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import read_lines, written_whole
from ..settings import PRESETS, READINGS, InversionSettings

# Of a PNG: run lengths, six times as fast to write as the usual, and as small for photos.
QUICK: dict[str, Any] = {"compress_level": 1, "compress_type": 3}

if TYPE_CHECKING:
    from torch import Tensor

    from ..inverter import MaskInverter
    from ..tokens import LocalizedTokens


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--clip",
        default="bundled",
        help="'bundled', NAME/TAG of open_clip (NAME/random for random weights), 'local-dir:FOLDER', or a weights file",
    )
    command.add_argument("--architecture", help="of a weights file, such as ViT-L-14")
    command.add_argument("--device", help="cpu, cuda, mps (default: the best one here)")


def add_inversion(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--preset", choices=PRESETS, default="region",
        help="values to begin with, which the others change. region: the region only, also for careless masks; published: as in "
        "the paper; balanced: with some of its surroundings; context: mostly the whole picture (default: %(default)s)",
    )  # fmt: skip
    for field in dataclasses.fields(InversionSettings):
        kind = int if field.type == int | None else field.type
        command.add_argument(f"--{field.name.replace('_', '-')}", type=kind, **field.metadata)


def add_masks(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument("--mask", type=Path, action="append", required=required, help="white where the region is; may be repeated")
    command.add_argument(
        "--mask-by", choices=READINGS, default="auto", help="what of a mask file holds the region, where that is not clear"
    )
    command.add_argument(
        "--labels", type=label_ids, metavar="IDS", help="the mask files are label maps: 'all', or the ids to take, such as 1,15"
    )


def label_ids(text: str) -> list[int] | str:
    try:
        return text if text == "all" else [int(number) for number in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'all' nor numbers such as 1,15") from error


def at_least_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if number < 1:
        raise argparse.ArgumentTypeError(f"it is {number}; it must be at least 1")
    return number


def picture_to_write(text: str) -> Path:
    """The path of a picture, whose ending says of which kind it shall be."""
    from PIL import Image

    path = Path(text)
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise argparse.ArgumentTypeError(f"{text} does not say which kind of picture to write: give a name that ends in .png")
    return path


def lines_of(path: Path, what: str = "phrases") -> list[str]:
    """Of a text file in UTF-8, with a byte order mark or without."""
    try:
        return read_lines(path)
    except InputError as error:
        raise InputError(f"the {what} could not be read: {error}") from error


def settings_of(args: argparse.Namespace) -> InversionSettings:
    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(InversionSettings)}
    return InversionSettings(**PRESETS[args.preset] | {name: value for name, value in given.items() if value is not None})


def make_inverter(args: argparse.Namespace) -> MaskInverter:
    from .. import MaskInverter, load_clip

    return MaskInverter(load_clip(args.clip, args.architecture, args.device), settings_of(args))


def named_masks(args: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    """The masks [h, w] of the files, one after the other, and what to call them."""
    from ..pictures import as_masks
    from ..pictures.labels import label_map

    if args.labels is None:
        yield from zip(map(str, args.mask), as_masks(args.mask, args.mask_by))
        return
    for path in args.mask:
        numbers, labels = label_map(path, None if args.labels == "all" else args.labels)
        for label in labels:
            yield f"{path}, label {label}", (numbers == label).float()


def invert_files(inverter: MaskInverter, image: object, args: argparse.Namespace) -> LocalizedTokens:
    return inverter.invert(inverter.encode(image), (mask for _, mask in named_masks(args)))


def saved_tokens(args: argparse.Namespace) -> LocalizedTokens | None:
    """What `invert` wrote, where that was given instead of a picture and masks. Raises InputError for neither and for both."""
    if args.image.suffix == ".safetensors":
        from ..tokens import LocalizedTokens

        if args.mask or args.labels:
            raise InputError(f"{args.image} has its own regions: leave out --mask and --labels, or give the picture they are of")
        return LocalizedTokens.load(args.image)
    if not args.mask:
        raise InputError("give the region of the picture with --mask, or a tokens.safetensors instead of a picture")
    return None


def save_overlays(image: object, masks: Iterable[Tensor], tokens: LocalizedTokens, out: Path) -> list[Path]:
    """One PNG per region: the map over the picture and the outline of the mask [h, w]."""
    from PIL import Image

    from ..drawing.overlay import overlay
    from ..geometry import resize
    from ..pictures import as_pixels

    pixels = as_pixels(image)[0].permute(1, 2, 0)
    paths = []
    for i, (canvas, mask) in enumerate(zip(tokens.maps, masks, strict=True)):
        heat = tokens.geometry.from_model(canvas[None].cpu())[0]
        painted = overlay(pixels, heat, resize(mask[None, None], tuple(pixels.shape[:2]), "bilinear")[0, 0])
        paths.append(out / f"overlay-{i}.png")
        with written_whole(paths[-1]) as path:
            Image.fromarray(painted.mul_(255).round_().byte().numpy()).save(path, **QUICK)
    return paths
