"""Models with the layout of transformers' CLIP: those of transformers itself, and ComfyUI's CLIP_VISION.

Neither library is imported: their modules are recognised by the name of their class, and read by the names of their parts.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from ...compute.cached_product import product_of
from ...errors import ModelError
from ...explain.base import Head, LayerMap, Norm
from ...explain.block import Block, BlockMap
from ...explain.linearized import LinearizedLayer, Residual
from ...explain.pooler import PoolerMap, cosine_slope
from .base import CLIP_PIXELS, Tower, family
from .reading import LINEARS, NORMS, at_least_float32, expect, linearise, linearise_all, positions

CLIP_NAMES = ("CLIPVisionModelWithProjection", "CLIPModel", "MetaClip2VisionModelWithProjection", "MetaClip2Model")
SIGLIP_NAMES = ("SiglipVisionModel", "SiglipModel", "Siglip2VisionModel", "Siglip2Model")
SIGLIP_PIXELS = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


@family
class TransformersViT(Tower):
    """Reads transformers' CLIP, MetaCLIP 2, SigLIP and SigLIP 2 without a hook, a copy of their weights or a change to them.

    model: a `CLIPVisionModelWithProjection`, `SiglipVisionModel` or the like, or the whole model, of which the image side is
    read. SigLIP pools with attention: its map is the gradient of cos(e, f) with respect to the one row of the pooler, with f what
    the pooler makes of the tokens before the last norm, see `TimmViT`. Images of SigLIP so400m 384 are seen at 378 px, which is
    what its 27 patches of 14 px cover.

    Raises ModelError for a model without an image-text space.
    """

    def __init__(self, model: Any):
        names = {kind.__name__ for kind in type(model).__mro__}
        vision = getattr(model, "vision_model", model)
        projection, pooler = getattr(model, "visual_projection", None), getattr(vision, "head", None)
        if not names.intersection(CLIP_NAMES if pooler is None else SIGLIP_NAMES):
            raise ModelError(no_space(type(model).__name__, vision))
        self.read(vision, projection, pooler)
        self.mean, self.std = SIGLIP_PIXELS if pooler is not None else CLIP_PIXELS

    @staticmethod
    def reads(model: object) -> bool:
        return any(kind.__module__.startswith("transformers.models.") for kind in type(model).__mro__)

    def read(self, vision: Any, projection: Any, pooler: Any) -> None:
        """Take the parts; without a projection and a pooler the embedding is the mean of the tokens after the last norm."""
        self.vision, self.visual_projection, self.pooler = vision, projection, pooler
        embeddings = vision.embeddings
        patches = embeddings.patch_embedding
        self.flat_patches = isinstance(patches, nn.Linear)
        self.patch_size = (embeddings.patch_size,) * 2 if self.flat_patches else tuple(patches.kernel_size)
        self.prefix = 0 if getattr(embeddings, "class_embedding", None) is None else 1
        side = round((len(embeddings.position_embedding.weight) - self.prefix) ** 0.5)
        self.native_grid = (side, side)
        self.image_size = (side * self.patch_size[0], side * self.patch_size[1])
        self.interpolation = "bilinear" if self.flat_patches else "bicubic"
        self.blocks = vision.encoder.layers
        self.width_out = self.projection.shape[0] if projection is None else self.projection.shape[1]

    @property
    def projection(self) -> Tensor:
        if self.visual_projection is not None:
            return self.visual_projection.weight.T  # [d, D], as open_clip has it
        return self.vision.post_layernorm.weight if self.pooler is None else self.pooler.mlp.fc2.weight

    def enter(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        embeddings = self.vision.embeddings
        if self.flat_patches:
            (height, width), (rows, columns) = self.patch_size, grid
            patches = pixels.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 3, 5, 1)
            tokens = embeddings.patch_embedding(patches.reshape(len(pixels), rows * columns, -1))
            return tokens + flexible_positions(embeddings.position_embedding.weight, tokens, grid, self.native_grid)
        tokens = embeddings.patch_embedding(pixels).flatten(2).mT
        if self.prefix:
            tokens = torch.cat([embeddings.class_embedding.to(tokens).expand(len(tokens), 1, -1), tokens], dim=1)
        table = embeddings.position_embedding.weight.to(tokens)
        tokens = tokens + positions(table[None], grid, self.native_grid, self.prefix)
        return self.vision.pre_layrnorm(tokens) if self.prefix else tokens

    def run_block(self, block: Any, tokens: Tensor, grid: tuple[int, int], wanted: bool) -> tuple[Tensor, LayerMap | None]:
        attention, mlp = block.self_attn, block.mlp
        heads = attention.num_heads if hasattr(attention, "num_heads") else attention.heads
        entering = block.layer_norm1(tokens)
        q, k, v = (
            project(entering).unflatten(-1, (heads, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        y = tokens + attention.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        if not wanted or self.pooler is not None:
            after = after_attention(block, y)
            return after, self.read_pooler(at_least_float32(after[0])) if wanted else None
        self.check_readable(attention.out_proj, mlp.fc1, mlp.fc2, block.layer_norm2, self.vision.post_layernorm)
        y = at_least_float32(y[0])
        read = Block(
            values=at_least_float32(v[0]).transpose(0, 1),
            after_attention=y,
            output=cast_like(attention.out_proj.weight, y),
            norm=norm_like(block.layer_norm2, y),
            expand=(cast_like(mlp.fc1.weight, y), cast_like(mlp.fc1.bias, y)),
            activation=activation_of(mlp),
            contract=(cast_like(mlp.fc2.weight, y), cast_like(mlp.fc2.bias, y)),
            folded=product_of(block),
        )
        if self.visual_projection is None:
            projection = torch.eye(self.width_out, dtype=y.dtype, device=y.device)
        else:
            projection = cast_like(self.projection, y)
        found = BlockMap(read, Head(norm_like(self.vision.post_layernorm, y), projection), self.prefix)
        return found.leaving[None].to(tokens.dtype), found

    def check_readable(self, *layers: Any) -> None:
        """Raises ModelError for layers that may compute something else than their weights say."""
        for layer in layers:
            expect(layer, *LINEARS, *NORMS)

    def embed(self, tokens: Tensor) -> Tensor:
        norm = self.vision.post_layernorm
        if self.pooler is not None:
            return self.pooler(norm(tokens))
        if self.visual_projection is None:
            return norm(tokens).mean(1)
        return self.visual_projection(norm(tokens[:, 0]))

    def read_pooler(self, tokens: Tensor) -> PoolerMap:
        """The map of the tokens [N, d], at least float32, that leave a block, as the pooler sees them."""
        q, k, v = (
            rows.unflatten(-1, (self.pooler.attention.num_heads, -1)).transpose(0, 1) for rows in self.pooler_rows(tokens)
        )
        chain, feature = self.after_pooler(scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
        return PoolerMap(v.transpose(0, 1), chain, cosine_slope(feature[0]), self.prefix)

    def pooler_rows(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pooler's query [1, h * d_h], and the keys and values [N, h * d_h] of tokens [N, d]."""
        attention = self.pooler.attention
        expect(attention, nn.MultiheadAttention)
        weights, biases = (at_least_float32(part).chunk(3) for part in (attention.in_proj_weight, attention.in_proj_bias))
        inputs = (at_least_float32(self.pooler.probe[0]), tokens, tokens)
        q, k, v = (linear(x, weight, bias) for x, weight, bias in zip(inputs, weights, biases, strict=True))
        return q, k, v

    def after_pooler(self, mixture: Tensor) -> tuple[list[LinearizedLayer], Tensor]:
        """From what the pooler's heads give [K, h * d_h] to the embeddings [K, D]: the derivative, and these."""
        pooler = self.pooler
        chain, out = linearise(pooler.attention.out_proj, mixture)
        inside, more = linearise_all([pooler.layernorm, pooler.mlp.fc1, pooler.mlp.activation_fn, pooler.mlp.fc2], out)
        return [*chain, Residual(inside)], out + more

    def mixed_values(self, entering: Tensor, leaving: Tensor) -> Tensor:
        if self.pooler is not None:
            return self.pooler_rows(linearise(self.vision.post_layernorm, leaving)[1])[2]
        block = self.blocks[-1]
        return at_least_float32(block.self_attn.v_proj(block.layer_norm1(entering.to(self.dtype))))

    def embed_mixture(self, mixture: Tensor, residual: Tensor | None) -> Tensor:
        if self.pooler is not None:
            return self.after_pooler(mixture)[1]
        block = self.blocks[-1]
        y = block.self_attn.out_proj(mixture.to(self.dtype))
        leaving = after_attention(block, y if residual is None else residual.to(self.dtype) + y)
        return at_least_float32(self.embed(leaving[:, None]))


