"""The command line, `maskinversion COMMAND`. It only translates; the library does the work."""

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from PIL import Image
from torch import Tensor

from .bench.run import METHODS, Settings, check
from .bench.run import run as bench
from .errors import InputError, InputWarning, MaskInversionError
from .evaluation.command import add_arguments as add_evaluation
from .evaluation.command import settings_of
from .evaluation.run import evaluate
from .examples import EXAMPLES, load_example
from .geometry import FITS, resize
from .inverter import PRECISIONS, MaskInverter
from .loading import BUNDLED, best_device, bundled_classes, load_clip
from .overlay import overlay
from .pictures import READINGS, as_masks, as_pixels, label_masks
from .tasks.caption import HOWS, Decoding, load_captioner
from .tasks.classify import DEFAULT_TEMPLATE, NAMES, TEMPLATES, classify
from .tokens import LocalizedTokens


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 after an error that is printed in one line."""
    args = parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show_warning
        try:
            args.run(args)
        except MaskInversionError as error:
            print(f"maskinversion: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def show_warning(message: Warning, category: type[Warning], *where: object, **others: object) -> None:
    words = message if issubclass(category, InputWarning) else f"{category.__name__}: {message}"
    print(f"maskinversion: {words}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="maskinversion", description="A picture and a mask in, an embedding of that region out.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    invert = commands.add_parser("invert", help="learn the token of each masked region")
    invert.add_argument("image", type=Path)
    add_masks(invert, required=True)
    invert.add_argument("--out", type=Path, required=True, help="folder for tokens.safetensors and one overlay PNG per mask")
    add_model(invert)
    add_inversion(invert)
    invert.set_defaults(run=run_invert)

    name = commands.add_parser("classify", help="say which phrase each region is")
    name.add_argument("image", type=Path, help="a picture, or the tokens.safetensors that `invert` wrote")
    add_masks(name)
    name.add_argument("--phrase", action="append", help="may be repeated; the bundled model has its own list")
    name.add_argument("--phrases", type=Path, help="a text file with a phrase a line")
    name.add_argument("--list", choices=NAMES, help="phrases that come with the library")
    name.add_argument(
        "--template",
        action="append",
        help=f"what a phrase is put into (default: {DEFAULT_TEMPLATE!r}); several are averaged; or one of {', '.join(TEMPLATES)}",
    )
    name.add_argument("--top", type=int, default=5, help="how many phrases to print for each region (default: %(default)s)")
    name.add_argument("--json", action="store_true", help="print JSON")
    add_model(name)
    add_inversion(name)
    name.set_defaults(run=run_classify)

    caption = commands.add_parser("caption", help="write captions of each region")
    caption.add_argument("image", type=Path, help="a picture, or the tokens.safetensors that `invert` wrote")
    add_masks(caption)
    caption.add_argument("--captioner", default="bundled", help="'bundled', or a ClipCap checkpoint (default: %(default)s)")
    caption.add_argument(
        "--tokenizer", help="folder of GPT-2's vocab.json and merges.txt, where they are not beside the checkpoint"
    )
    caption.add_argument("--how", choices=HOWS, default="greedy", help="how words are chosen (default: %(default)s)")
    caption.add_argument("--count", type=int, default=1, help="captions of each region (default: %(default)s)")
    caption.add_argument("--beams", type=int, default=5, help="of --how beam (default: %(default)s)")
    caption.add_argument("--temperature", type=float, default=1.0, help="of --how sample (default: %(default)s)")
    caption.add_argument("--top-p", type=float, default=0.9, help="of --how sample (default: %(default)s)")
    caption.add_argument("--length", type=int, default=40, help="most pieces of words (default: %(default)s)")
    caption.add_argument("--seed", type=int, default=0, help="of --how sample")
    add_model(caption)
    add_inversion(caption)
    caption.set_defaults(run=run_caption)

    demo = commands.add_parser("demo", help="name the regions of a bundled scene, offline")
    demo.add_argument("--example", choices=EXAMPLES, default=EXAMPLES[0])
    demo.add_argument("--out", type=Path, default=Path("maskinversion-demo"))
    demo.set_defaults(run=run_demo)

    evaluation = commands.add_parser("eval", help="how well regions are named and found on a data set, against other methods")
    add_evaluation(evaluation, add_model)
    evaluation.set_defaults(run=run_eval)

    bench = commands.add_parser("bench", help="time and memory against other ways to the same tokens (many minutes)")
    bench.add_argument("--model", nargs="+", default=["ViT-B-16"], help="open_clip's ViTs, random weights (default: %(default)s)")
    bench.add_argument("--size", type=int, nargs="+", default=[224], help="pixels (default: %(default)s)")
    bench.add_argument("--masks", type=int, nargs="+", default=[1, 5, 10, 100])
    bench.add_argument("--iterations", type=int, nargs="+", default=[10])
    bench.add_argument("--layers", type=int, nargs="+", default=[1])
    bench.add_argument("--repeats", type=int, default=3, help="the fastest counts (default: %(default)s)")
    bench.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    bench.add_argument("--reference", type=Path, help="folder of the published package; tests/reference/compare.py installs it")
    bench.add_argument("--slow-masks", type=int, default=10, help="most masks for the baselines by autograd (default: %(default)s)")
    bench.add_argument("--check", type=Path, metavar="JSON", help="measure a bench.json again; fails where 20%% slower")
    bench.add_argument(
        "--out",
        type=Path,
        default=Path("maskinversion-bench"),
        help="folder for bench.json, which is added to, bench.md, bench.png",
    )
    bench.set_defaults(run=run_bench)

    doctor = commands.add_parser("doctor", help="print versions, devices and the models found")
    doctor.set_defaults(run=run_doctor)
    return top


def add_masks(command: argparse.ArgumentParser, required: bool = False) -> None:
    command.add_argument("--mask", type=Path, action="append", required=required, help="white where the region is; may be repeated")
    command.add_argument(
        "--mask-by", choices=READINGS, default="auto", help="what of a mask file holds the region, where that is not clear"
    )
    command.add_argument(
        "--labels", type=label_ids, metavar="IDS", help="the mask files are label maps: 'all', or the ids to take, such as 1,15"
    )


def label_ids(text: str) -> list[int] | str:
    return text if text == "all" else [int(number) for number in text.split(",")]


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


def make_inverter(args: argparse.Namespace) -> MaskInverter:
    names = ("iterations", "lr", "alpha", "layers", "image_size", "fit", "precision")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return MaskInverter(load_clip(args.clip, args.architecture, args.device), **given)


def named_masks(args: argparse.Namespace) -> Iterator[tuple[str, Tensor]]:
    """The masks of the files, one after the other, and what to call them."""
    if args.labels is None:
        yield from zip(map(str, args.mask), as_masks(args.mask, args.mask_by))
        return
    for path in args.mask:
        for label, mask in label_masks(path, None if args.labels == "all" else args.labels).items():
            yield f"{path}, label {label}", mask.float()


def invert_files(inverter: MaskInverter, args: argparse.Namespace) -> LocalizedTokens:
    return inverter.invert(inverter.encode(args.image), (mask for _, mask in named_masks(args)))


def saved_tokens(args: argparse.Namespace) -> LocalizedTokens | None:
    """What `invert` wrote, where that was given instead of a picture and masks. Raises InputError for neither."""
    if args.image.suffix == ".safetensors":
        return LocalizedTokens.load(args.image)
    if not args.mask:
        raise InputError("give the region of the picture with --mask, or a tokens.safetensors instead of a picture")
    return None


def save_overlays(image: object, masks: Iterable[Tensor], tokens: LocalizedTokens, out: Path) -> list[Path]:
    """One PNG per region: the map over the picture and the outline of the mask."""
    out.mkdir(parents=True, exist_ok=True)
    pixels = as_pixels(image)[0].permute(1, 2, 0)
    paths = []
    for i, (heat, mask) in enumerate(zip(tokens.maps_for(), masks, strict=True)):
        painted = overlay(pixels, heat.cpu(), resize(mask[None, None], tuple(pixels.shape[:2]), "bilinear")[0, 0])
        paths.append(out / f"overlay-{i}.png")
        Image.fromarray((painted * 255).round().byte().numpy()).save(paths[-1])
    return paths


def run_invert(args: argparse.Namespace) -> None:
    tokens = invert_files(make_inverter(args), args)
    tokens.save(args.out / "tokens.safetensors")
    names, masks = [], named_masks(args)
    paths = save_overlays(args.image, (names.append(name) or mask for name, mask in masks), tokens, args.out)
    for name, overlaid, loss, iou in zip(names, paths, tokens.losses[-1], tokens.iou, strict=True):
        print(f"{name}: loss {loss:.3f}, overlap of map and mask {iou:.2f}, {overlaid}")
    print(args.out / "tokens.safetensors")


def run_classify(args: argparse.Namespace) -> None:
    phrases = list(args.phrase or [])
    if args.phrases:
        try:
            phrases += args.phrases.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the phrases could not be read from {args.phrases} ({error})") from error
    if args.list or (not phrases and args.clip == "bundled"):
        phrases += NAMES[args.list or "bundled"]()
    inverter = make_inverter(args)
    tokens = saved_tokens(args)
    if tokens is None:
        tokens = invert_files(inverter, args)
    elif tokens.fingerprint != inverter.clip.fingerprint:
        raise InputError(f"{args.image} was made with {tokens.model}, not with {inverter.clip.name}: give that one as --clip")
    templates = [template for given in args.template or [DEFAULT_TEMPLATE] for template in TEMPLATES.get(given, [given])]
    print_classification(tokens.embeddings, inverter, phrases, templates, args.top, args.json)


def print_classification(embeddings, inverter, phrases, template=DEFAULT_TEMPLATE, top=5, as_json=False) -> None:
    found = classify(embeddings, inverter.clip, phrases, template)
    values, indices = found.probabilities.topk(min(top, len(found.phrases)))
    regions = [
        {found.phrases[i]: round(v, 4) for i, v in zip(i_row, v_row)} for i_row, v_row in zip(indices.tolist(), values.tolist())
    ]
    if as_json:
        print(json.dumps(regions, indent=2))
        return
    for number, region in enumerate(regions):
        print(f"region {number}: " + ", ".join(f"{phrase} {probability:.0%}" for phrase, probability in region.items()))


def run_caption(args: argparse.Namespace) -> None:
    decoding = Decoding(args.how, args.count, args.beams, args.temperature, args.top_p, args.length, args.seed)
    captioner = load_captioner(args.captioner, args.tokenizer, args.device)
    tokens = saved_tokens(args)
    if tokens is None:
        tokens = invert_files(make_inverter(args), args)
    for number, texts in enumerate(captioner.caption(tokens, decoding)):
        print(f"region {number}: {' | '.join(texts)}")


def run_demo(args: argparse.Namespace) -> None:
    example = load_example(args.example)
    inverter = MaskInverter(load_clip("bundled"))
    tokens = inverter.invert(inverter.encode(example.image), example.masks)
    for path in save_overlays(example.image, example.masks, tokens, args.out):
        print(path)
    print(f"The masks are of: {', '.join(example.names)}. What the tokens say:")
    print_classification(tokens.embeddings, inverter, bundled_classes(), top=3)


def run_eval(args: argparse.Namespace) -> None:
    evaluate(settings_of(args))


def run_bench(args: argparse.Namespace) -> None:
    if args.check:
        check(args.check)
        return
    names = {field.name for field in dataclasses.fields(Settings)}
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in vars(args).items() if name in names}
    bench(Settings(**given), args.out)


def run_doctor(args: argparse.Namespace) -> None:
    print(f"Python {platform.python_version()} on {platform.platform()}")
    for package in ("maskinversion", "torch", "torchvision", "open_clip_torch", "timm", "safetensors", "numpy", "pillow"):
        try:
            print(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"{package} is not installed as a package")
    print(f"device: {best_device()}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            print(f"  cuda:{index} {properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    clip = load_clip("bundled", device="cpu")
    print(f"bundled model: {clip}, {len(bundled_classes())} names, {BUNDLED}")
    found = sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in Path(HF_HUB_CACHE).glob("models--*"))
    print(f"downloaded models: {', '.join(found) or 'none'}")


if __name__ == "__main__":
    sys.exit(main())
