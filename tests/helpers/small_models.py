"""Small models of random weights, with the structure of real ones."""

import dataclasses

import open_clip
import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.models.towers.open_clip_vit import OpenClipViT


def small_clip(**vision) -> mi.Clip:
    """A small model with the options that released models use, in float64, with every weight away from its initial value."""
    torch.manual_seed(0)
    config = dict(image_size=48, patch_size=8, width=64, layers=4, head_width=32) | vision
    skip_unknown({key: value for key, value in config.items() if key != "quick_gelu"})
    quick_gelu = config.pop("quick_gelu", False)
    model = open_clip.CLIP(40, config, dict(context_length=8, width=32, heads=2, layers=1), quick_gelu=quick_gelu)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model = model.double().eval().requires_grad_(False)
    return mi.Clip("small", OpenClipViT(model.visual), model, open_clip.SimpleTokenizer(context_length=8))


def skip_unknown(vision: dict) -> None:
    """Skips a test whose model this version of open_clip cannot build."""
    unknown = vision.keys() - {field.name for field in dataclasses.fields(open_clip.CLIPVisionCfg)}
    if unknown:
        pytest.skip(f"open_clip {open_clip.__version__} has no {min(unknown)}")


def flattened(pixels: torch.Tensor, patch: int) -> torch.Tensor:
    """[B, 3, H, W] as SigLIP 2 takes it: [B, P, patch * patch * 3]."""
    return F.unfold(pixels, patch, stride=patch).unflatten(1, (3, patch * patch)).permute(0, 3, 2, 1).flatten(2)
