"""Every family of open_clip's image sides against autograd through the unmodified model's own modules, on random weights."""

import copy
from functools import partial

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.model import _build_vision_tower
from open_clip.timm_model import TimmModel
from timm.layers import resample_abs_pos_embed

import maskinversion as mi
from maskinversion.explain.plan import cheapest_form
from maskinversion.models.catalogue import readable_architectures
from maskinversion.models.towers import tower_of
from tests.helpers import ground_truth
from tests.helpers.pictures import many_masks, picture
from tests.helpers.small_models import skip_unknown
from tests.helpers.starts import check_batches, check_values


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """In float64, with every weight away from its initial value."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.double().eval().requires_grad_(False)


def open_clip_model(**vision) -> open_clip.CLIP:
    config = dict(image_size=48, patch_size=8, width=64, layers=3, head_width=32) | vision
    skip_unknown(config)
    return randomised(open_clip.CLIP(40, config, dict(context_length=8, width=32, heads=2, layers=1)))


def timm_model(name: str, pool: str, proj: str | None, **trunk) -> TimmModel:
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model = TimmModel("test_vit", 32, pool="token" if pool == "map" and proj is None else pool, proj=proj)
    classes = 0 if proj else 32
    model.trunk = timm.create_model(name, num_classes=classes, global_pool=pool, **trunk)
    if proj == "linear":
        model.head = torch.nn.Sequential(torch.nn.Linear(model.trunk.num_features, 32, bias=False))
    return randomised(model)


SMALL_EVA = dict(img_size=48, patch_size=8, embed_dim=64, depth=3, num_heads=2)
MODELS = {
    "CoCa": lambda: open_clip_model(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=4),
    "ViT with norms and scales inside its blocks": lambda: open_clip_model(
        block_type="custom", qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_attn=True, scale_fc=True
    ),
    "SigLIP": lambda: timm_model("test_vit", "map", "none", img_size=48, patch_size=8, num_heads=8, class_token=False),
    "SigLIP, tanh GELU": lambda: timm_model(
        "test_vit", "map", "none", img_size=48, patch_size=8, num_heads=8, act_layer="gelu_tanh"
    ),
    "PE-Core": lambda: timm_model("vit_pe_core_tiny_patch16_384", "map", None, img_size=64, depth=2),
    "EVA-02 base": lambda: timm_model("eva02_base_patch16_clip_224", "token", None, **SMALL_EVA),
    "EVA-02 enormous": lambda: timm_model("eva02_enormous_patch14_clip_224", "token", None, **SMALL_EVA),
    "EVA-01": lambda: timm_model("eva_giant_patch14_224", "token", None, **SMALL_EVA),
    "EVA with LayerScale, mean": lambda: timm_model("eva02_tiny_patch14_224", "avg", "linear", init_values=0.3, **SMALL_EVA),
    "timm ViT, mean": lambda: timm_model("test_vit", "avg", "linear", img_size=48, patch_size=8),
    "timm ViT, class token": lambda: timm_model("test_vit", "token", None, img_size=48, patch_size=8, init_values=0.2),
}


def resized(visual: torch.nn.Module, size: int) -> torch.nn.Module:
    """A copy of the image side made for another size: by timm itself, and by open_clip's positions resampled."""
    visual = copy.deepcopy(visual)
    trunk = getattr(visual, "trunk", None)
    if hasattr(trunk, "set_input_size"):
        trunk.set_input_size(img_size=(size, size))
    elif trunk is not None:  # EVA before timm 1.0.16
        trunk.patch_embed.set_input_size(img_size=(size, size))
        grid = list(trunk.patch_embed.grid_size)
        table = resample_abs_pos_embed(trunk.pos_embed, grid, num_prefix_tokens=1, interpolation="bicubic")
        trunk.pos_embed = torch.nn.Parameter(table)
        if (rope := trunk.rope) is not None:
            trunk.rope = type(rope)(rope.dim, in_pixels=False, feat_shape=grid, ref_feat_shape=rope.ref_feat_shape)
    elif size != visual.image_size[0]:
        grid = [size // visual.patch_size[0]] * 2
        table = resample_abs_pos_embed(visual.positional_embedding[None], grid, num_prefix_tokens=1, interpolation="bicubic")
        visual.positional_embedding = torch.nn.Parameter(table[0])
    return visual.requires_grad_(False)


def timm_blocks(visual, pixels):
    """The tokens that enter the first block, the blocks, and how to run one."""
    trunk = visual.trunk
    x = trunk.patch_embed(pixels)
    x = trunk._pos_embed(x)
    x, rope = x if isinstance(x, tuple) else (x, None)
    x = getattr(trunk, "norm_pre", torch.nn.Identity())(x)
    return x, trunk.blocks, (lambda block, t: block(t) if rope is None else block(t, rope=rope))


def open_clip_blocks(visual, pixels):
    """The same of open_clip's own image side."""
    entering = []
    handle = visual.transformer.register_forward_pre_hook(lambda module, args: entering.append(args[0]))
    visual(pixels)
    handle.remove()
    return entering[0], visual.transformer.resblocks, lambda block, t: block(t)


def layers_of(visual, pixels, layers):
    """The embedding [D]; and what gives the (feature, attention) of each of the last layers, anew at every call."""
    x, blocks, run = (timm_blocks if hasattr(visual, "trunk") else open_clip_blocks)(visual, pixels)
    entering = []
    for block in blocks:
        entering.append(x)
        x = run(block, x)

    def feature(z):
        if not hasattr(visual, "trunk"):
            if visual.attn_pool is not None:
                return visual.attn_pool(z)[0, 0] @ visual.proj
            return visual.ln_post(z.mean(1))[0] @ visual.proj
        trunk = visual.trunk
        if getattr(trunk, "attn_pool", None) is not None:
            return visual.head(trunk.forward_head(z))[0]
        return visual.head(trunk.head(trunk.fc_norm(trunk.norm(z.mean(1)))))[0]

    def found():
        for block, tokens in list(zip(blocks, entering))[-layers:]:
            with ground_truth.attention_nodes() as nodes:
                made = feature(run(block, tokens.detach().requires_grad_()))
            yield made, nodes[-1]

    return visual(pixels)[0], found


@pytest.mark.parametrize(("layers", "larger"), [(1, False), (2, True)])
@pytest.mark.parametrize("name", MODELS)
def test_equals_autograd(name, layers, larger):
    model = MODELS[name]()
    clip = mi.load_clip(model)
    size, patch = clip.tower.image_size[0], clip.tower.patch_size[0]
    size += 2 * patch if larger else 0
    image, masks = picture(size, 2)
    inverter = mi.MaskInverter(clip, lr=0.1, layers=layers, image_size=size)
    tokens = inverter.invert(inverter.encode(image), masks)
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    pixels = ((image.permute(2, 0, 1) - mean) / std)[None].double()
    embedding, found = layers_of(resized(getattr(model, "visual", model), size), pixels, layers)
    heat_of = ground_truth.heat_of_nodes(found, [size // patch] * 2, cosine=name != "CoCa")
    expected, maps, losses = ground_truth.optimise(embedding, heat_of, masks.double(), 10, 0.1, 0.0)
    assert torch.allclose(tokens.global_embedding, embedding, rtol=1e-9, atol=1e-12)
    assert 1 - F.cosine_similarity(tokens.embeddings, expected).min() < 1e-9
    assert (tokens.maps - maps).abs().max() < 1e-9
    assert (tokens.losses - losses).abs().max() < 1e-9


@pytest.mark.parametrize("name", MODELS)
def test_single_patches_and_batches_are_the_models_own(name):
    clip = mi.load_clip(MODELS[name]())
    image, _ = picture(clip.tower.image_size[0], 1)
    check_values(clip, image)
    check_batches(clip, image)


@pytest.mark.parametrize("name", ["CoCa", "SigLIP", "PE-Core"])
def test_a_matrix_for_many_masks_changes_nothing(name):
    clip = mi.load_clip(MODELS[name]())
    image, _ = picture(clip.tower.image_size[0], 1)
    masks = many_masks(clip.tower.image_size[0], 60)
    inverter = mi.MaskInverter(clip)
    encoded = inverter.encode(image)
    (found,) = encoded.maps
    folded = cheapest_form(found, 60, 10)
    assert folded is not found and cheapest_form(found, 1, 1) is found
    assert folded.step_macs < found.step_macs and folded.setup_macs > found.setup_macs
    together = inverter.invert(encoded, masks)
    alone = [inverter.invert(encoded, mask) for mask in masks[::20]]
    torch.testing.assert_close(together.embeddings[::20], torch.cat([one.embeddings for one in alone]), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(together.maps[::20], torch.cat([one.maps for one in alone]), rtol=0, atol=1e-9)


def plain(clip: mi.Clip, pixels: torch.Tensor) -> torch.Tensor:
    """The model's own forward pass."""
    return clip.model.visual(pixels.to(clip.device, clip.tower.dtype))[0 if isinstance(clip.model, open_clip.CoCa) else slice(None)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "coca_ViT-B-32", "EVA02-B-16", "ViT-B-16-SigLIP2", "PE-Core-T-16-384"])
def test_released_architectures(name):
    """The embedding is the model's own; the model is left as it was; another size and half precision work."""
    if name not in open_clip.list_models():
        pytest.skip(f"open_clip {open_clip.__version__} has no {name}")
    clip = mi.load_clip(f"{name}/random", device="cpu")
    size = clip.tower.image_size[0]
    image, masks = picture(size, 2)
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    pixels = ((image.permute(2, 0, 1) - mean) / std)[None]
    before = fingerprint(clip.model)
    own = plain(clip, pixels)
    inverter = mi.MaskInverter(clip, iterations=2)
    tokens = inverter.invert(inverter.encode(image), masks)
    torch.testing.assert_close(tokens.global_embedding, own[0], rtol=1e-4, atol=1e-5)
    patch = clip.tower.patch_size[0]
    larger = mi.MaskInverter(clip, iterations=2, image_size=size // patch * 2 // 3 * 2 * patch)
    assert larger.invert(larger.encode(image), masks).embeddings.isfinite().all()
    assert fingerprint(clip.model) == before and torch.equal(plain(clip, pixels), own)
    for dtype in (torch.bfloat16, torch.float16):
        clip.model.to(dtype)
        half = inverter.invert(inverter.encode(image), masks)
        assert half.embeddings.dtype == half.maps.dtype == torch.float32
        assert F.cosine_similarity(half.global_embedding, tokens.global_embedding, dim=0) > 0.99


def fingerprint(model: torch.nn.Module) -> list:
    """The bits of every weight, and every forward."""
    weights = [hash(value.contiguous().numpy().tobytes()) for value in model.state_dict().values()]
    return weights + [(name, module.forward.__func__, len(module._forward_hooks)) for name, module in model.named_modules()]


@pytest.mark.slow
def test_readable_architectures_are_those_that_a_tower_reads(monkeypatch):
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="cpu"))  # older timm reads its numbers

    def reads(name):
        config = open_clip.get_model_config(name)
        with torch.device("meta"):
            visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
        try:
            return tower_of(visual.to_empty(device="cpu"))  # memory that is never touched costs nothing
        except mi.ModelError:
            return None

    assert list(readable_architectures()) == [name for name in open_clip.list_models() if reads(name)]


def test_unsupported_image_sides_are_named():
    with pytest.raises(mi.ModelError, match="ConvNeXt"):
        mi.load_clip("convnext_tiny/random")
    with pytest.raises(mi.ModelError, match="ResNet"):
        mi.load_clip("RN50/random")
    with pytest.raises(mi.ModelError, match="two stages"):
        mi.load_clip(open_clip_model(attentional_pool="cascade", attn_pooler_queries=4, attn_pooler_heads=4))
    with pytest.raises(mi.ModelError, match="scaled cosine"):
        mi.load_clip(open_clip_model(block_type="custom", scaled_cosine_attn=True))


def test_a_live_model_reads_text_only_with_the_vocabulary_that_it_was_trained_with():
    torch.manual_seed(0)
    vision = dict(image_size=48, patch_size=8, width=64, layers=2, head_width=32)
    text = dict(context_length=8, width=32, heads=2, layers=1)
    usual = mi.load_clip(open_clip.CLIP(40, vision, text).eval())
    assert usual.encode_text(["a cat", "a dog"]).shape == (2, 40)
    other = mi.load_clip(open_clip.CLIP(40, vision, text | dict(vocab_size=32000)).eval())
    with pytest.raises(mi.ModelError, match="tokenizer"):
        other.encode_text(["a cat"])
