"""Pictures: any accepted one as numbers in 0..1."""

import numpy as np
import torch
from torch import Tensor

from ..compute.memory import check_room
from ..errors import InputError
from .numbers import as_numbers, as_tensor, in_range, is_16_bit, is_file, is_pil, warn


def as_pixels(image: object) -> Tensor:
    """Any accepted picture as float32 [1, 3, h, w] in 0..1.

    image: the path of a file; PIL; or an array or tensor [h, w] or [h, w, C], of grey, grey and alpha, RGB or RGBA, or a batch of
    one such: bool, uint8, uint16, integers of 0..255, or floats in 0..1. Colours under transparency are as they are stored.
    Raises InputError for anything else; warns where numbers had to be clamped or look like another scale.
    """
    what = "the image"
    if is_file(image) or is_pil(image):
        from .files import array_of, opened

        if is_file(image):
            what = str(image)
        with opened(image, what) as picture:
            image = array_of(picture)
    numbers = as_numbers(image, what)
    shape = tuple(numbers.shape)
    if numbers.ndim == 4 and shape[0] == 1:
        numbers = numbers[0]
    elif numbers.ndim == 4 and shape[0] > 1 and 1 <= shape[3] <= 4:
        raise InputError(f"{what} has shape {shape}, a batch of {shape[0]} pictures: give one at a time, such as images[0]")
    if numbers.ndim == 2:
        numbers = numbers[..., None]
    if numbers.ndim != 3 or not 1 <= numbers.shape[2] <= 4:
        advice = ""
        if numbers.ndim == 3 and numbers.shape[0] in (1, 3, 4):
            advice = ". If its channels come first, give image.permute(1, 2, 0); if these are grey pictures, one at a time"
        raise InputError(f"{what} has shape {shape}; it must be height x width x 3 (RGB){advice}")
    if 0 in shape:
        raise InputError(f"{what} is empty: its shape is {shape}")
    height, width = numbers.shape[:2]
    check_room(3 * height * width * torch.float32.itemsize, f"{what} of {width} x {height} px", "make it smaller first")
    pixels = scaled(numbers[..., : 3 if numbers.shape[2] > 2 else 1], what)
    return pixels.expand(-1, -1, 3).permute(2, 0, 1)[None]


def scaled(numbers: np.ndarray | Tensor, what: str) -> Tensor:
    """The numbers of a picture as float32 in 0..1."""
    values = as_tensor(numbers)
    if values.is_floating_point():
        return in_range(values, what)
    if values.dtype == torch.bool:
        return values.float()
    low, high = (int(value) for value in values.aminmax())
    white = 65535 if is_16_bit(numbers) else 255
    if low < 0 or high > white:
        raise InputError(
            f"{what} has integers from {low} to {high}, so it is not clear which is white: give uint8 for 0..255, uint16 for "
            f"0..65535, or floats in 0..1"
        )
    if 0 < high <= white // 255:
        warn(f"{what} is almost black: its highest number is {high}, and {white} is white. Is it of another scale?")
    return values.float().div_(white)
