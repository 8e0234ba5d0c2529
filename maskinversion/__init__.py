"""MaskInversion: a picture and a mask in, a localized embedding token of a frozen CLIP out.

import maskinversion as mi

clip = mi.load_clip("bundled")
inverter = mi.MaskInverter(clip)
tokens = inverter.invert(inverter.encode(image), masks)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import InputError, MaskInversionError, MemoryLimitError, ModelError

if TYPE_CHECKING:
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

# Imported when first asked for, so that what needs no torch, such as `maskinversion --help`, does not wait for it.
_MODULES = {
    "Clip": "models.clip",
    "EncodedImage": "inverter",
    "LocalizedTokens": "tokens",
    "MaskInverter": "inverter",
    "load_clip": "models.loading",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
