"""Pictures from localized tokens, with the pipelines of diffusers that take a CLIP image embedding.

`load_decoder` gives a `Decoder`, which makes pictures as `Settings` say. `load_prior` gives a `Prior`, which makes the embedding of
a prompt with regions in it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decoder import Decoder
    from .loading import load_decoder
    from .prior import Prior, load_prior
    from .settings import Settings

__all__ = ["Decoder", "Prior", "Settings", "load_decoder", "load_prior"]

# Imported when first asked for, so that settings can be listed without torch.
_MODULES = {
    "Decoder": "decoder",
    "Prior": "prior",
    "Settings": "settings",
    "load_decoder": "loading",
    "load_prior": "prior",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return found
