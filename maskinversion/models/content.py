"""What a file of weights is, by what is in it and not by its name."""

import zipfile
from pathlib import Path

from ..errors import ModelError, first_line
from ..files import LARGEST_JSON, check_file

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
