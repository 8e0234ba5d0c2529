"""MaskInversion: a picture and a mask in, a localized embedding token of a frozen CLIP out.

import maskinversion as mi

clip = mi.load_clip("bundled")
inverter = mi.MaskInverter(clip)
tokens = inverter.invert(inverter.encode(image), masks)
"""

from .clip import Clip
from .errors import InputError, InputWarning, MaskInversionError, MemoryLimitError, ModelError
from .inverter import EncodedImage, MaskInverter
from .loading import load_clip
from .pictures import label_masks, read_mask
from .tokens import LocalizedTokens

__version__ = "0.1.0"
__all__ = [
    "Clip",
    "EncodedImage",
    "InputError",
    "InputWarning",
    "LocalizedTokens",
    "MaskInversionError",
    "MaskInverter",
    "MemoryLimitError",
    "ModelError",
    "label_masks",
    "load_clip",
    "read_mask",
]  # fmt: skip
