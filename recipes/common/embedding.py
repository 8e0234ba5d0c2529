"""Image embeddings of the bundled CLIP, for models that learn from them."""

from collections.abc import Sequence

import numpy as np
import torch

import maskinversion as mi
from maskinversion.settings import PRESETS


@torch.no_grad()
def embed(clip: mi.Clip, images: Sequence[np.ndarray], bf16: bool) -> np.ndarray:
    """Embeddings [n, D] of n images [S, S, 3] uint8 of the model's own size, 256 at a time."""
    mean, std = (torch.tensor(v) for v in (clip.tower.mean, clip.tower.std))
    found = []
    with torch.autocast(clip.device.type, torch.bfloat16, enabled=bf16):
        for i in range(0, len(images), 256):
            pixels = (torch.from_numpy(np.stack(images[i : i + 256])) / 255 - mean) / std
            found.append(clip.model.encode_image(pixels.movedim(-1, 1).contiguous().to(clip.device)).float().cpu().numpy())
    return np.concatenate(found)


def region_tokens(clip: mi.Clip, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Localized tokens [n, D] of one mask [S, S] in each of n images, as the preset `region` finds them."""
    inverter = mi.MaskInverter(clip, **PRESETS["region"])
    found = [inverter.invert(inverter.encode(image), mask).embeddings for image, mask in zip(images, masks, strict=True)]
    return torch.cat(found).cpu().numpy()
