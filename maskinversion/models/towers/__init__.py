"""Towers: one small interface over frozen vision models, one module per family.

Every module in this folder is imported, and a family registers itself with `base.family`: it needs no other place.
"""

from importlib import import_module
from pkgutil import iter_modules

from ...errors import ModelError
from .base import FAMILIES, EncodedLayers, Tower
from .opening import named, unwrapped

__all__ = ["FAMILIES", "EncodedLayers", "Tower", "tower_of", "unwrapped"]

NO_TOKENS = {"ModifiedResNet": "a ResNet", "ResNet": "a ResNet", "ConvNeXt": "a ConvNeXt", "FastVit": "a FastViT"}

for _module in iter_modules(__path__):
    import_module(f".{_module.name}", __name__)


def tower_of(model: object) -> Tower:
    """The tower that reads a live model: an open_clip or transformers module, or a ComfyUI ClipVisionModel.

    Raises ModelError that says what the model is, why it cannot be used, and what to use.
    """
    for family in FAMILIES:
        if family.reads(model):
            with named(model):
                tower = family(model)
                _ = tower.projection
            return tower
    visual = getattr(model, "visual", model)
    kind = type(getattr(visual, "trunk", visual)).__name__
    raise ModelError(
        f"this model's image side is {NO_TOKENS.get(kind, kind)}, which is not a vision transformer with an image-text space that "
        f"is known here. MaskInversion needs the attention of a ViT: use one such as ViT-B-16, ViT-L-14 or ViT-H-14"
    )
