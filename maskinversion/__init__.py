"""MaskInversion: a picture and a mask in, a localized embedding token of a frozen CLIP out.

import maskinversion as mi

clip = mi.load_clip("bundled")
inverter = mi.MaskInverter(clip)
tokens = inverter.invert(inverter.encode(image), masks)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import InputError, InputWarning, MaskInversionError, MemoryLimitError, ModelError

if TYPE_CHECKING:
    from .inverter import EncodedImage, MaskInverter
    from .models.clip import Clip
    from .models.loading import load_clip
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

# Imported when first asked for, so that what needs no torch, such as `maskinversion --help`, does not wait for it.
_MODULES = {
    "Clip": "models.clip",
    "EncodedImage": "inverter",
    "LocalizedTokens": "tokens",
    "MaskInverter": "inverter",
    "label_masks": "pictures",
    "load_clip": "models.loading",
    "read_mask": "pictures",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
