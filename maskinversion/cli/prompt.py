"""`maskinversion prompt`"""

import argparse
import json
from pathlib import Path

from ..errors import InputError
from ..tasks.phrases import PROMPT_LISTS, PROMPT_TEMPLATE, REGION_TEMPLATE, prompt_phrases
from .arguments import (
    add_inversion,
    add_masks,
    add_model,
    at_least_one,
    invert_files,
    lines_of,
    make_inverter,
    named_masks,
    saved_tokens,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", type=Path, help="a picture, or the tokens.safetensors that `invert` wrote")
    add_masks(parser)
    parser.add_argument(
        "--list",
        action="append",
        metavar="LIST",
        help=f"what the prompt is made of, beginning with the first: {', '.join(PROMPT_LISTS)}, or a text file with a phrase a "
        f"line; may be repeated (default: all; things only for the bundled model, which knows no other words)",
    )
    parser.add_argument(
        "--template",
        default=PROMPT_TEMPLATE,
        help="what the phrases are written into, such as 'a photo of {}' (default: %(default)s)",
    )
    parser.add_argument("--each", type=at_least_one, default=1, help="most phrases of one list (default: %(default)s)")
    parser.add_argument(
        "--rise", type=float, default=0.0, help="how much nearer each further phrase must bring the text (default: %(default)s)"
    )
    parser.add_argument("--join", action="store_true", help="print one prompt of all regions, with their places")
    parser.add_argument("--region-template", default=REGION_TEMPLATE, help="of --join, for each region (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_model(parser)
    add_inversion(parser)


def run(args: argparse.Namespace) -> None:
    from ..identity import check_made_with
    from ..tasks.prompt import describe, join, place_of

    inverter = make_inverter(args)
    clip = inverter.clip
    chosen = args.list or (PROMPT_LISTS[:1] if clip.name == "bundled" else PROMPT_LISTS)
    for name in chosen:
        if name not in PROMPT_LISTS and not Path(name).exists():
            raise InputError(f"there is no file {name}, and no list of this name: the lists are {', '.join(PROMPT_LISTS)}")
    lists = {name: prompt_phrases(name, clip.name) if name in PROMPT_LISTS else lines_of(Path(name)) for name in chosen}
    tokens = saved_tokens(args)
    if tokens is None:
        tokens = invert_files(inverter, args.image, args)
        places: list[str | None] = [place_of(mask) for _, mask in named_masks(args)]
    else:
        check_made_with([tokens], clip, "give that one as --clip", what=f"{args.image} was")
        places = [place_of(found) if found.max() > 0 else None for found in tokens.maps_for()]
    prompts = describe(tokens.embeddings, clip, lists, args.template, args.each, args.rise)
    if args.json:
        regions = [
            {"prompt": prompt.text, "place": place, "similarity": round(prompt.similarity, 4)}
            for prompt, place in zip(prompts, places, strict=True)
        ]
        print(json.dumps(regions, indent=2))
    elif args.join:
        known = [place for place in places if place is not None]
        if len(known) < len(places):
            raise InputError(f"where region {places.index(None)} is, its map does not say: give the picture and its masks instead")
        print(join([prompt.text for prompt in prompts], known, args.region_template))
    else:
        for prompt in prompts:
            print(prompt.text)
