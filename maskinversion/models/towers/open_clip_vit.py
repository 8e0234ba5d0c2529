"""open_clip's own VisionTransformer, and ours that is like it: OpenAI, LAION, DataComp, DFN and MetaCLIP weights, and CoCa."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from ...compute.cached_product import product_of
from ...errors import ModelError
from ...explain.base import Head, LayerMap
from ...explain.block import Block, BlockMap
from ...explain.chain import ChainMap
from ...explain.linearized import Linear, LinearizedLayer, Residual, Slope
from ...explain.pooler import PoolerMap
from .. import plain
from .base import CLIP_PIXELS, Tower, family
from .opening import held, is_a, opened
from .reading import (
    LINEARS,
    NORMS,
    at_least_float32,
    full,
    layer_scale,
    linearise_all,
    positions,
    read_activation,
    read_linear,
    read_norm,
    scaled_rows,
)

VISUAL, TRANSFORMER = (plain.VisionTransformer, "open_clip.VisionTransformer"), (plain.Transformer, "open_clip.Transformer")
PLAIN, CUSTOM = (plain.Block, "open_clip.ResidualAttentionBlock"), ("open_clip.CustomResidualAttentionBlock",)


@family
class OpenClipViT(Tower):
    """Reads an `open_clip.transformer.VisionTransformer` without a hook, a copy of its weights or a change to it.

    Where the model pools with attention (CoCa), the map is the gradient of e . f with respect to the first query's row of the
    pooler, with f the pooled row times the projection: as the published package has it, without the last norm and without
    dividing by |f|. (With both, f is the embedding that the token starts from, and the gradient of their cosine is zero.)
    """

    prefix = 1

    @staticmethod
    def reads(model: object) -> bool:
        return is_a(getattr(model, "visual", model), *VISUAL)

    @staticmethod
    def reads_config(vision: dict) -> bool:
        return not vision.get("timm_model_name") and isinstance(vision.get("layers", 12), int)

    def __init__(self, model: Any):
        visual = getattr(model, "visual", model)
        check_supported(visual)
        self.model, self.visual = model, visual
        self.patch_size = tuple(visual.patch_size)
        self.image_size = tuple(visual.image_size)
        self.blocks = visual.transformer.resblocks
        self.width_out = visual.proj.shape[1]
        preprocess = getattr(visual, "preprocess_cfg", {})
        self.mean = tuple(preprocess.get("mean") or CLIP_PIXELS[0])
        self.std = tuple(preprocess.get("std") or CLIP_PIXELS[1])
        self.interpolation = preprocess.get("interpolation", "bicubic")

    @property
    def projection(self) -> Tensor:
        return held(self.visual, "proj")

    def own(self, pixels: Tensor) -> Tensor:
        if hasattr(self.model, "encode_image"):
            return self.model.encode_image(pixels, normalize=False)
        found = self.model(pixels)
        return found[0] if isinstance(found, tuple) else found

    def enter(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        visual = opened(self.visual, *VISUAL)
        opened(visual.transformer, *TRANSFORMER)
        patches = visual.conv1(pixels).flatten(2).mT
        tokens = torch.cat([held(visual, "class_embedding").expand(len(patches), 1, -1).to(patches.dtype), patches], dim=1)
        table = held(visual, "positional_embedding")[None]
        return visual.ln_pre(tokens + positions(table, grid, visual.grid_size, 1).to(tokens.dtype))

    def run_block(self, block: Any, tokens: Tensor, grid: tuple[int, int], wanted: bool) -> tuple[Tensor, LayerMap | None]:
        if not wanted or self.visual.attn_pool is not None:
            after = block(tokens) if is_a(block, *CUSTOM) else pass_through(block, tokens)
            return after, self.read_pooler(at_least_float32(after[0])) if wanted else None
        head = Head(read_norm(self.visual.ln_post), at_least_float32(self.projection))
        if is_a(block, *CUSTOM):
            return block(tokens), read_custom_block(block, tokens, head)
        found = BlockMap(read_block(block, tokens), head, self.prefix)
        return found.leaving[None].to(tokens.dtype), found

    def embed(self, tokens: Tensor) -> Tensor:
        visual = self.visual
        if visual.attn_pool is not None:
            tokens = visual.attn_pool(tokens)
        norm_last = visual.final_ln_after_pool and visual.attn_pool is None
        if not norm_last:
            tokens = visual.ln_post(tokens)
        pooled = tokens[:, 0] if visual.pool_type == "tok" else tokens[:, 1:].mean(1)
        if norm_last:
            pooled = visual.ln_post(pooled)
        return pooled @ self.projection

    @property
    def pooler_attention(self) -> tuple[Any, Any]:
        """The pooler, and its attention."""
        pooler = opened(self.visual.attn_pool, "open_clip.AttentionalPooler")
        return pooler, opened(pooler.attn, nn.MultiheadAttention)

    def pooler_rows(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pooler's first query [1, h * d_h], and the keys and values [N, h * d_h] of tokens [N, d]."""
        pooler, attention = self.pooler_attention
        biases = full(attention, "in_proj_bias").split(attention.embed_dim)
        if attention.in_proj_weight is None:
            weights = tuple(held(attention, f"{part}_proj_weight") for part in "qkv")
        else:
            weights = held(attention, "in_proj_weight").split(attention.embed_dim)
        _, query = linearise_all([pooler.ln_q], full(pooler, "query")[:1])
        _, context = linearise_all([pooler.ln_k], tokens)
        q, k, v = (
            linear(x, at_least_float32(weight), bias)
            for x, weight, bias in zip((query, context, context), weights, biases, strict=True)
        )
        return q, k, v

    def mixed_values(self, entering: Tensor, leaving: Tensor) -> Tensor:
        if self.visual.attn_pool is not None:
            return self.pooler_rows(leaving)[2]
        block = opened(self.blocks[-1], *PLAIN, *CUSTOM)
        attention = opened(block.attn, nn.MultiheadAttention, "open_clip.Attention")
        _, normal = linearise_all([block.ln_1], entering)
        bias = full(attention, "in_proj_bias")
        weight = at_least_float32(held(attention, "in_proj_weight").chunk(3)[2])
        return linear(normal, weight, None if bias is None else bias.chunk(3)[2])

    def embed_mixture(self, mixture: Tensor, residual: Tensor | None) -> Tensor:
        visual = self.visual
        if visual.attn_pool is not None:
            leaving = linearise_all([self.pooler_attention[1].out_proj], mixture)[1]
        else:
            leaving = after_attention(self.blocks[-1], mixture, residual)[1]
        return linearise_all([visual.ln_post], leaving)[1] @ at_least_float32(self.projection)

    def read_pooler(self, tokens: Tensor) -> PoolerMap:
        """The map of the tokens [N, d] as the pooler's first query sees them."""
        attention = self.pooler_attention[1]
        q, k, v = (t.unflatten(-1, (attention.num_heads, -1)).transpose(0, 1) for t in self.pooler_rows(tokens))
        mixed = scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1)
        chain, _ = linearise_all([attention.out_proj], mixed)
        return PoolerMap(
            v.transpose(0, 1), [*chain, Linear(at_least_float32(self.projection).T)], self.width_out, self.prefix
        )


