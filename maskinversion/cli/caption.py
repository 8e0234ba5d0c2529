"""`maskinversion caption`"""

import argparse
from pathlib import Path

from ..tasks.decoding import HOWS, Decoding
from .arguments import add_inversion, add_masks, add_model, invert_files, make_inverter, saved_tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="a picture, or the tokens.safetensors that `invert` wrote")
    add_masks(parser)
    parser.add_argument("--captioner", default="bundled", help="'bundled', or a ClipCap checkpoint (default: %(default)s)")
    parser.add_argument("--tokenizer", help="folder of GPT-2's vocab.json and merges.txt, where they are not beside the checkpoint")
    parser.add_argument("--how", choices=HOWS, default="greedy", help="how words are chosen (default: %(default)s)")
    parser.add_argument("--count", type=int, default=1, help="captions of each region (default: %(default)s)")
    parser.add_argument("--beams", type=int, default=5, help="of --how beam (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of --how sample (default: %(default)s)")
    parser.add_argument("--top-p", type=float, default=0.9, help="of --how sample (default: %(default)s)")
    parser.add_argument("--length", type=int, default=40, help="most pieces of words (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of --how sample")
    add_model(parser)
    add_inversion(parser)


def run(args: argparse.Namespace) -> None:
    from ..tasks.caption import load_captioner

    decoding = Decoding(args.how, args.count, args.beams, args.temperature, args.top_p, args.length, args.seed)
    captioner = load_captioner(args.captioner, args.tokenizer, args.device)
    tokens = saved_tokens(args)
    if tokens is None:
        tokens = invert_files(make_inverter(args), args.image, args)
    for number, texts in enumerate(captioner.caption(tokens, decoding)):
        print(f"region {number}: {' | '.join(texts)}")
