"""What comes with the package: a miniature CLIP, captioner and decoders, and example scenes with masks and names.

What there is can be listed without torch; it is imported when a scene is opened.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

BUNDLED = Path(__file__).parent
SCENES = BUNDLED / "examples"
NAMES: dict[str, list[str]] = json.loads((SCENES / "examples.json").read_text(encoding="utf-8"))
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
    import torch

    from ..pictures import read_mask
    from ..pictures.files import open_picture

    masks = [read_mask(SCENES / f"{name}-mask{i}.png") for i in range(len(NAMES[name]))]
    return Example(open_picture(SCENES / f"{name}.png").convert("RGB"), torch.stack(masks), NAMES[name])


def bundled_classes() -> list[str]:
    """The names that the bundled CLIP was trained with."""
    return (BUNDLED / "classes.txt").read_text(encoding="utf-8").splitlines()


def bundled_phrases(name: str) -> list[str]:
    """One of the lists of phrases that prompts are made of, such as `materials`."""
    return (BUNDLED / "phrases" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
