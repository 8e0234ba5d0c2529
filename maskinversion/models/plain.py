"""The plain CLIP of open_clip's configurations, with the names of its parts and weights, in PyTorch alone.

Importing open_clip, which brings torchvision, timm and transformers, takes longer than all that the bundled CLIP does. The same
bits come out of the same weights; configurations that ask for more are open_clip's own to build.
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

SIZES = {
    "vision_cfg": {"image_size", "patch_size", "width", "layers", "head_width"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether this `model_cfg` gives the sizes of a PlainClip, and asks for nothing else."""
    parts = {"embed_dim": {"embed_dim": config.get("embed_dim")}, **{name: config.get(name) for name in SIZES}}
    if config.keys() != parts.keys() or not all(isinstance(part, dict) for part in parts.values()):
        return False
    sizes = {name: {key: size for key, size in part.items() if (key, size) != ("pool_type", "tok")} for name, part in parts.items()}
    whole = all(type(size) is int and size > 0 for part in sizes.values() for size in part.values())
    return whole and all(sizes[name].keys() == wanted for name, wanted in SIZES.items())


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ls_1 = nn.Identity()
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ls_2 = nn.Identity()

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        normal = self.ln_1(tokens)
        tokens = tokens + self.ls_1(self.attn(normal, normal, normal, need_weights=False, attn_mask=attn_mask)[0])
        return tokens + self.ls_2(self.mlp(self.ln_2(tokens)))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, heads: int):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(layers))

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            tokens = block(tokens, attn_mask)
        return tokens


class VisionTransformer(nn.Module):
    """The image side: pixels [B, 3, image_size, image_size] to embeddings [B, embed_dim]."""

    attn_pool, pool_type, final_ln_after_pool = None, "tok", False

    def __init__(self, embed_dim: int, image_size: int, patch_size: int, width: int, layers: int, head_width: int):
        super().__init__()
        self.image_size, self.patch_size = (image_size, image_size), (patch_size, patch_size)
        self.grid_size = (image_size // patch_size, image_size // patch_size)
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(self.grid_size[0] ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, width // head_width)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).mT
        tokens = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(tokens)))[:, 0] @ self.proj


class PlainClip(nn.Module):
    """Of the sizes in an `open_clip_config.json`. Its parameters are without values until weights are loaded."""

    def __init__(self, embed_dim: int, vision_cfg: Mapping[str, Any], text_cfg: Mapping[str, Any]):
        super().__init__()
        self.visual = VisionTransformer(embed_dim, **{name: vision_cfg[name] for name in SIZES["vision_cfg"]})
        width = text_cfg["width"]
        self.context_length, self.vocab_size = text_cfg["context_length"], text_cfg["vocab_size"]
        # As the class itself would make it, but for random numbers, for which the device `meta` imports PyTorch's compiler.
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(self.vocab_size, width), freeze=False)
        self.positional_embedding = nn.Parameter(torch.empty(self.context_length, width))
        self.transformer = Transformer(width, text_cfg["layers"], text_cfg["heads"])
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:
        features = self.visual(image)
        return nn.functional.normalize(features, dim=-1) if normalize else features

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:
        tokens = self.token_embedding(text) + self.positional_embedding
        length = self.context_length
        later = torch.full((length, length), float("-inf"), dtype=tokens.dtype, device=tokens.device).triu_(1)
        tokens = self.ln_final(self.transformer(tokens, later))
        features = tokens[torch.arange(len(text), device=text.device), text.argmax(-1)] @ self.text_projection  # at the end of text
        return nn.functional.normalize(features, dim=-1) if normalize else features
