"""transformers' CLIP and SigLIP: the closed form against autograd through the modules' own parts, on random weights."""

import hashlib
from inspect import signature

import pytest
import torch
import torch.nn.functional as F
import transformers
from open_clip.transformer import VisionTransformer
from timm.layers import resample_abs_pos_embed

import maskinversion as mi
from tests.helpers.ground_truth import attended, optimise
from tests.helpers.pictures import picture
from tests.helpers.small_models import flattened
from tests.helpers.starts import check_batches, check_values

SHAPE = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, patch_size=8)
CLIPS = ("CLIPVisionModelWithProjection", "CLIPModel", "MetaClip2VisionModelWithProjection")
KINDS = (*CLIPS, "SiglipVisionModel", "Siglip2VisionModel")


def tiny(kind: str, **changes) -> torch.nn.Module:
    """A small random model in float64, with every weight away from its initial value."""
    if not hasattr(transformers, kind):
        pytest.skip(f"transformers {transformers.__version__} has no {kind}")
    torch.manual_seed(0)
    settings = SHAPE | changes
    if kind == "CLIPModel":
        text = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
        config = transformers.CLIPConfig(text_config=text, vision_config=settings | dict(image_size=48), projection_dim=40)
    elif kind == "Siglip2VisionModel":
        config = transformers.Siglip2VisionConfig(**settings, num_patches=36)
    elif kind == "SiglipVisionModel":
        config = transformers.SiglipVisionConfig(**settings, image_size=48)
    else:
        config_class = getattr(transformers, kind).config_class
        config = config_class(**settings, image_size=48, projection_dim=40)
    model = getattr(transformers, kind)(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double().eval()


def models_own(model: torch.nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """The image embedding [B, D] by the model's own forward pass at its own size."""
    if type(model).__name__ == "Siglip2VisionModel":
        rows, columns = (side // 8 for side in pixels.shape[-2:])
        mask = torch.ones(len(pixels), rows * columns, dtype=torch.int)
        shapes = torch.tensor([[rows, columns]] * len(pixels))
        return model(flattened(pixels, 8), pixel_attention_mask=mask, spatial_shapes=shapes).pooler_output
    if isinstance(model, transformers.CLIPModel):
        out = model.get_image_features(pixels)
        return getattr(out, "pooler_output", out)
    out = model(pixels)
    return out.image_embeds if hasattr(out, "image_embeds") else out.pooler_output


def entering_tokens(model: torch.nn.Module, pixels: torch.Tensor, grid: tuple[int, int]) -> list[torch.Tensor]:
    """The tokens [N, d] that enter each block, and those that leave the last one, by the modules' own forward passes."""
    vision = getattr(model, "vision_model", model)
    table = vision.embeddings.position_embedding.weight
    prefix = int(hasattr(vision.embeddings, "class_embedding"))
    if type(model).__name__ == "Siglip2VisionModel":
        # as the model does it, but for its detour through float32
        square = table.T.unflatten(1, (6, 6))[None]
        square = F.interpolate(square, size=grid, mode="bilinear", align_corners=False, antialias=True)
        x = vision.embeddings.patch_embedding(flattened(pixels, 8)) + square.flatten(2).mT
    else:
        x = vision.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
        if prefix:
            x = torch.cat([vision.embeddings.class_embedding[None, None], x], 1)
        x = x + resample_abs_pos_embed(table[None], list(grid), num_prefix_tokens=prefix, interpolation="bicubic")
        x = vision.pre_layrnorm(x) if prefix else x
    tokens = [x[0]]
    for layer in vision.encoder.layers:
        masks = [name for name in signature(layer.forward).parameters if name.endswith("attention_mask")]
        out = layer(x, **dict.fromkeys(masks))
        x = out[0] if isinstance(out, tuple) else out
        tokens.append(x[0])
    return tokens


def heads_of(attention) -> int:
    return attention.num_heads if hasattr(attention, "num_heads") else attention.heads


def mean_score(layer, norm, project, x, token):
    """A block written out with its own parts, and the score of the mean token."""
    attention, normal = layer.self_attn, layer.layer_norm1(x)
    weights, mixed = attended(attention.q_proj(normal), attention.k_proj(normal), attention.v_proj(normal), heads_of(attention))
    y = x + attention.out_proj(mixed)
    z = y + layer.mlp(layer.layer_norm2(y))
    return weights, token @ F.normalize(project(norm(z.mean(0))), dim=-1)


def pooled_score(head, x, token):
    """The pooler written out with its own parts, and the score of the tokens before the last norm."""
    attention = head.attention
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (F.linear(t, w, b) for t, w, b in zip((head.probe[0], x, x), weights, biases))
    row, mixed = attended(q, k, v, attention.num_heads)
    out = attention.out_proj(mixed)
    return row, token @ F.normalize(out + head.mlp(head.layernorm(out)), dim=-1)[0]


def by_autograd(model, pixels, masks, iterations, lr, alpha, layers):
    """What `ground_truth.invert` gives, for these models."""
    vision = getattr(model, "vision_model", model)
    grid = tuple(side // SHAPE["patch_size"] for side in pixels.shape[-2:])
    norm, head = vision.post_layernorm, getattr(vision, "head", None)
    with torch.no_grad():
        tokens = entering_tokens(model, pixels, grid)
        embedding = model.visual_projection(norm(tokens[-1][0])) if head is None else head(norm(tokens[-1][None]))[0]

    def heat(token, size):
        total = 0
        for index in range(len(tokens) - 1 - layers, len(tokens) - 1):
            if head is None:
                weights, score = mean_score(vision.encoder.layers[index], norm, model.visual_projection, tokens[index], token)
            else:
                weights, score = pooled_score(head, tokens[index + 1], token)
            (gradient,) = torch.autograd.grad(score, weights, create_graph=True)
            relevance = gradient.clamp(min=0).mean(0).mean(0)[int(head is None) :].reshape(1, 1, *grid)
            total = total + F.interpolate(relevance, size=size, mode="bilinear")[0, 0]
        return (total - total.min()) / (total.max() - total.min())

    return optimise(embedding, heat, masks, iterations, lr, alpha)


def normalised(clip, image, dtype):
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    return ((image.permute(2, 0, 1) - mean) / std)[None].to(dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "layers"), [(48, 1), (80, 2)])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["float64", "float32"])
def test_equals_autograd(kind, size, layers, dtype, limit):
    model = tiny(kind).to(dtype)
    clip = mi.load_clip(model)
    image, masks = picture(size, 2)
    inverter = mi.MaskInverter(clip, iterations=10, lr=0.1, alpha=1.0, layers=layers, image_size=size)
    found = inverter.invert(inverter.encode(image), masks)
    tokens, maps, losses = by_autograd(model, normalised(clip, image, dtype), masks.to(dtype), 10, 0.1, 1.0, layers)
    assert found.embeddings.dtype == dtype
    assert 1 - F.cosine_similarity(found.embeddings, tokens).min() < limit
    assert (found.maps - maps).abs().max() < limit and (found.losses - losses).abs().max() < limit


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_global_embedding_is_the_models_own(kind):
    model = tiny(kind)
    clip = mi.load_clip(model)
    image, _ = picture(48, 2)
    encoded = mi.MaskInverter(clip).encode(image)
    assert clip.tower.image_size == (48, 48)
    expected = models_own(model, normalised(clip, image, torch.float64))[0]
    torch.testing.assert_close(encoded.global_embedding, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_single_patches_and_batches_are_the_models_own(kind):
    clip = mi.load_clip(tiny(kind))
    image, _ = picture(48, 1)
    check_values(clip, image)
    check_batches(clip, image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_keep_the_optimisation_in_float32(kind, dtype):
    image, masks = picture(48, 2)
    results = []
    for chosen in (torch.float32, dtype):
        inverter = mi.MaskInverter(mi.load_clip(tiny(kind).to(chosen)), iterations=5, lr=0.02)
        results.append(inverter.invert(inverter.encode(image), masks))
    assert results[1].embeddings.dtype == results[1].maps.dtype == torch.float32
    assert F.cosine_similarity(results[0].embeddings, results[1].embeddings).min() > 0.99


def digest(model) -> str:
    total = hashlib.sha256()
    for name, value in model.state_dict().items():
        total.update(name.encode() + value.flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_bit_for_bit_untouched(kind):
    model = tiny(kind)
    pixels = torch.rand(2, 3, 48, 48, dtype=torch.float64)
    methods = {name: (type(m).forward, sorted(vars(m))) for name, m in model.named_modules()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    before = digest(model), models_own(model, pixels), [p.requires_grad for p in model.parameters()]
    image, masks = picture(80, 2)
    with torch.inference_mode():
        inverter = mi.MaskInverter(mi.load_clip(model), image_size=80, layers=2)
        inverter.invert(inverter.encode(image), masks)
    assert digest(model) == before[0]
    assert torch.equal(models_own(model, pixels), before[1])
    assert [p.requires_grad for p in model.parameters()] == before[2] and all(p.grad is None for p in model.parameters())
    assert {name: (type(m).forward, sorted(vars(m))) for name, m in model.named_modules()} == methods
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()] == hooks


@pytest.mark.parametrize("kind", ["CLIPVisionModelWithProjection", "Siglip2VisionModel"])
def test_a_rectangle_is_resampled_in_the_right_order(kind):
    model = tiny(kind)
    pixels = torch.rand(1, 3, 40, 64, dtype=torch.float64)
    with torch.no_grad():
        entering = entering_tokens(model, pixels, (5, 8))
        found = mi.load_clip(model).tower.encode(pixels, 1)[0]
    torch.testing.assert_close(found.entering, entering[-2], rtol=1e-6, atol=1e-6)


def test_the_same_weights_have_the_same_fingerprint_as_in_open_clip():
    model = tiny("CLIPVisionModelWithProjection").float()
    clip = mi.load_clip(model)
    visual = VisionTransformer(48, 8, width=48, layers=3, heads=4, mlp_ratio=2.0, output_dim=40)
    visual.proj.data.copy_(model.visual_projection.weight.T)
    other = mi.load_clip(visual.eval())
    assert clip.fingerprint == other.fingerprint == mi.load_clip(model.half()).fingerprint
    with pytest.raises(mi.ModelError, match="without a tokenizer"):
        clip.encode_text(["a cat"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SHAPE, image_size=48)), "WithProjection"),
        (lambda: tiny("SiglipVisionModel", vision_use_head=False), "with its head"),
        (lambda: transformers.Dinov2Model(transformers.Dinov2Config(hidden_size=48, num_hidden_layers=1)), "no image-text space"),
        (lambda: transformers.ViTModel(transformers.ViTConfig(hidden_size=48, num_hidden_layers=1)), "not supported"),
    ],
)
def test_models_without_an_image_text_space_are_refused(model, message):
    with pytest.raises(mi.ModelError, match=message):
        mi.load_clip(model())
