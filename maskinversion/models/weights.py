"""Files of weights: which are refused before anything is built of them, and what is in them; nothing in them is ever run."""

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError, ModelError, first_line
from ..files import check_safetensors
from ..pickles import check_steps
from .content import SAFETENSORS, TORCHSCRIPT, kind_of
from .torchscript import read_torchscript

COUNTS = re.compile("layers|depth|blocks")  # what a configuration calls numbers of modules
MOST_LAYERS = 256
LEGACY_PICKLES = 5  # in a row, in files of PyTorch before 1.6
KINDS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of numbers that weights are written with


def shapes_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a safetensors file, by their names. Raises ModelError for a file that is none."""
    check_safetensors(path, ModelError)
    with explained(path), safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def metadata_in(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself. Raises ModelError for a file that is none."""
    check_safetensors(path, ModelError)
    with explained(path), safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a file, on the CPU, by their names. Raises ModelError for anything else, and says what it is."""
    return plain_state(read_any(path), path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The same of what a training run saved, too, without the names of what was wrapped around the model."""
    found = read_any(path)
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    tensors = plain_state(found, path)
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def plain_state(found: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise ModelError(f"{path.name} holds other things than weights: use the published file, or safetensors")
    if not found:
        raise ModelError(f"{path.name} holds no weights: use the published file, or save model.state_dict()")
    return dict(found)


def read_any(path: Path) -> Any:
    """What is in a file of any of the kinds. Raises ModelError for a file of another, or a damaged one."""
    kind = kind_of(path)
    if kind == TORCHSCRIPT:
        return read_torchscript(path)
    if kind == SAFETENSORS:
        check_safetensors(path, ModelError)
        with explained(path):
            return load_file(path)
    if pickles_are_unsafe():
        raise ModelError(refused(path))
    check_instructions(path)
    return read_pickle(path)


def read_pickle(path: Path) -> Any:
    """What torch.load gives. Raises ModelError where that could run code, or has tensors that are larger than the file."""
    with explained(path), path.open("rb") as file:  # by its name torch would take some for safetensors
        found = torch.load(file, map_location="cpu", weights_only=True)
    room = 2 * path.stat().st_size  # since an embedding and the layer after it may share theirs
    for tensor in tensors_of(found):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ModelError(f"{path.name} has quantised, sparse or missing weights: use the file with all of them as they are")
        size = tensor.numel() * tensor.element_size()
        room -= size
        if size > tensor.untyped_storage().nbytes() or room < 0:
            raise ModelError(f"{path.name} is damaged: it has weights that are larger than the file")
    return found


def tensors_of(found: object) -> Iterator[Tensor]:
    """All tensors in dicts and lists, one in the other."""
    waiting, seen = [found], set()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what safetensors and torch raise at damaged files into a ModelError."""
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} was refused: it is not plain weights and could run code. Use the published file, or safetensors"
        ) from error
    except Exception as error:  # a damaged file makes them raise nearly everything
        kind = "a safetensors file" if path.suffix == ".safetensors" else "a file of weights"
        raise ModelError(f"{path} is not {kind}, or it is not complete ({first_line(error)}): download it again") from error


def check_instructions(path: Path) -> None:
    """Raises ModelError for a file of torch.load whose pickles, or whose compression, could exhaust the memory or the C stack."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                for _ in range(LEGACY_PICKLES):
                    check_steps(file)
            return
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise InputError("it unpacks to more than it has")
            for entry in archive.infolist():
                if entry.filename.endswith(".pkl"):
                    with archive.open(entry) as file:
                        check_steps(file)
    except InputError as error:
        raise ModelError(f"{path.name} was refused: {error}. Use the published file, or safetensors") from error
    except Exception:  # other damage is for who reads it to explain
        return


def check_finite(weights: dict[str, Tensor], name: str) -> None:
    """Raises ModelError for weights of which some are no numbers, or infinite. name: of the model, in the message."""
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{name} has NaN or infinite weights, in {key}: its file is damaged, download it again")


def check_counts(config: object, name: str, key: str = "") -> None:
    """Raises ModelError for a configuration, of JSON, with more layers or longer lists than any model has. name: of its file.

    Sizes can be compared with the file of the weights without making anything of them; but thousands of layers take minutes.
    """
    values = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    counts = COUNTS.search(key) is not None
    if (isinstance(config, list) and len(config) > MOST_LAYERS) or (
        counts and isinstance(config, int | float) and not 0 <= config <= MOST_LAYERS
    ):
        raise ModelError(f"{name} has {shown(config)} as {key or 'its content'}: no model has so many, so it is damaged")
    for inner, value in zip(config if isinstance(config, dict) else [key] * len(values), values):
        check_counts(value, name, inner)


def numbers_in(path: Path) -> int:
    """How many numbers the weights in a safetensors file are."""
    return sum(torch.Size(shape).numel() for shape in shapes_in(path).values())


def check_size(model: nn.Module, there: int, name: str) -> None:
    """Raises ModelError for a model that is to have far more weights than there are in its file.

    model: made on the device `meta`, which takes no memory.
    """
    wanted = sum(weight.numel() for weight in model.parameters())
    if wanted > 2 * there:
        raise ModelError(f"{name} describes a model of {wanted} weights, and its file has {there}: do they belong together?")


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
