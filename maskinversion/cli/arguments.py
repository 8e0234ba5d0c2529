"""What several commands share: arguments, and what is made of them."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..settings import InversionSettings

if TYPE_CHECKING:
    from PIL import Image

    from ..inverter import MaskInverter
    from ..tokens import LocalizedTokens


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--clip", default="bundled", help="'bundled', NAME/TAG of open_clip, 'local-dir:FOLDER', or a weights file"
    )
    command.add_argument("--architecture", help="of a weights file, such as ViT-L-14")
    command.add_argument("--device", help="cpu, cuda, mps (default: the best one here)")


def add_inversion(command: argparse.ArgumentParser) -> None:
    for field in dataclasses.fields(InversionSettings):
        kind = int if field.type == int | None else field.type
        command.add_argument(f"--{field.name.replace('_', '-')}", type=kind, **field.metadata)


def open_picture(path: Path) -> Image.Image:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to open safely ({error}): make it smaller first") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a picture that can be read ({error})") from error


def make_inverter(args: argparse.Namespace) -> MaskInverter:
    from .. import MaskInverter, load_clip

    given = {field.name: getattr(args, field.name) for field in dataclasses.fields(InversionSettings)}
    settings = InversionSettings(**{name: value for name, value in given.items() if value is not None})
    return MaskInverter(load_clip(args.clip, args.architecture, args.device), settings)


def invert_files(inverter: MaskInverter, image: Path, masks: list[Path]) -> tuple[Image.Image, list[Image.Image], LocalizedTokens]:
    picture, opened = open_picture(image), [open_picture(mask) for mask in masks]
    return picture, opened, inverter.invert(inverter.encode(picture), opened)


def saved_tokens(args: argparse.Namespace) -> LocalizedTokens | None:
    """What `invert` wrote, where that was given instead of a picture and masks. Raises InputError for neither."""
    if args.image.suffix == ".safetensors":
        from ..tokens import LocalizedTokens

        return LocalizedTokens.load(args.image)
    if not args.mask:
        raise InputError("give the region of the picture with --mask, or a tokens.safetensors instead of a picture")
    return None


def save_overlays(picture: Image.Image, masks: list[Image.Image], tokens: LocalizedTokens, out: Path) -> list[Path]:
    """One PNG per region: the map over the picture and the outline of the mask."""
    import numpy as np
    import torch
    from PIL import Image

    from ..drawing.overlay import overlay
    from ..geometry import as_pixels

    out.mkdir(parents=True, exist_ok=True)
    pixels = as_pixels(picture)[0].permute(1, 2, 0)
    paths = []
    for i, (heat, mask) in enumerate(zip(tokens.maps_for(), masks, strict=True)):
        same_size = np.asarray(mask.convert("L").resize(picture.size), np.float32) / 255
        painted = overlay(pixels, heat.cpu(), torch.from_numpy(same_size))
        paths.append(out / f"overlay-{i}.png")
        Image.fromarray((painted * 255).round().byte().numpy()).save(paths[-1])
    return paths
