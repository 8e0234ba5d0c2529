"""What can be chosen for an inversion. It stands by itself, so that it can be listed without torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from .errors import InputError

FITS = ("stretch", "pad", "crop", "aspect")
PRECISIONS = ("exact", "fast")
STARTS = ("picture", "patches", "cutout", "both")
LR_UNITS = ("absolute", "relative")
READINGS = ("auto", "brightness", "alpha")  # of a mask file: what of it holds the region


# Sets of values to begin with (docs/presets.md).
PRESETS: dict[str, dict[str, Any]] = {
    "region": dict(start="both", iterations=10, lr=0.03, lr_unit="relative", alpha=0.0),
    "published": dict(start="picture", iterations=10, lr=0.1, lr_unit="absolute", alpha=0.0),
    "balanced": dict(start="both", iterations=10, lr=0.1, lr_unit="relative", alpha=1.0),
    "context": dict(start="picture", iterations=10, lr=0.1, lr_unit="absolute", alpha=5.0),
}


def setting(default: object, help: str, choices: Sequence[str] | None = None) -> Any:
    """A field with its one-line description, which the command line shows, and the words that it can be, if only some."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True)
class InversionSettings:
    """How regions are inverted.

    iterations: K, steps of AdamW (paper: 10).
    lr: its rate. The published class's default is 0.1; its README example uses 0.5. Embeddings are not normalised, so what a
        rate does depends on the length of the model's embeddings.
    alpha: pulls the token towards the global embedding; 0 is the region only, 5 keeps context (paper, section 4).
    layers: how many of the last blocks the map sums over (reference: 1).
    image_size: side of the square that the model sees, in pixels; None is the model's own. A multiple of its patch size.
    fit: `stretch`, `pad`, `crop` or `aspect`, see `Geometry`.
    precision: `exact`, or `fast`: the large products in half precision, where that is faster on this device (float16 on a GPU,
        bfloat16 on a CPU that has it); the map, the loss and the steps stay in float32.
    tolerance: a mask stops early, once its loss has not changed by this much in a step; 0 does all iterations, as the reference.
    start: where the token of a region starts, see `starts`. `picture`: the embedding of the whole picture, the same for every
        region (the paper's). `patches`: of the region's own patches, nearly for free. `cutout`: the mean of two embeddings of the
        region enlarged, with the rest blurred, an encoder pass each. `both`: the mean of these three.
    lr_unit: `absolute`, as the reference has it; or `relative`: lr counts in the root mean square of the numbers of the whole
        picture's embedding, so that it turns the token by about the same angle on every model (a first step of lr 0.1 by 0.1 rad).

    Raises InputError for a value that cannot be used.
    """

    iterations: int = setting(10, "steps")
    lr: float = setting(0.1, "learning rate")
    alpha: float = setting(0.0, "pull towards the whole image; 0 is the region only")
    layers: int = setting(1, "last blocks that the map sums over")
    image_size: int | None = setting(None, "pixels that the model sees (default: its own)")
    fit: str = setting("stretch", "how the picture becomes what the model sees", FITS)
    precision: str = setting("exact", "fast: large products in half precision", PRECISIONS)
    tolerance: float = setting(0.0, "a mask stops once its loss has not changed by this much in a step; 0 does all steps")
    start: str = setting("picture", "where the token starts: at the whole picture, or in the region", STARTS)
    lr_unit: str = setting("absolute", "relative: lr in the embedding's own unit, the same on every model", LR_UNITS)

    def __post_init__(self):
        for what in ("iterations", "layers"):
            if not isinstance(getattr(self, what), Integral) or getattr(self, what) < 1:
                raise InputError(f"{what} is {getattr(self, what)}; it must be a whole number of at least 1")
        if not isinstance(self.image_size, Integral | None):
            raise InputError(f"image_size is {self.image_size}; it must be a whole number of pixels")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr is {self.lr}; it must be above 0")
        for what in ("alpha", "tolerance"):
            if not 0 <= getattr(self, what) < math.inf:
                raise InputError(f"{what} is {getattr(self, what)}; it must not be negative")
        for what, known in (("fit", FITS), ("precision", PRECISIONS), ("start", STARTS), ("lr_unit", LR_UNITS)):
            if getattr(self, what) not in known:
                raise InputError(f"{what} is {getattr(self, what)!r}; it must be one of {', '.join(known)}")
        make_plain(self)


def make_plain(settings: object) -> None:
    """The numbers of a frozen dataclass as Python's own, which files can have: others may be NumPy's."""
    for name, value in list(vars(settings).items()):
        if not isinstance(value, str | None):
            object.__setattr__(settings, name, int(value) if isinstance(value, Integral) else float(value))