@family
class NativeClipVision(TransformersViT):
    """Reads a `comfy.clip_vision.ClipVisionModel`, whose weights may be in any precision and on any device.

    Its parts cast their own weights to their input, so everything is computed in float32 on the model's `load_device`. The caller
    has ComfyUI load the model first.

    ComfyUI leaves SigLIP's pooler out, and with it the way into the image-text space: the embedding of a SigLIP is the mean of
    its image_embeds, as wide as the model, and the map is the gradient of cos(e, f) with f = LN(mean token). For SigLIP's text
    space load it with open_clip. SigLIP 2 naflex is seen as the square that its table of positions was made for, unless it is
    given another size.

    Raises ModelError for DINO.
    """

    def __init__(self, model: Any):
        vision = getattr(model.model, "vision_model", None)
        if vision is None:
            raise ModelError(no_space(model.model_type, model.model))
        self.source = model
        projection = model.model.visual_projection
        self.read(vision, projection if isinstance(projection, nn.Module) else None, None)
        self.mean, self.std = tuple(model.image_mean), tuple(model.image_std)
        self.keeps_states = model.return_all_hidden_states

    @staticmethod
    def reads(model: object) -> bool:
        return any((kind.__module__, kind.__name__) == ("comfy.clip_vision", "ClipVisionModel") for kind in type(model).__mro__)

    @property
    def device(self) -> torch.device:
        return self.source.load_device

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def check_readable(self, *layers: Any) -> None:
        """ComfyUI has classes of its own, several for the same layer, which differ in how the weights are kept and cast."""