def attend(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens [1, N, d] after a block's attention, and the values [1, h, N, d_h] that it mixed.

    In its parts: torch.nn.MultiheadAttention does all in one piece, whose linear layers `matmul.fast_linears` does not reach.
    """
    attention = opened(opened(block, *PLAIN).attn, nn.MultiheadAttention)
    out_proj = opened(attention.out_proj, *LINEARS)  # which the attention itself does not call
    q, k, v = (
        part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for part in linear(block.ln_1(tokens), held(attention, "in_proj_weight"), held(attention, "in_proj_bias")).chunk(3, -1)
    )
    mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return tokens + block.ls_1(linear(mixed, held(out_proj, "weight"), held(out_proj, "bias"))), v


def pass_through(block: Any, tokens: Tensor) -> Tensor:
    """What the block makes of tokens [1, N, d]."""
    y, _ = attend(block, tokens)
    return y + block.ls_2(block.mlp(block.ln_2(y)))


def read_block(block: Any, tokens: Tensor) -> Block:
    """What the map needs of a block that takes `tokens` [1, N, d]; at least in float32."""
    y, values = attend(block, tokens)
    scale_1, scale_2 = layer_scale(block.ls_1), layer_scale(block.ls_2)
    attention, mlp = opened(block.attn), opened(block.mlp, nn.Sequential)
    weight, bias = read_linear(mlp.c_proj)
    return Block(
        values=at_least_float32(values[0]).transpose(0, 1),
        after_attention=at_least_float32(y[0]),
        output=scaled_rows(scale_1, read_linear(attention.out_proj)[0]),
        norm=read_norm(block.ln_2),
        expand=read_linear(mlp.c_fc),
        activation=read_activation(mlp.gelu),
        contract=(scaled_rows(scale_2, weight), None if bias is None else scaled_rows(scale_2, bias)),
        folded=product_of(block),
    )


def read_custom_block(block: Any, tokens: Tensor, head: Head) -> ChainMap:
    """The map of a block with norms in further places (query and key, after the attention, inside the MLP)."""
    attention, x = opened(opened(block, *CUSTOM).attn, "open_clip.Attention"), at_least_float32(tokens[0])
    _, entering = linearise_all([block.ln_1], x)
    q, k, v = linear(entering, full(attention, "in_proj_weight"), full(attention, "in_proj_bias")).chunk(3, -1)
    q, k, v = (t.unflatten(-1, (attention.num_heads, -1)) for t in (q, k, v))
    q, k = linearise_all([attention.ln_q], q)[1], linearise_all([attention.ln_k], k)[1]
    mixed = scaled_dot_product_attention(q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1))
    chain, leaving = after_attention(block, mixed.transpose(0, 1).flatten(1), x)
    return ChainMap(v, chain, leaving, head, OpenClipViT.prefix)


def after_attention(block: Any, mixture: Tensor, residual: Tensor | None) -> tuple[list[LinearizedLayer], Tensor]:
    """From what the heads give [K, h * d_h] to the tokens [K, d] that leave the block: the derivative, and these tokens."""
    attention = opened(opened(block, *PLAIN, *CUSTOM).attn, nn.MultiheadAttention, "open_clip.Attention")
    chain: list[LinearizedLayer] = []
    modules = [attention.out_proj, block.ls_1]
    if is_a(block, *CUSTOM):
        modules = [attention.ln_inner, attention.out_proj, block.ln_attn, block.ls_1]
        if attention.head_scale is not None:
            scale = full(attention, "head_scale").flatten().repeat_interleave(attention.head_dim)
            mixture = mixture * scale
            chain.append(Slope(scale))
    after, y = linearise_all(modules, mixture)
    y = y if residual is None else residual + y
    inside, out = linearise_all([block.ln_2, block.mlp, block.ls_2], y)
    return [*chain, *after, Residual(inside)], y + out


def check_supported(visual: Any) -> None:
    """Raises ModelError, which says why this vision model cannot be used."""
    if getattr(visual, "attn_pool_contrastive", None) is not None:
        raise ModelError(f"this model pools in two stages ({visual.attn_pool_type}), which is not supported: use a plain CoCa")
    if visual.pool_type not in ("tok", "avg") or visual.proj is None:
        raise ModelError(f"this model has no pooled image embedding (pool_type {visual.pool_type!r}): use a CLIP such as ViT-B-16")
    if visual.attn_pool is not None and visual.pool_type != "tok":
        raise ModelError("this model averages the queries of its pooler, which is not supported: use a plain CoCa")
    for block in visual.transformer.resblocks:
        if not is_a(block, *PLAIN, *CUSTOM):
            raise ModelError(f"this model's blocks are {type(block).__name__}, which is not supported: use a ViT such as ViT-L-14")
        opened(block.attn, nn.MultiheadAttention if is_a(block, *PLAIN) else "open_clip.Attention")
        if getattr(block.attn, "scaled_cosine", False):
            raise ModelError("this model uses scaled cosine attention, which is not supported: use a ViT such as ViT-L-14")
        opened(block.ln_2, *NORMS)
