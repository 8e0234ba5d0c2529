"""Tokens that no model made."""

import torch

import maskinversion as mi
from maskinversion.geometry import Geometry


def made(count, seed=0, width=32, model="one", fingerprint="1") -> mi.LocalizedTokens:
    generator = torch.Generator().manual_seed(seed)
    return mi.LocalizedTokens(
        embeddings=3 * torch.randn(count, width, generator=generator),
        maps=torch.rand(count, 4, 4, generator=generator),
        losses=torch.rand(2, count, generator=generator),
        iou=torch.rand(count, generator=generator),
        global_embedding=torch.randn(width, generator=generator),
        geometry=Geometry((8, 8), (4, 4)),
        model=model,
        fingerprint=fingerprint,
        parameters={"alpha": 0.0},
    )
