"""Native CLIP_VISION models in miniature, with the structure of the real ones, in ComfyUI's own classes: prints what was found.

A program of its own, because ComfyUI is set up when it is imported, and has modules called `nodes` and `tests`.
Usage: python -m tests.helpers.native_small COMFYUI_FOLDER
"""

import hashlib
import json
import sys

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed

import maskinversion as mi
from tests.helpers.ground_truth import attended, optimise
from tests.helpers.pictures import picture
from tests.helpers.small_models import flattened

sys.path.insert(0, sys.argv[1])  # after `tests` is there: ComfyUI has one too

from comfy.cli_args import args

args.cpu = True

from comfy.clip_vision import ClipVisionModel  # noqa: E402

SMALL = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, patch_size=8, num_channels=3)
CLIP = SMALL | dict(model_type="clip_vision_model", image_size=48, projection_dim=40)
SIGLIP = SMALL | dict(hidden_act="gelu_pytorch_tanh", image_mean=[0.5] * 3, image_std=[0.5] * 3)
MODELS = {
    "ViT-L/14": CLIP | dict(hidden_act="quick_gelu"),
    "ViT-H/14, ViT-bigG/14": CLIP | dict(hidden_act="gelu"),
    "ViT-L/14-336 of LLaVA": CLIP | dict(hidden_act="quick_gelu", projector_type="llava3"),
    "SigLIP so400m 384": SIGLIP | dict(model_type="siglip_vision_model", image_size=51),  # patches do not fill it, as there
    "SigLIP so400m 512": SIGLIP | dict(model_type="siglip_vision_model", image_size=48),
    "SigLIP 2 naflex": SIGLIP | dict(model_type="siglip2_vision_model", image_size=-1, num_patches=36),
}
DINO = dict(model_type="dinov2", hidden_size=32, num_hidden_layers=1, num_attention_heads=2, layer_norm_eps=1e-6, patch_size=14,
            image_size=28, use_swiglu_ffn=False)  # fmt: skip


