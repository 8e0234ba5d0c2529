"""Towers: one small interface over frozen vision models, one module per family."""

from ...errors import ModelError
from .base import EncodedLayers, Tower
from .open_clip_vit import OpenClipViT
from .timm_vit import TimmViT
from .transformers_vit import NativeClipVision, TransformersViT

__all__ = ["EncodedLayers", "NativeClipVision", "OpenClipViT", "TimmViT", "Tower", "TransformersViT", "tower_of"]

FAMILIES = (OpenClipViT, TimmViT, NativeClipVision, TransformersViT)
NO_TOKENS = {"ModifiedResNet": "a ResNet", "ResNet": "a ResNet", "ConvNeXt": "a ConvNeXt", "FastVit": "a FastViT"}


def tower_of(model: object) -> Tower:
    """The tower that reads a live model: an open_clip or transformers module, or a ComfyUI ClipVisionModel.

    Raises ModelError that says what the model is, why it cannot be used, and what to use.
    """
    for family in FAMILIES:
        if family.reads(model):
            return family(model)
    visual = getattr(model, "visual", model)
    kind = type(getattr(visual, "trunk", visual)).__name__
    raise ModelError(
        f"this model's image side is {NO_TOKENS.get(kind, kind)}, which is not a vision transformer with an image-text space that "
        f"is known here. MaskInversion needs the attention of a ViT: use one such as ViT-B-16, ViT-L-14 or ViT-H-14"
    )
