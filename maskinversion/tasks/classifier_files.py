"""Classifiers of regions in files: safetensors, with the identity of the CLIP that they are for, and checked when they are read."""

import json
import math
import os
from pathlib import Path
from reprlib import repr as shown

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError, first_line
from ..files import check_safetensors, json_object, written_whole
from ..models.clip import check_text
from ..tokens import LocalizedTokens
from .boxes import BoxNetwork
from .classifier import RegionClassifier, check_name

FORMAT = "maskinversion-classifier-1"
# Sides of every tensor: C classes, D numbers of a token, H of the boxes' hidden layer, E of two corners.
LAYER = {"weight": "CD"}
BOXES = {"hidden": "HD", "hidden_bias": "H", "corners": "EH", "corners_bias": "E"}
PREFIX = "boxes."


def save_classifier(classifier: RegionClassifier, path: str | os.PathLike) -> None:
    """Write a safetensors file; it appears only when it is complete."""
    tensors = {"weight": classifier.weight}
    about = {
        "names": classifier.names,
        "clip": classifier.clip,
        "fingerprint": classifier.fingerprint,
        "parameters": classifier.parameters,
    }
    if classifier.boxes is not None:
        tensors |= {PREFIX + name: weight for name, weight in classifier.boxes.weights.items()}
        about["reach"] = classifier.boxes.reach
    metadata = {"format": FORMAT, "classifier": json.dumps(about)}
    with written_whole(path) as partial:
        save_file({name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}, partial, metadata)


def load_classifier(path: str | os.PathLike) -> RegionClassifier:
    """Read what `save_classifier` wrote. Raises InputError for any other file, and for one that is damaged, naming the field."""
    check_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path} is a safetensors file, but not one of a classifier of regions ({FORMAT})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no dict
    except SafetensorError as error:
        raise InputError(f"{path} is not a complete safetensors file ({first_line(error)})") from error
    except OSError as error:
        raise InputError(f"{path} could not be read ({first_line(error)})") from error
    try:
        return checked(tensors, json_object(metadata.get("classifier", ""), "the description"))
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def checked(tensors: dict[str, Tensor], about: dict) -> RegionClassifier:
    """The classifier. Raises InputError for what `save_classifier` cannot have written."""
    has_boxes = any(name.startswith(PREFIX) for name in tensors)
    wanted = LAYER | ({PREFIX + name: sides for name, sides in BOXES.items()} if has_boxes else {})
    for name in sorted(tensors.keys() ^ wanted.keys()):
        raise InputError(f"there is no {name}" if name in wanted else f"{shown(name)} does not belong there")
    names = about.get("names")
    if not isinstance(names, list) or len(names) < 2:
        raise InputError(f"names is {shown(names)}; it must be a list of two names at least")
    for name in names:
        check_name(name)
    if len(set(names)) < len(names):
        raise InputError("two of the names are the same")
    for what in ("clip", "fingerprint"):
        check_text(about.get(what))
    parameters = about.get("parameters")
    if not isinstance(parameters, dict):
        raise InputError(f"parameters is {shown(parameters)}; it must be an object")
    sizes = {"C": len(names)}
    for name, sides in wanted.items():
        check_tensor(name, tensors[name], sides, sizes)
    boxes = None
    if has_boxes:
        if sizes["E"] != 2 * sizes["D"]:
            raise InputError(f"{PREFIX}corners has {sizes['E']} rows; two corners of {sizes['D']} numbers have {2 * sizes['D']}")
        reach = about.get("reach")
        if not isinstance(reach, int | float) or isinstance(reach, bool) or not 0 < reach < math.inf:
            raise InputError(f"reach is {shown(reach)}; it must be a number above 0")
        boxes = BoxNetwork(**{name: tensors[PREFIX + name] for name in BOXES}, reach=float(reach))
    return RegionClassifier(tuple(names), tensors["weight"], boxes, about["clip"], about["fingerprint"], parameters)


def check_tensor(what: str, tensor: Tensor, sides: str, sizes: dict[str, int]) -> None:
    """sides: a letter for each; sizes: what they are, as far as known, to which those of this tensor are added."""
    if tensor.dtype != torch.float32:
        raise InputError(f"{what} has numbers of type {tensor.dtype}; they must be float32")
    shape = tuple(tensor.shape)
    if len(shape) != len(sides) or any(sizes.setdefault(one, side) != side for one, side in zip(sides, shape)):
        expected = ", ".join(str(sizes.get(one, "any")) for one in sides)
        raise InputError(f"{what} has the shape {shape}; it must be ({expected})")
    if 0 in shape:
        raise InputError(f"{what} is empty: its shape is {shape}")
    if not tensor.isfinite().all():
        raise InputError(f"{what} has NaN or infinite numbers")


def read_labelled(folder: str | os.PathLike) -> tuple[list[LocalizedTokens], list[str]]:
    """The tokens in a folder that has a folder for each class, however deep in it, and the label of each: the class folder's name.

    Raises InputError where there is no such folder, and for a file that is not one of tokens.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    tokens, labels = [], []
    for of_class in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        for file in sorted(of_class.rglob("*.safetensors")):
            if not file.name.startswith("."):
                tokens.append(LocalizedTokens.load(file))
                labels += [of_class.name] * len(tokens[-1])
    if not tokens:
        raise InputError(
            f"{folder} has no tokens of any class: it needs a folder for each class, with the name of the class, and in it the "
            f".safetensors files of its tokens"
        )
    return tokens, labels
