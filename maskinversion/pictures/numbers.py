"""Numbers of any kind as tensors, and floats in their range."""

import os
import warnings
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, InputWarning, encodable

if TYPE_CHECKING:
    from PIL import Image

OVERSHOOT = 0.25  # beyond 0..1: what resizing with a bicubic or Lanczos filter leaves is clamped
ROUNDING = 1e-3


def as_numbers(given: object, what: str) -> np.ndarray | Tensor:
    """An array or tensor, of bool, integers or floats."""
    if isinstance(given, Tensor):
        if given.is_complex() or given.layout != torch.strided:
            raise InputError(f"{what} has numbers of type {given.dtype} ({given.layout}); use uint8 (0..255) or float (0..1)")
        return given.detach()
    try:
        numbers = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{what} cannot be read as an array ({error})") from error
    if numbers.dtype.kind not in "buif":
        raise InputError(
            f"{what} is a {type(given).__name__} of {numbers.dtype}; give a file, a PIL image, or an array or tensor of uint8 "
            f"(0..255) or float (0..1)"
        )
    return numbers


def as_tensor(numbers: np.ndarray | Tensor) -> Tensor:
    """Numbers as a tensor of bool, uint8, int32, int64 or a float type."""
    if isinstance(numbers, np.ndarray):
        kind = numbers.dtype.newbyteorder("=")
        if kind.kind == "f" and kind.itemsize > 8:
            kind = np.dtype(np.float64)
        numbers = torch.from_numpy(np.array(numbers, kind, copy=not numbers.flags.writeable or None, order="C"))
    if numbers.dtype == torch.uint16:
        return numbers.to(torch.int32)
    if not numbers.is_floating_point() and numbers.dtype not in (torch.bool, torch.uint8):
        return numbers.to(torch.int64)
    return numbers


def in_range(values: Tensor, what: str) -> Tensor:
    """Floats as float32 in 0..1: what is a little beyond, after resizing say, is clamped, with a warning if it is not rounding.

    Raises InputError for NaN, infinity, and other scales.
    """
    values = values.float()
    low, high = (float(value) for value in values.aminmax())
    if not np.isfinite(low) or not np.isfinite(high):
        raise InputError(f"{what} contains NaN or infinite values, as half precision may give: make it again in float32")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        raise InputError(
            f"{what} has values from {low:.3g} to {high:.3g}; floats must be in 0..1. If they are 0..255, divide by 255; if they "
            f"are -1..1, take (x + 1) / 2; if they are ids, give integers"
        )
    if low >= 0 and high <= 1:
        return values
    if low < -ROUNDING or high > 1 + ROUNDING:
        warn(f"{what} has values from {low:.3g} to {high:.3g}; they were clamped to 0..1")
    return values.clamp(0, 1)


def is_16_bit(numbers: np.ndarray | Tensor) -> bool:
    return numbers.dtype in (torch.uint16, np.dtype("<u2"), np.dtype(">u2"))


def is_array(given: object) -> bool:
    return isinstance(given, Tensor) or hasattr(given, "__array__")


def is_file(given: object) -> TypeGuard[str | os.PathLike]:
    return isinstance(given, (str, os.PathLike))


def is_picture(given: object) -> bool:
    """Whether it may be a whole picture: not a number, nor a row of them."""
    return is_file(given) or is_pil(given) or (is_array(given) and getattr(given, "ndim", 0) > 1)


def is_pil(given: object) -> "TypeGuard[Image.Image]":
    return hasattr(given, "getexif")  # without importing Pillow


def warn(words: str) -> None:
    warnings.warn(encodable(words), InputWarning, stacklevel=3)
