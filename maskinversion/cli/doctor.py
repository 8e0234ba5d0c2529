"""`maskinversion doctor`"""

import argparse
import importlib.metadata
import platform
from pathlib import Path

from ..bundled import BUNDLED, bundled_classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(args: argparse.Namespace) -> None:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..models.loading import best_device, load_clip

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
