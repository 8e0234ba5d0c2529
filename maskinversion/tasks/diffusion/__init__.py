"""Pictures from localized tokens, with the pipelines of diffusers that take a CLIP image embedding.

`load_decoder` gives a `Decoder`, which makes pictures as `Settings` say.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decoder import Decoder
    from .loading import load_decoder
    from .settings import Settings

__all__ = ["Decoder", "Settings", "load_decoder"]

# Imported when first asked for, so that settings can be listed without torch.
_MODULES = {"Decoder": "decoder", "Settings": "settings", "load_decoder": "loading"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found
