"""`maskinversion doctor`"""

import argparse
import importlib.metadata
import platform
from pathlib import Path

from ..bundled import BUNDLED, bundled_classes
from ..errors import InputError

# Of ComfyUI's models folder, those that the nodes look into, and those whose files can feed a CLIP_VISION.
FOLDERS = ("clip_vision", "open_clip", "clipcap", "diffusers", "ipadapter", "checkpoints")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--models", type=Path, action="append", metavar="FOLDER",
        help="a folder to look for models in, such as ComfyUI's models; may be repeated (default: that of the ComfyUI around this)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..models.loading import best_device, load_clip
    from ..tasks.inventory import downloaded, inventory

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
    for folder in folders(args.models):
        here = inventory([folder])
        print(f"models in {folder}:{'' if here else ' none'}")
        for found in here:
            print(f"  {found}")
    cached = downloaded(Path(HF_HUB_CACHE))
    print(f"downloaded models{':' if cached else ': none'}")
    for repository, found in cached:
        print(f"  {repository}, {found}")


def folders(given: list[Path] | None) -> list[Path]:
    """Where ComfyUI keeps models that are of use here, or what was given. Raises InputError for what is no folder."""
    around = Path(__file__).resolve().parents[4]
    models = given if given is not None else [around / "models"] if (around / "comfyui_version.py").is_file() else []
    for folder in models:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: give that of ComfyUI's models, say")
    return [inside for folder in models for inside in ([folder / kind for kind in FOLDERS if (folder / kind).is_dir()] or [folder])]
