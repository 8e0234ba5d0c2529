"""Files of weights: which there are, and which are refused before anything is built of them."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ModelError

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def check_weights_file(path: Path) -> None:
    """Refuse a file that is not what its name says, before anything is built."""
    check_pickle(path)
    if path.suffix != ".safetensors":
        return  # open_clip reads these with weights_only=True
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file, or it is not complete ({error}). Download it again") from error


def pickles_are_unsafe() -> bool:
    """Whether a file can run code even when PyTorch reads it with weights_only=True."""
    return torch.__version__ < "2.6"


def check_pickle(path: Path) -> None:
    """Raises ModelError for weights that are not safetensors where PyTorch has that hole."""
    if path.suffix != ".safetensors" and pickles_are_unsafe():
        raise ModelError(
            f"{path.name} was refused: reading it with PyTorch {torch.__version__} could run code (CVE-2025-32434). Use a "
            f"safetensors file, or PyTorch 2.6 or newer"
        )
