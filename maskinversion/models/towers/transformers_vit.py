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
from ...explain.linearized import CosineSlope, LinearizedLayer, Residual
from ...explain.pooler import PoolerMap
from .base import CLIP_PIXELS, Tower, family
from .opening import held, opened
from .reading import ACTIVATIONS, LINEARS, NORMS, at_least_float32, full, linearise, linearise_all, positions

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

    library, linears, norms, tables, activations = "transformers.*", LINEARS, NORMS, (nn.Embedding,), ACTIVATIONS

    def __init__(self, model: Any):
        names = {kind.__name__ for kind in type(model).__mro__}
        vision = getattr(model, "vision_model", model)
        projection, pooler = getattr(model, "visual_projection", None), getattr(vision, "head", None)
        if not names.intersection(CLIP_NAMES if pooler is None else SIGLIP_NAMES):
            raise ModelError(no_space(type(model).__name__, vision))
        self.model = model
        self.read(vision, projection, pooler)
        self.mean, self.std = SIGLIP_PIXELS if pooler is not None else CLIP_PIXELS

    @staticmethod
    def reads(model: object) -> bool:
        return any(kind.__module__.startswith("transformers.models.") for kind in type(model).__mro__)

    def read(self, vision: Any, projection: Any, pooler: Any) -> None:
        """Take the parts; without a projection and a pooler the embedding is the mean of the tokens after the last norm."""
        self.vision, self.visual_projection, self.pooler = vision, projection, pooler
        embeddings = opened(vision.embeddings, self.library)
        patches = opened(embeddings.patch_embedding)
        self.flat_patches = isinstance(patches, nn.Linear)
        self.patch_size = (embeddings.patch_size,) * 2 if self.flat_patches else tuple(patches.kernel_size)
        self.prefix = 0 if getattr(embeddings, "class_embedding", None) is None else 1
        side = round((len(opened(embeddings.position_embedding).weight) - self.prefix) ** 0.5)
        self.native_grid = (side, side)
        self.image_size = (side * self.patch_size[0], side * self.patch_size[1])
        self.interpolation = "bilinear" if self.flat_patches else "bicubic"
        self.blocks = vision.encoder.layers
        self.width_out = self.projection.shape[0] if projection is None else self.projection.shape[1]

    @property
    def projection(self) -> Tensor:
        if self.visual_projection is not None:
            return held(opened(self.visual_projection, *self.linears), "weight").T  # [d, D], as open_clip has it
        if self.pooler is None:
            return held(opened(self.vision.post_layernorm, *self.norms), "weight")
        return held(opened(self.pooler.mlp.fc2, *self.linears), "weight")

    def own(self, pixels: Tensor) -> Tensor:
        given: dict[str, Any] = {"pixel_values": pixels}
        if self.flat_patches:
            rows, columns = (side // patch for side, patch in zip(pixels.shape[-2:], self.patch_size))
            shapes = torch.tensor([[rows, columns]], device=pixels.device)
            mask = torch.ones(1, rows * columns, dtype=torch.int, device=pixels.device)
            given = {"pixel_values": self.flat(pixels, (rows, columns)), "pixel_attention_mask": mask, "spatial_shapes": shapes}
        found = (self.model.get_image_features if hasattr(self.model, "get_image_features") else self.model)(**given)
        if isinstance(found, Tensor):
            return found
        return found.image_embeds if hasattr(found, "image_embeds") else found.pooler_output

    def flat(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """The patches [B, P, height * width * 3] of pixels [B, 3, H, W]."""
        (height, width), (rows, columns) = self.patch_size, grid
        patches = pixels.unflatten(3, (columns, width)).unflatten(2, (rows, height)).permute(0, 2, 4, 3, 5, 1)
        return patches.reshape(len(pixels), rows * columns, -1)

    def enter(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        vision = opened(self.vision, self.library)
        opened(vision.encoder, self.library)
        embeddings = opened(vision.embeddings, self.library)
        table = held(opened(embeddings.position_embedding, *self.tables), "weight")
        if self.flat_patches:
            tokens = embeddings.patch_embedding(self.flat(pixels, grid))
            return tokens + flexible_positions(table, tokens, grid, self.native_grid)
        tokens = embeddings.patch_embedding(pixels).flatten(2).mT
        if self.prefix:
            first = held(embeddings, "class_embedding").to(tokens)
            tokens = torch.cat([first.expand(len(tokens), 1, -1), tokens], dim=1)
        tokens = tokens + positions(table.to(tokens)[None], grid, self.native_grid, self.prefix)
        return vision.pre_layrnorm(tokens) if self.prefix else tokens

    def run_block(self, block: Any, tokens: Tensor, grid: tuple[int, int], wanted: bool) -> tuple[Tensor, LayerMap | None]:
        attention, mlp = opened(opened(block, self.library).self_attn, self.library), block.mlp
        heads = attention.num_heads if hasattr(attention, "num_heads") else attention.heads
        entering = block.layer_norm1(tokens)
        q, k, v = (
            project(entering).unflatten(-1, (heads, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        y = tokens + attention.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        if not wanted or self.pooler is not None:
            after = y + mlp(block.layer_norm2(y))
            return after, self.read_pooler(at_least_float32(after[0])) if wanted else None
        opened(mlp, self.library)
        y = at_least_float32(y[0])
        read = Block(
            values=at_least_float32(v[0]).transpose(0, 1),
            after_attention=y,
            output=self.linear_like(attention.out_proj, y)[0],
            norm=self.norm_like(block.layer_norm2, y),
            expand=self.linear_like(mlp.fc1, y),
            activation=opened(mlp.activation_fn if hasattr(mlp, "activation_fn") else mlp.activation, *self.activations),
            contract=self.linear_like(mlp.fc2, y),
            folded=product_of(block),
        )
        if self.visual_projection is None:
            projection = torch.eye(self.width_out, dtype=y.dtype, device=y.device)
        else:
            projection = self.projection.to(y)
        found = BlockMap(read, Head(self.norm_like(self.vision.post_layernorm, y), projection), self.prefix)
        return found.leaving[None].to(tokens.dtype), found

    def linear_like(self, layer: Any, like: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [out, in] and bias [out] of a linear layer, where the computation is, at its precision."""
        layer = opened(layer, *self.linears)
        return held(layer, "weight").to(like), held(layer, "bias").to(like)

    def norm_like(self, norm: Any, like: Tensor) -> Norm:
        norm = opened(norm, *self.norms)
        return Norm(held(norm, "weight").to(like), held(norm, "bias").to(like), norm.eps)

    def embed(self, tokens: Tensor) -> Tensor:
        norm = self.vision.post_layernorm
        if self.pooler is not None:
            return self.pooler(norm(tokens))
        if self.visual_projection is None:
            return norm(tokens).mean(1)
        return self.visual_projection(norm(tokens[:, 0]))

    def after_pooler(self, mixture: Tensor) -> tuple[list[LinearizedLayer], Tensor]:
        """From what the pooler's heads give [K, h * d_h] to the embeddings [K, D]: the derivative, and these."""
        pooler = opened(self.pooler, self.library)
        attention, mlp = opened(pooler.attention, nn.MultiheadAttention), opened(pooler.mlp, self.library)
        chain, out = linearise(attention.out_proj, mixture)
        inside, more = linearise_all([pooler.layernorm, mlp.fc1, mlp.activation_fn, mlp.fc2], out)
        return [*chain, Residual(inside)], out + more

    def pooler_rows(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pooler's query [1, h * d_h], and the keys and values [N, h * d_h] of tokens [N, d]."""
        pooler = opened(self.pooler, self.library)
        attention = opened(pooler.attention, nn.MultiheadAttention)
        weights, biases = (full(attention, name).chunk(3) for name in ("in_proj_weight", "in_proj_bias"))
        inputs = (full(pooler, "probe")[0], tokens, tokens)
        q, k, v = (linear(x, weight, bias) for x, weight, bias in zip(inputs, weights, biases, strict=True))
        return q, k, v

    def read_pooler(self, tokens: Tensor) -> PoolerMap:
        """The map of the tokens [N, d], at least float32, that leave a block, as the pooler sees them."""
        heads = opened(self.pooler, self.library).attention.num_heads
        q, k, v = (rows.unflatten(-1, (heads, -1)).transpose(0, 1) for rows in self.pooler_rows(tokens))
        chain, feature = self.after_pooler(scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
        return PoolerMap(v.transpose(0, 1), [*chain, CosineSlope.at(feature[0])], self.width_out, self.prefix)

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
        y = y if residual is None else residual.to(self.dtype) + y
        return at_least_float32(self.embed((y + block.mlp(block.layer_norm2(y)))[:, None]))


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

    # ComfyUI has several classes for the same layer, which differ in how the weights are kept and cast.
    library, linears, norms, tables, activations = "comfy.*", ("comfy.*",), ("comfy.*",), ("comfy.*",), ()

    def __init__(self, model: Any):
        vision = getattr(model.model, "vision_model", None)
        if vision is None:
            raise ModelError(no_space(model.model_type, model.model))
        self.source, self.model = model, model.model
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

    def own(self, pixels: Tensor) -> Tensor:
        found = self.model(pixel_values=pixels, intermediate_output=-2)[2]  # as ComfyUI asks for it
        return found if found.ndim == 2 else found.mean(1)


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


def flexible_positions(table: Tensor, tokens: Tensor, grid: tuple[int, int], native: tuple[int, int]) -> Tensor:
    """The positions [P, d] of SigLIP 2 naflex on a grid, resized as the model does it, on a copy."""
    square = at_least_float32(table.to(tokens)).T.unflatten(1, native)[None]
    return F.interpolate(square, size=grid, mode="bilinear", antialias=True)[0].flatten(1).T.to(tokens)