def build(config: dict, dtype: torch.dtype) -> ClipVisionModel:
    model = ClipVisionModel(config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 1 if parameter.ndim == 1 and "norm" in name and "weight" in name else 0
        parameter.data = (scale + 0.2 * noise).to(torch.float16).to(dtype)
    return model


def digest(model: ClipVisionModel) -> str:
    total = hashlib.sha256()
    for name, value in model.get_sd().items():
        total.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def entering_tokens(vision, pixels, grid):
    """Tokens [N, d] that enter each block, and those that leave the last, by the modules' own forward passes."""
    embeddings = vision.embeddings
    table = embeddings.position_embedding.weight.to(pixels)
    if isinstance(embeddings.patch_embedding, torch.nn.Linear):
        x = embeddings(pixels)
        side = round(len(table) ** 0.5)
        square = F.interpolate(table.T.unflatten(1, (side, side))[None], size=grid, mode="bilinear", antialias=True)
        torch.testing.assert_close(x, embeddings.patch_embedding(flattened(pixels, 8)) + square.flatten(2).mT)
    else:
        x = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        prefix = 0 if embeddings.class_embedding is None else 1
        if prefix:
            x = torch.cat([embeddings.class_embedding.to(pixels)[None, None], x], 1)
        x = x + resample_abs_pos_embed(table[None], list(grid), num_prefix_tokens=prefix, interpolation="bicubic")
    x = vision.pre_layrnorm(x)
    tokens = [x[0]]
    attend = lambda q, k, v, heads, mask: attended(q[0], k[0], v[0], heads)[1][None]  # noqa: E731
    for layer in vision.encoder.layers:
        x = layer(x.clone(), None, attend)  # the layer adds to what it is given
        tokens.append(x[0])
    return tokens


def by_autograd(model, pixels, masks, layers):
    vision, project = model.model.vision_model, model.model.visual_projection
    prefix = 0 if vision.output_layernorm else 1
    grid = tuple(side // 8 for side in pixels.shape[-2:])
    with torch.no_grad():
        tokens = entering_tokens(vision, pixels, grid)
        normal = vision.post_layernorm(tokens[-1])
        embedding = project(normal[0] if prefix else normal.mean(0))

    def heat(token, size):
        total = 0
        for layer, x in list(zip(vision.encoder.layers, tokens))[-layers:]:
            attention, normal = layer.self_attn, layer.layer_norm1(x)
            q, k, v = attention.q_proj(normal), attention.k_proj(normal), attention.v_proj(normal)
            weights, mixed = attended(q, k, v, attention.heads)
            y = x + attention.out_proj(mixed)
            z = y + layer.mlp(layer.layer_norm2(y))
            score = token @ F.normalize(project(vision.post_layernorm(z.mean(0))), dim=-1)
            (gradient,) = torch.autograd.grad(score, weights, create_graph=True)
            relevance = gradient.clamp(min=0).mean(0).mean(0)[prefix:].reshape(1, 1, *grid)
            total = total + F.interpolate(relevance, size=size, mode="bilinear")[0, 0]
        return (total - total.min()) / (total.max() - total.min())

    return optimise(embedding, heat, masks, 10, 0.1, 1.0)


def inverted(model, image, masks, size=None, layers=1, dtype=torch.float32):
    clip = mi.load_clip(model)
    # Its modules cast their weights to whatever they are given.
    clip.tower.__class__ = type("AtPrecision", (type(clip.tower),), {"dtype": dtype})
    inverter = mi.MaskInverter(clip, iterations=10, lr=0.1, alpha=1.0, layers=layers, image_size=size)
    encoded = inverter.encode(image)
    return clip, encoded, inverter.invert(encoded, masks)


def check(config: dict) -> dict:
    found = {}
    model = build(config, torch.float16)
    before = digest(model)
    for size, layers, dtype in ((48, 1, torch.float64), (80, 2, torch.float64), (48, 1, torch.float32)):
        image, masks = picture(size, 2)
        clip, encoded, tokens = inverted(model, image, masks, size, layers, dtype)
        mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
        pixels = ((image.permute(2, 0, 1) - mean) / std)[None].to(dtype)
        expected, maps, _ = by_autograd(model, pixels, masks.to(dtype), layers)
        found[f"token {size} {dtype}"] = 1 - F.cosine_similarity(tokens.embeddings, expected).min().item()
        found[f"map {size} {dtype}"] = (tokens.maps - maps).abs().max().item()
        if dtype == torch.float32:
            first = tokens
            own = model.model(pixel_values=pixels, intermediate_output="all")
            entering, leaving = own[1][0, -2], own[1][0, -1]
            embedding, reference = encoded.global_embedding, own[2][0]
            if reference.ndim == 2:  # a SigLIP without its pooler
                reference = reference.mean(0)
            found["own"] = max(
                ((a - b).norm() / b.norm()).item()
                for a, b in ((encoded.entering, entering), (encoded.leaving, leaving), (embedding, reference))
            )
            found["states"] = len(encoded.states)
            found["native size"] = list(clip.tower.image_size)
    for kind in (torch.float8_e4m3fn, torch.float8_e5m2):  # as --fp8_e4m3fn-text-enc loads it
        rounded = build(config, torch.float32)
        for parameter in rounded.model.parameters():
            parameter.data = parameter.data.to(kind).float()
        low, high = (inverted(model, image, masks)[2].embeddings for model in (build(config, kind), rounded))
        found[str(kind)] = 1 - F.cosine_similarity(low, high).min().item()
    exact = inverted(build(config, torch.float32), image, masks)[2]
    rough = inverted(build(config, torch.bfloat16), image, masks)[2]
    found["float16"] = 1 - F.cosine_similarity(first.embeddings, exact.embeddings).min().item()
    found["bfloat16"] = 1 - F.cosine_similarity(rough.embeddings, exact.embeddings).min().item()
    found["dtypes"] = sorted({str(t.dtype) for t in (first.embeddings, first.maps, rough.embeddings, rough.maps)})
    found["untouched"] = digest(model) == before
    return found


def main() -> None:
    report = {name: check(config) for name, config in MODELS.items()}
    try:
        mi.load_clip(ClipVisionModel(DINO))
        report["DINO"] = ""
    except mi.ModelError as error:
        report["DINO"] = str(error)
    print(json.dumps(report))


main()
