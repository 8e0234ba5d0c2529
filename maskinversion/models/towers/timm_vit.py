"""open_clip models with an image side from timm: SigLIP and SigLIP 2 (pooled with attention), EVA-02-CLIP, plain ViTs."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from ...errors import ModelError
from ...explain.base import Head, LayerMap
from ...explain.chain import ChainMap
from ...explain.linearized import CosineSlope, LinearizedLayer, Residual, Slope
from ...explain.pooler import PoolerMap
from .base import Tower, family
from .opening import held, is_a, opened, package_of
from .reading import LINEARS, NOTHING, at_least_float32, full, linearise, linearise_all, positions, read_linear, read_norm

NONE = nn.Identity()
TRUNKS = ("timm.Eva", "timm.VisionTransformer")
BLOCKS = ("timm.Block", "timm.EvaBlock", "timm.EvaBlockPostNorm")
ATTENTIONS = ("timm.Attention", "timm.EvaAttention", "timm.AttentionRope")
# How the names of those of timm's ViTs begin that this reads.
NAMES = ("vit_medium_patch", "vit_base_patch", "vit_large_patch", "vit_so400m_patch", "vit_giantopt", "vit_pe_core", "eva")


@family
class TimmViT(Tower):
    """Reads the `TimmModel` of an open_clip model without a hook, a copy of its weights or a change to it.

    Where the model pools with attention (SigLIP), the map is the gradient of cos(e, f) with respect to the one row of the
    pooler, with f what the pooler makes of the tokens before the last norm, as the published package has it. (With the norm, f
    is the embedding that the token starts from, and the gradient of their cosine is zero.) That package also zeroes what an
    empty prompt highlights; this does not, since it needs a text encoder.
    """

    @staticmethod
    def reads(model: object) -> bool:
        trunk = getattr(getattr(model, "visual", model), "trunk", None)
        return is_a(trunk, *TRUNKS)

    @staticmethod
    def reads_config(vision: dict) -> bool:
        return (vision.get("timm_model_name") or "").startswith(NAMES)

    def __init__(self, model: Any):
        visual = getattr(model, "visual", model)
        check_supported(visual)
        trunk = visual.trunk
        self.model, self.visual, self.trunk = model, visual, trunk
        self.patch_size = tuple(trunk.patch_embed.patch_size)
        self.image_size = tuple(trunk.patch_embed.img_size)
        self.prefix = trunk.num_prefix_tokens
        self.blocks = trunk.blocks
        self.last_linear = [*linears(visual)][-1]
        self.width_out = len(self.projection)
        preprocess = getattr(visual, "preprocess_cfg", {})
        self.mean = tuple(preprocess.get("mean") or trunk.default_cfg["mean"])
        self.std = tuple(preprocess.get("std") or trunk.default_cfg["std"])
        self.interpolation = preprocess.get("interpolation", "bicubic")

    @property
    def projection(self) -> Tensor:
        return held(opened(self.last_linear, *LINEARS), "weight")

    def own(self, pixels: Tensor) -> Tensor:
        if hasattr(self.model, "encode_image"):
            return self.model.encode_image(pixels, normalize=False)
        return self.model(pixels)

    def enter(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        opened(self.visual, "open_clip.TimmModel")
        trunk = opened(self.trunk, *TRUNKS)
        cut = opened(trunk.patch_embed, "timm.PatchEmbed")
        patches = cut.norm(cut.proj(pixels).flatten(2).mT)
        first = [token for token in (held(trunk, "cls_token"), held(trunk, "reg_token")) if token is not None]
        position = None
        if trunk.pos_embed is not None:
            over_patches_only = getattr(trunk, "no_embed_class", False) or not self.prefix
            first_ones = 0 if over_patches_only else self.prefix
            position = positions(held(trunk, "pos_embed"), grid, trunk.patch_embed.grid_size, first_ones)
            if over_patches_only:
                patches, position = patches + position, None
        tokens = torch.cat([*(token.expand(len(patches), -1, -1) for token in first), patches], dim=1)
        return part(trunk, "norm_pre")(tokens if position is None else tokens + position)

    def run_block(self, block: Any, tokens: Tensor, grid: tuple[int, int], wanted: bool) -> tuple[Tensor, LayerMap | None]:
        rope = None
        if getattr(self.trunk, "rope", None) is not None:
            rope = self.rope_for(grid)
        after = block(tokens) if rope is None else block(tokens, rope=rope)
        if not wanted:
            return after, None
        if getattr(self.trunk, "attn_pool", None) is not None:
            return after, self.read_pooler(at_least_float32(after[0]))
        return after, self.read_block(block, at_least_float32(tokens[0]), rope)

    def embed(self, tokens: Tensor) -> Tensor:
        return self.visual.head(self.trunk.forward_head(self.trunk.norm(tokens)))

    def rope_for(self, grid: tuple[int, int]) -> Tensor:
        """The rotary position embedding of a grid; for another than the native one, from a copy of its module."""
        rope = self.trunk.rope
        if grid != tuple(self.trunk.patch_embed.grid_size):
            if not hasattr(rope, "update_feat_shape"):  # older timm
                from timm.layers.pos_embed_sincos import build_rotary_pos_embed

                options = {"dim": rope.dim, "in_pixels": rope.in_pixels, "ref_feat_shape": rope.ref_feat_shape}
                return torch.cat(build_rotary_pos_embed(list(grid), **options), -1).to(self.device)
            rope = deepcopy(rope)
            rope.update_feat_shape(list(grid))
        return rope.get_embed(shape=list(grid)).to(self.device)

    def read_block(self, block: Any, tokens: Tensor, rope: Tensor | None) -> LayerMap:
        """The map of a block that takes `tokens` [N, d]."""
        block = opened(block, *BLOCKS)
        attention = opened(block.attn, *ATTENTIONS)
        _, entering = linearise(norms_of(block)[0][0], tokens)
        q, k, v = (t.unflatten(-1, (attention.num_heads, -1)) for t in query_key_value(attention, entering))
        q, k = (linearise(part(attention, norm), t)[1].transpose(0, 1) for norm, t in (("q_norm", q), ("k_norm", k)))
        if rope is not None:
            from timm.layers.pos_embed_sincos import apply_rot_embed_cat

            keep, rope = attention.num_prefix_tokens, at_least_float32(rope)
            half = {"half": True} if getattr(attention, "rotate_half", False) else {}
            q, k = (torch.cat([t[:, :keep], apply_rot_embed_cat(t[:, keep:], rope, **half)], dim=1) for t in (q, k))
        mixed = scaled_dot_product_attention(q, k, v.transpose(0, 1)).transpose(0, 1).flatten(1)
        chain, leaving = after_attention(block, mixed, tokens)
        return ChainMap(v, chain, leaving, self.read_head(), self.prefix)

    def mixed_values(self, entering: Tensor, leaving: Tensor) -> Tensor:
        if getattr(self.trunk, "attn_pool", None) is not None:
            return self.pooler_rows(linearise(self.trunk.norm, leaving)[1])[1]
        block = opened(self.blocks[-1], *BLOCKS)
        return query_key_value(opened(block.attn, *ATTENTIONS), linearise(norms_of(block)[0][0], entering)[1])[2]

    def embed_mixture(self, mixture: Tensor, residual: Tensor | None) -> Tensor:
        trunk = self.trunk
        if getattr(trunk, "attn_pool", None) is not None:
            return linearise_all([trunk.fc_norm, trunk.head, self.visual.head], self.after_pooler(mixture)[1])[1]
        _, leaving = after_attention(self.blocks[-1], mixture, residual)
        return linearise_all([trunk.norm, trunk.fc_norm, trunk.head, self.visual.head], leaving)[1]

    def read_head(self) -> Head:
        """From the mean token on; the norm is before or after the model's own pooling, which is one norm either way."""
        trunk = self.trunk
        norm = trunk.fc_norm if is_a(trunk.norm, nn.Identity) else trunk.norm
        corners = torch.eye(trunk.embed_dim + 1, trunk.embed_dim).roll(1, 0)  # zero, then the axes
        corners = corners.to(at_least_float32(self.projection))
        _, moved = linearise_all([trunk.head, self.visual.head], corners)
        return Head(read_norm(norm), moved[1:] - moved[0], moved[0])

    def read_pooler(self, tokens: Tensor) -> PoolerMap:
        """The map of the tokens [N, d] as the pooler's one query sees them."""
        trunk, pooler = self.trunk, self.opened_pooler
        patches = len(tokens) - self.prefix
        if is_a(trunk, "timm.VisionTransformer") and not getattr(trunk, "pool_include_prefix", True):
            tokens = tokens[self.prefix :]
        _, query = linearise(pooler.q, full(pooler, "latent")[0])
        q, k, v = (t.unflatten(-1, (pooler.num_heads, -1)) for t in (query, *self.pooler_rows(tokens)))
        q, k = (linearise(norm, t)[1].transpose(0, 1) for norm, t in ((pooler.q_norm, q), (pooler.k_norm, k)))
        mixed = scaled_dot_product_attention(q, k, v.transpose(0, 1)).transpose(0, 1).flatten(1)
        chain, pooled = self.after_pooler(mixed)
        last, feature = linearise_all([trunk.fc_norm, trunk.head, self.visual.head], pooled)
        return PoolerMap(v, [*chain, *last, CosineSlope.at(feature[0])], self.width_out, len(tokens) - patches)

    @property
    def opened_pooler(self) -> Any:
        return opened(self.trunk.attn_pool, "timm.AttentionPoolLatent")

    def pooler_rows(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The pooler's keys and values [N, h * d_h] of tokens [N, d]."""
        k, v = linearise(self.opened_pooler.kv, tokens)[1].chunk(2, -1)
        return k, v

    def after_pooler(self, mixture: Tensor) -> tuple[list[LinearizedLayer], Tensor]:
        """From what the pooler's heads give [K, h * d_h] to what it puts out [K, d]: the derivative, and that."""
        pooler = self.opened_pooler
        chain, out = linearise(pooler.proj, mixture)
        inside, more = linearise_all([pooler.norm, pooler.mlp], out)
        return [*chain, Residual(inside)], out + more


def norms_of(block: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The norms before and after the attention and the MLP of a block."""
    before, after = (block.norm1, block.norm2), (NONE, NONE)
    return (after, before) if is_a(block, "timm.EvaBlockPostNorm") else (before, after)


def after_attention(block: Any, mixture: Tensor, residual: Tensor | None) -> tuple[list[LinearizedLayer], Tensor]:
    """From what the heads give [K, h * d_h] to the tokens [K, d] that leave the block: the derivative, and these tokens."""
    block = opened(block, *BLOCKS)
    attention, (before, after) = opened(block.attn, *ATTENTIONS), norms_of(block)
    chain, out = linearise_all([part(attention, "norm"), attention.proj, after[0], part(block, "ls1")], mixture)
    chain, out = scaled(chain, out, block, "gamma_1")
    y = out if residual is None else residual + out
    inside, out = linearise_all([before[1], block.mlp, after[1], part(block, "ls2")], y)
    inside, out = scaled(inside, out, block, "gamma_2")
    return [*chain, Residual(inside)], y + out


def linears(module: Any) -> Iterator[Any]:
    """The linear layers of a module, with those that PEFT wraps."""
    for child in module.children():
        if isinstance(child, nn.Linear) or package_of(type(child)) == "peft":
            yield child
        else:
            yield from linears(child)


def part(module: Any, name: str) -> Any:
    """A norm or scale that not every model has, nor every version of timm."""
    return getattr(module, name, NONE)


def query_key_value(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of tokens [N, d], each [N, h * d_h]."""
    if attention.qkv is None:  # EVA-02: no bias on the key
        q, k, v = (linearise(layer, tokens)[1] for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        return q, k, v
    weight, bias = read_linear(attention.qkv)
    if getattr(attention, "q_bias", None) is not None:
        bias = torch.cat([full(attention, f"{part}_bias") for part in "qkv"])
    q, k, v = linear(tokens, weight, bias).chunk(3, -1)
    return q, k, v


def scaled(
    chain: Sequence[LinearizedLayer], out: Tensor, block: Any, name: str
) -> tuple[Sequence[LinearizedLayer], Tensor]:
    """After a LayerScale [d] that is a bare parameter of the block, where it has one."""
    gamma = full(block, name) if hasattr(block, name) else None
    return (chain, out) if gamma is None else ([*chain, Slope(gamma)], out * gamma)


def check_supported(visual: Any) -> None:
    """Raises ModelError, which says why this vision model cannot be used."""
    trunk = visual.trunk
    use = "use a ViT such as ViT-B-16 or ViT-B-16-SigLIP"
    if not is_a(trunk.patch_embed, "timm.PatchEmbed"):
        raise ModelError(f"this model cuts its patches with a {type(trunk.patch_embed).__name__}, which is not supported: {use}")
    for block in trunk.blocks:
        if not is_a(block, *BLOCKS):
            raise ModelError(f"this model's blocks are {type(block).__name__}, which is not supported: {use}")
        opened(block.attn, *ATTENTIONS)
        if getattr(block.attn, "gate", None) is not None:
            raise ModelError(f"this model gates its attention, which is not supported: {use}")
    pooler: Any = getattr(trunk, "attn_pool", None)
    usual = is_a(pooler, "timm.AttentionPoolLatent") and pooler.latent_len == 1 and pooler.pos_embed is None
    if pooler is not None and not usual:
        raise ModelError(f"this model's pooler is a {type(pooler).__name__} of another kind than SigLIP's: {use}")
    if pooler is None and trunk.global_pool not in ("token", "avg"):
        raise ModelError(f"this model pools with {trunk.global_pool!r}, which is not supported: {use}")
    if not all(is_a(opened(layer), *LINEARS, *NOTHING) for layer in (trunk.head, *visual.head)):
        raise ModelError(f"this model's projection is not linear, which is not supported: {use}")
