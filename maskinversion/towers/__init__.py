"""Towers: one small interface over frozen vision models, one module per family."""

from .base import EncodedLayers, Tower
from .open_clip_vit import OpenClipViT

__all__ = ["EncodedLayers", "OpenClipViT", "Tower"]
