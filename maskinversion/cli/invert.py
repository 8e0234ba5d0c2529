"""`maskinversion invert`"""

import argparse
from pathlib import Path

from .arguments import add_inversion, add_model, invert_files, make_inverter, save_overlays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path)
    parser.add_argument("--mask", type=Path, action="append", required=True, help="white where the region is; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokens.safetensors and one overlay PNG per mask")
    add_model(parser)
    add_inversion(parser)


def run(args: argparse.Namespace) -> None:
    picture, masks, tokens = invert_files(make_inverter(args), args.image, args.mask)
    tokens.save(args.out / "tokens.safetensors")
    for path, overlaid, loss, iou in zip(args.mask, save_overlays(picture, masks, tokens, args.out), tokens.losses[-1], tokens.iou):
        print(f"{path}: loss {loss:.3f}, overlap of map and mask {iou:.2f}, {overlaid}")
    print(args.out / "tokens.safetensors")
