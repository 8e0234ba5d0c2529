"""Files of weights, recognised by what is in them and not by their names; nothing in them is ever run."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import ModelError, first_line
from ..files import LARGEST_JSON, check_file
from .torchscript import read_torchscript

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
AGAIN = "download it again"
SAFETENSORS, TORCH, TORCHSCRIPT = "safetensors", "torch", "torchscript"

# How files begin that are often found in the place of weights, and what to say of them.
OTHERS = {
    b"version https://git-lfs": "is only a Git LFS pointer to the weights: run 'git lfs pull' in its folder, or download the file",
    b"<!doctype": f"is a web page that was saved in the place of the weights: {AGAIN}, by the page's download link",
    b"<html": f"is a web page that was saved in the place of the weights: {AGAIN}, by the page's download link",
    b"<?xml": f"is a message of a server (XML) in the place of the weights: {AGAIN}",
    b"gguf": "is a GGUF file, whose weights are quantised for other programs: take the safetensors file of the same model",
    b"\x93numpy": "is a NumPy array, not a model: take the safetensors file of the same model",
    b"\x89hdf": "is a file of Keras or HDF5: take the safetensors file of the same model",
    b"\x1f\x8b": "is a packed archive (gzip): unpack it",
    b"7z\xbc\xaf": "is a packed archive (7z): unpack it",
    b"rar!": "is a packed archive (RAR): unpack it",
    b"\x7felf": "is a program, not weights",
}


def is_weights(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in WEIGHT_SUFFIXES


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by their names, on the CPU.

    Raises ModelError, which says what the file is instead, and what to do.
    """
    kind = kind_of(path)
    if kind == TORCHSCRIPT:
        return read_torchscript(path)
    if kind == TORCH and pickles_are_unsafe():
        raise ModelError(refused(path))
    try:
        if kind == SAFETENSORS:
            found = load_file(path)
        else:
            with open(path, "rb") as file:  # by its name torch would take some for safetensors
                found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} was refused: it is not plain weights and could run code. Use a safetensors file") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file, or it is not complete ({first_line(error)}): {AGAIN}") from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise ModelError(f"{path} is not a file of weights, or it is not complete ({first_line(error)}): {AGAIN}") from error
    return state_dict(found, path)


def state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """The weights in what a training run saved, without the names of what was wrapped around the model."""
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no weights by name, as a state dict does: save model.state_dict(), best as safetensors")
    tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def kind_of(path: Path) -> str:
    """SAFETENSORS, TORCH or TORCHSCRIPT. Raises ModelError, which says what it is, for anything else."""
    if check_file(path, ModelError).st_size == 0:
        raise ModelError(f"{path} is empty: {AGAIN}")
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ModelError(f"{path} could not be read ({first_line(error)})") from error
    begin = head.lstrip().lower()
    for start, what in OTHERS.items():
        if begin.startswith(start):
            raise ModelError(f"{path} {what}")
    if head.startswith(b"PK\x03\x04"):
        return kind_of_archive(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LARGEST_JSON:
        return SAFETENSORS
    if head[:1] == b"\x80" and 2 <= head[1] <= 5:
        return TORCH
    if path.suffix.lower() == ".safetensors":
        raise ModelError(f"{path} is not a safetensors file, or it is not complete: {AGAIN}")
    if begin.startswith(b"{"):
        raise ModelError(f"{path} is a text (JSON), not weights: choose the weights beside it, or {AGAIN}")
    raise ModelError(f"{path} is neither a safetensors file nor one of PyTorch, or it is not complete: {AGAIN}")


def kind_of_archive(path: Path) -> str:
    """Of a zip archive, as torch.save and torch.jit.save write them."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ModelError(f"{path} is not complete ({first_line(error)}): {AGAIN}") from error
    if "data.pkl" not in inside:
        raise ModelError(f"{path} is a zip archive of something else than weights: unpack it, and choose the weights in it")
    return TORCHSCRIPT if "constants.pkl" in inside else TORCH


def pickles_are_unsafe() -> bool:
    """Whether a file can run code even when PyTorch reads it with weights_only=True."""
    return torch.__version__ < "2.6"


def check_pickle(path: Path) -> None:
    """Raises ModelError for weights that are not safetensors where PyTorch has that hole."""
    if path.suffix.lower() != ".safetensors" and pickles_are_unsafe():
        raise ModelError(refused(path))


def refused(path: Path) -> str:
    return (
        f"{path.name} was refused: reading it with PyTorch {torch.__version__} could run code (CVE-2025-32434). Use a "
        f"safetensors file, or PyTorch 2.6 or newer"
    )
