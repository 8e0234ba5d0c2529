"""The bundled CLIP's architecture, and what its losses need of it beside the embeddings."""

from dataclasses import dataclass

import open_clip
import torch
import torch.nn.functional as F
from open_clip.pos_embed import get_2d_sincos_pos_embed

from recipes.common.scenes import IMAGE_SIZE

CONTEXT = 24
MODEL = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": IMAGE_SIZE, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64,
        "pool_type": "tok",
    },
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}  # fmt: skip
PREPROCESS = {"size": IMAGE_SIZE, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


def build() -> open_clip.CLIP:
    model = open_clip.CLIP(**MODEL)
    # Learnt positions start from sines: neighbours are alike from the first step (Beyer et al., arXiv 2205.01580).
    waves = get_2d_sincos_pos_embed(MODEL["vision_cfg"]["width"], model.visual.grid_size[0], cls_token=True)
    model.visual.positional_embedding.data.copy_(torch.from_numpy(waves))
    return model


@dataclass(frozen=True)
class Encoded:
    """Unit embeddings of B images.

    image [B, D]: the model's own, from the class token. mean [B, D]: of the mean token, on which the map is defined. patches
    [B, K, D]: of what the last attention takes from each kept patch. attention [B, h, N, N]: the last block's, in the graph.
    """

    image: torch.Tensor
    mean: torch.Tensor
    patches: torch.Tensor
    attention: torch.Tensor


def encode(visual: torch.nn.Module, images: torch.Tensor, kept: torch.Tensor) -> Encoded:
    tokens = visual.conv1(images).flatten(2).mT + visual.positional_embedding[1:]
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([first, tokens[:, kept]], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    projected = F.linear(last.ln_1(tokens), last.attn.in_proj_weight, last.attn.in_proj_bias)
    query, key, value = (t.unflatten(-1, (last.attn.num_heads, -1)).transpose(1, 2) for t in projected.chunk(3, -1))
    attention = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    attended = tokens + last.attn.out_proj((attention @ value).transpose(1, 2).flatten(2))
    leaving = attended + last.mlp(last.ln_2(attended))
    alone = last.attn.out_proj(value.transpose(1, 2).flatten(2)[:, 1:])
    alone = alone + last.mlp(last.ln_2(alone))
    found = (F.normalize(visual.ln_post(t) @ visual.proj, dim=-1) for t in (leaving[:, 0], leaving.mean(1), alone))
    return Encoded(*found, attention)


def explain(score: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """LeGrad maps [B, K] in 0..1 of scores [B] over the kept patches, differentiable."""
    (gradient,) = torch.autograd.grad(score.sum(), attention, create_graph=True)
    relevance = gradient.relu().float().mean((1, 2))[:, 1:]
    low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
    return (relevance - low) / (high - low + 1e-12)
