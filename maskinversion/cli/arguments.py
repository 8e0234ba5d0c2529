"""What several commands share: arguments, and what is made of them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..settings import FITS, PRECISIONS

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
    command.add_argument("--iterations", type=int, help="steps")
    command.add_argument("--lr", type=float, help="learning rate")
    command.add_argument("--alpha", type=float, help="pull towards the whole image; 0 is the region only")
    command.add_argument("--layers", type=int, help="last blocks that the map sums over")
    command.add_argument("--image-size", type=int, help="pixels that the model sees (default: its own)")
    command.add_argument("--fit", choices=FITS, help="how the picture becomes what the model sees")
    command.add_argument("--precision", choices=PRECISIONS, help="fast: large products in bfloat16")


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

    names = ("iterations", "lr", "alpha", "layers", "image_size", "fit", "precision")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return MaskInverter(load_clip(args.clip, args.architecture, args.device), **given)


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
