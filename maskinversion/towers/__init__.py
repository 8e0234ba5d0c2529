"""Towers: one small interface over frozen vision models, one module per family."""

from ..errors import ModelError
from .base import EncodedLayers, Tower
from .open_clip_vit import OpenClipViT

__all__ = ["EncodedLayers", "OpenClipViT", "Tower", "tower_of"]

NO_TOKENS = {"ModifiedResNet": "a ResNet", "ResNet": "a ResNet", "ConvNeXt": "a ConvNeXt", "FastVit": "a FastViT"}


def tower_of(model: object) -> Tower:
    """The tower that reads a live model: an open_clip or transformers module, or a ComfyUI ClipVisionModel.

    Raises ModelError that says what the model is, why it cannot be used, and what to use.
    """
    visual = getattr(model, "visual", model)  # an open_clip model, or its image side
    if isinstance(visual, OpenClipViT.reads):
        return OpenClipViT(visual)
    kind = type(getattr(visual, "trunk", visual)).__name__
    raise ModelError(
        f"this model's image side is {NO_TOKENS.get(kind, kind)}, which is not a vision transformer with an image-text space that "
        f"is known here. MaskInversion needs the attention of a ViT: use one such as ViT-B-16, ViT-L-14 or ViT-H-14"
    )
