"""`maskinversion invert`"""

import argparse
from pathlib import Path

from .arguments import add_inversion, add_masks, add_model, invert_files, make_inverter, named_masks, save_overlays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="a picture")
    add_masks(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokens.safetensors and one overlay PNG per mask")
    add_model(parser)
    add_inversion(parser)


def run(args: argparse.Namespace) -> None:
    from ..pictures import as_pixels

    inverter = make_inverter(args)
    image = as_pixels(args.image)[0].permute(1, 2, 0)
    tokens = invert_files(inverter, image, args)
    tokens.save(args.out / "tokens.safetensors")
    names, masks = [], named_masks(args)
    paths = save_overlays(image, (names.append(name) or mask for name, mask in masks), tokens, args.out)
    for name, overlaid, loss, iou in zip(names, paths, tokens.losses[-1], tokens.iou, strict=True):
        print(f"{name}: loss {loss:.3f}, overlap of map and mask {iou:.2f}, {overlaid}")
    print(args.out / "tokens.safetensors")
