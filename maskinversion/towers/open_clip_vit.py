"""open_clip's own VisionTransformer (OpenAI, LAION, DataComp, DFN and MetaCLIP weights), with plain pooling."""

import open_clip
import torch
from open_clip.transformer import LayerNorm, LayerNormFp32, LayerScale, ResidualAttentionBlock, VisionTransformer
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..decomposition import Block, Head, Norm
from ..errors import ModelError
from .base import EncodedLayers


class OpenClipViT:
    """Reads an `open_clip.transformer.VisionTransformer` without a hook, a copy of its weights or a change to it."""

    def __init__(self, visual: nn.Module):
        unsupported = unsupported_reason(visual)
        if unsupported:
            raise ModelError(unsupported)
        self.visual = visual
        self.patch_size = tuple(visual.patch_size)
        self.image_size = tuple(visual.image_size)
        self.depth = len(visual.transformer.resblocks)
        self.width_out = visual.proj.shape[1]
        self.projection = visual.proj
        preprocess = getattr(visual, "preprocess_cfg", {})
        self.mean = tuple(preprocess.get("mean") or open_clip.OPENAI_DATASET_MEAN)
        self.std = tuple(preprocess.get("std") or open_clip.OPENAI_DATASET_STD)
        self.interpolation = preprocess.get("interpolation", "bicubic")

    @property
    def device(self) -> torch.device:
        return self.visual.proj.device

    @property
    def dtype(self) -> torch.dtype:
        return self.visual.conv1.weight.dtype

    def encode(self, pixels: Tensor, layers: int) -> EncodedLayers:
        visual = self.visual
        patches = visual.conv1(pixels.to(self.device, self.dtype))  # [1, d, gh, gw]
        grid = tuple(patches.shape[-2:])
        position = visual.positional_embedding[None]
        if grid != tuple(visual.grid_size):
            position = resample_abs_pos_embed(
                position,
                new_size=list(grid),
                old_size=list(visual.grid_size),
                num_prefix_tokens=1,
                interpolation="bicubic",
                antialias=True,
            )
        tokens = torch.cat([visual.class_embedding.expand(1, 1, -1).to(patches.dtype), patches.flatten(2).mT], dim=1)
        tokens = visual.ln_pre(tokens + position.to(tokens.dtype))
        blocks = []
        for index, block in enumerate(visual.transformer.resblocks):
            after_attention = tokens + block.ls_1(attend(block, block.ln_1(tokens)))
            entering = tokens
            if index >= self.depth - layers:
                blocks.append(read_block(block, tokens, after_attention))
            tokens = after_attention + block.ls_2(block.mlp(block.ln_2(after_attention)))
        head = Head(read_norm(visual.ln_post), exact(visual.proj))
        embedding = self.embed(tokens)[0]
        return EncodedLayers(blocks, head, grid, 1, exact(embedding), exact(entering[0]), exact(tokens[0]))

    def embed(self, tokens: Tensor) -> Tensor:
        """The model's own image embedding [B, D] of the last block's tokens [B, N, d]."""
        visual = self.visual
        if not visual.final_ln_after_pool:
            tokens = visual.ln_post(tokens)
        pooled = tokens[:, 0] if visual.pool_type == "tok" else tokens[:, 1:].mean(1)
        if visual.final_ln_after_pool:
            pooled = visual.ln_post(pooled)
        return pooled @ visual.proj


def attend(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """The block's own attention of [B, N, d], whichever order of dimensions it was built for."""
    if block.attn.batch_first:
        return block.attention(tokens)
    return block.attention(tokens.transpose(0, 1)).transpose(0, 1)


def read_block(block: ResidualAttentionBlock, tokens: Tensor, after_attention: Tensor) -> Block:
    """What the map needs of a block that takes `tokens` [1, N, d]; at least in float32."""
    attention = block.attn
    width = attention.embed_dim
    entering = block.ln_1(tokens)[0]
    values = nn.functional.linear(entering, attention.in_proj_weight[2 * width :], attention.in_proj_bias[2 * width :])
    return Block(
        values=exact(values).unflatten(-1, (attention.num_heads, -1)),
        after_attention=exact(after_attention[0]),
        output=scaled_rows(block.ls_1, exact(attention.out_proj.weight)),
        norm=read_norm(block.ln_2),
        expand=(exact(block.mlp.c_fc.weight), exact(block.mlp.c_fc.bias)),
        activation=block.mlp.gelu,
        contract=(scaled_rows(block.ls_2, exact(block.mlp.c_proj.weight)), scaled_rows(block.ls_2, exact(block.mlp.c_proj.bias))),
    )


def read_norm(norm: nn.LayerNorm) -> Norm:
    return Norm(exact(norm.weight), exact(norm.bias), norm.eps)


def scaled_rows(scale: nn.Module, weight: Tensor) -> Tensor:
    """A LayerScale multiplied into the rows of the linear layer before it."""
    if not isinstance(scale, LayerScale):
        return weight
    gamma = exact(scale.gamma)
    return gamma[:, None] * weight if weight.ndim == 2 else gamma * weight


def exact(tensor: Tensor) -> Tensor:
    """In float32 or better: half-precision weights take part in the map and the loss at full precision."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def unsupported_reason(visual: nn.Module) -> str | None:
    """Why this vision model cannot be used, or None."""
    kind = type(visual).__name__
    if not isinstance(visual, VisionTransformer):
        return (
            f"this model's image side is {kind}, which is not an open_clip vision transformer. MaskInversion needs the "
            f"attention of a ViT: use one such as ViT-B-16 or ViT-L-14"
        )
    if visual.attn_pool is not None:
        return "this model pools with attention (CoCa), which is not supported yet: use a ViT with a class token, such as ViT-L-14"
    if visual.pool_type not in ("tok", "avg") or visual.proj is None:
        return f"this model has no pooled image embedding (pool_type {visual.pool_type!r}): use a CLIP such as ViT-B-16"
    for block in visual.transformer.resblocks:
        if type(block) is not ResidualAttentionBlock:
            return f"this model's blocks are {type(block).__name__}, which is not supported yet: use a ViT such as ViT-L-14"
        if not isinstance(block.ln_2, (LayerNorm, LayerNormFp32)):
            return f"this model's norm is {type(block.ln_2).__name__}, which is not supported: use a ViT such as ViT-L-14"
    return None
