"""Scenes that come with the package, with the mask and the name of every object, for demos and workflows."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .errors import InputError
from .pictures import open_picture, read_mask

FOLDER = Path(__file__).parent / "bundled" / "examples"
NAMES: dict[str, list[str]] = json.loads((FOLDER / "examples.json").read_text(encoding="utf-8"))
EXAMPLES = tuple(NAMES)


@dataclass(frozen=True)
class Example:
    """image: PIL, RGB. masks [M, h, w] in 0..1: the visible part of each object. names: of the M objects."""

    image: Image.Image
    masks: Tensor
    names: list[str]


def load_example(name: str) -> Example:
    """One of EXAMPLES. Raises InputError for another name."""
    if name not in NAMES:
        raise InputError(f"there is no example called {name!r}; there are {', '.join(EXAMPLES)}")
    masks = [read_mask(FOLDER / f"{name}-mask{i}.png") for i in range(len(NAMES[name]))]
    return Example(open_picture(FOLDER / f"{name}.png").convert("RGB"), torch.stack(masks), NAMES[name])
