"""MaskInversion: a picture and a mask in, a localized embedding token of a frozen CLIP out.

import maskinversion as mi

clip = mi.load_clip("bundled")
inverter = mi.MaskInverter(clip)
tokens = inverter.invert(inverter.encode(image), masks)
"""

from .errors import InputError, MaskInversionError, MemoryLimitError, ModelError
from .inverter import EncodedImage, MaskInverter
from .models.clip import Clip
from .models.loading import load_clip
from .tokens import LocalizedTokens

__version__ = "0.1.0"
__all__ = [
    "Clip",
    "EncodedImage",
    "InputError",
    "LocalizedTokens",
    "MaskInversionError",
    "MaskInverter",
    "MemoryLimitError",
    "ModelError",
    "load_clip",
]  # fmt: skip