def no_space(name: str, vision: object) -> str:
    """Why a model has no embedding in an image-text space, and what to use."""
    if "dino" in name.lower():
        return (
            f"this model is {name}, a vision model that never saw text: it has no image-text space, so there is nothing to "
            f"localise in. Use a CLIP, such as ViT-L-14 or ViT-H-14"
        )
    if hasattr(vision, "post_layernorm"):
        return (
            f"this model is a {name} without the part that leads into the image-text space: load the same weights as a "
            f"CLIPVisionModelWithProjection, or as a SiglipVisionModel with its head"
        )
    return (
        f"this model is a {name} of transformers, which is not supported: use a CLIPVisionModelWithProjection or a "
        f"SiglipVisionModel"
    )


def activation_of(mlp: Any) -> Any:
    return mlp.activation_fn if hasattr(mlp, "activation_fn") else mlp.activation


def after_attention(block: Any, y: Tensor) -> Tensor:
    """The tokens [..., d] that leave a block, of those after its attention."""
    return y + block.mlp.fc2(activation_of(block.mlp)(block.mlp.fc1(block.layer_norm2(y))))


def cast_like(weight: Tensor, like: Tensor) -> Tensor:
    """A weight where the computation is, at its precision."""
    return weight.detach().to(like)


def norm_like(norm: nn.LayerNorm, like: Tensor) -> Norm:
    return Norm(cast_like(norm.weight, like), cast_like(norm.bias, like), norm.eps)


def flexible_positions(table: Tensor, tokens: Tensor, grid: tuple[int, int], native: tuple[int, int]) -> Tensor:
    """The positions [P, d] of SigLIP 2 naflex on a grid, resized as the model does it, on a copy."""
    square = at_least_float32(table.to(tokens)).T.unflatten(1, native)[None]
    return F.interpolate(square, size=grid, mode="bilinear", antialias=True)[0].flatten(1).T.to(tokens)
