"""Models that somebody changed after they were built: the token is that of what the model computes, or the change is named.

Nothing here may give the token of the unchanged weights in silence.
"""

import copy
import types
from collections.abc import Callable

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from torch import nn

import maskinversion as mi
from tests.helpers.pictures import picture

transformers = pytest.importorskip("transformers")
LAST = {
    "open_clip": "visual.transformer.resblocks.2",
    "timm": "trunk.blocks.2",
    "transformers": "vision_model.encoder.layers.2",
    "siglip": "vision_model.encoder.layers.2",
}
PARTS = {
    "open_clip": ("mlp.c_fc", "mlp.c_proj", "ln_2", "attn"),
    "timm": ("mlp.fc1", "mlp.fc2", "norm2", "attn"),
    "transformers": ("mlp.fc1", "mlp.fc2", "layer_norm2", "self_attn"),
}


def moved(build: Callable[[], nn.Module]) -> nn.Module:
    """With every weight away from its initial value, in float32, and the same every time."""
    torch.manual_seed(0)
    model = build()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def open_clip_model() -> nn.Module:
    vision = dict(image_size=48, patch_size=8, width=64, layers=3, head_width=32)
    return moved(lambda: open_clip.CLIP(40, vision, dict(context_length=8, width=32, heads=2, layers=1)))


def timm_model() -> nn.Module:
    def build():
        model = TimmModel("test_vit", 32, pool="avg", proj="linear")
        model.trunk = timm.create_model("test_vit", num_classes=0, global_pool="avg", img_size=48, patch_size=8, depth=3)
        model.head = nn.Sequential(nn.Linear(model.trunk.num_features, 32, bias=False))
        return model

    return moved(build)


SHAPE = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, patch_size=8, image_size=48)


def transformers_model() -> nn.Module:
    config = transformers.CLIPVisionConfig(**SHAPE, projection_dim=40)
    return moved(lambda: transformers.CLIPVisionModelWithProjection(config))


def siglip_model() -> nn.Module:
    return moved(lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SHAPE)))


MODELS = {"open_clip": open_clip_model, "timm": timm_model, "transformers": transformers_model, "siglip": siglip_model}


def token(model: nn.Module, size: int | None = None) -> torch.Tensor:
    image, masks = picture(size or 48, 2)
    inverter = mi.MaskInverter(mi.load_clip(model), iterations=5, lr=0.1, image_size=size)
    return inverter.invert(inverter.encode(image), masks).embeddings


def last(model: nn.Module, family: str) -> nn.Module:
    try:
        return model.get_submodule(LAST[family])
    except AttributeError:  # SiglipVisionModel is its own vision_model in newer transformers
        return model.get_submodule(LAST[family].removeprefix("vision_model."))


def assert_same(found: torch.Tensor, expected: torch.Tensor, limit: float = 1e-4) -> None:
    assert 1 - F.cosine_similarity(found, expected).min() < limit


# --- adapters


def adapted(model: nn.Module, targets: object, **options) -> nn.Module:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False, **options)
    torch.manual_seed(1)
    return peft.inject_adapter_in_model(config, model).eval()


def merge(model: nn.Module) -> nn.Module:
    """Every layer of PEFT merged for good."""
    model = copy.deepcopy(model)
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "get_base_layer") and "base_layer" not in name:
            layer.merge()
            parent, _, child = name.rpartition(".")
            base = layer.get_base_layer()
            if isinstance(base, nn.MultiheadAttention):
                base.out_proj = base.out_proj.get_base_layer()
            setattr(model.get_submodule(parent), child, base)
    return model


TARGETS = {
    "open_clip": ["c_fc", "c_proj"],
    "timm": ["qkv", "proj", "fc1", "fc2", "head.0"],
    "transformers": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2", "visual_projection", "patch_embedding"],
    "siglip": ["q_proj", "v_proj", "fc1", "fc2"],
}


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["LoRA", "DoRA", "rsLoRA"])
@pytest.mark.parametrize("family", MODELS)
def test_adapters_give_the_token_of_the_merged_model(family, options):
    plain = token(MODELS[family]())
    model = adapted(MODELS[family](), TARGETS[family], **options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found, expected = token(model), token(merge(model))
    assert_same(found, expected)
    assert F.cosine_similarity(found, plain).min() < 0.999
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_adapters_of_an_attention_in_one_piece_give_the_token_of_the_merged_model():
    model = adapted(open_clip_model(), r"visual\.transformer\.resblocks\.\d\.attn")
    assert_same(token(model), token(merge(model)))


def test_adapters_that_are_merged_or_switched_off_count_as_they_compute():
    plain, model = token(transformers_model()), adapted(transformers_model(), TARGETS["transformers"])
    active, layers = token(model), [layer for layer in model.modules() if hasattr(layer, "get_base_layer")]
    for layer in layers:
        layer.merge()
    assert_same(token(model), active)
    for layer in layers:
        layer.unmerge()
        layer.enable_adapters(False)
    assert_same(token(model), plain)


def test_a_peft_model_is_read_as_its_own_model():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["fc1", "fc2"], init_lora_weights=False)
    model = peft.get_peft_model(transformers_model(), config).eval()
    assert_same(token(model), token(copy.deepcopy(model).merge_and_unload()))


def test_adapters_that_come_after_loading_are_seen():
    model = transformers_model()
    clip, (image, masks) = mi.load_clip(model), picture(48, 2)
    inverter = mi.MaskInverter(clip, iterations=5, lr=0.1)
    plain = inverter.invert(inverter.encode(image), masks).embeddings
    adapted(model, ["fc1", "fc2", "q_proj"])
    found = inverter.invert(inverter.encode(image), masks).embeddings
    assert_same(found, token(merge(model)))
    assert F.cosine_similarity(found, plain).min() < 0.999


def test_layers_that_peft_trains_beside_its_adapters_are_refused():
    model = adapted(transformers_model(), ["fc1"], modules_to_save=["visual_projection"])
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["fc1"], modules_to_save=["visual_projection"])
    model = peft.get_peft_model(transformers_model(), config).eval()
    with pytest.raises(mi.ModelError, match=r"visual_projection of this model .*PEFT.*merge_and_unload"):
        token(model)


# --- offloading


@pytest.mark.parametrize("family", ["transformers", "timm"])
def test_what_accelerate_offloads_gives_the_same_token(family):
    accelerate = pytest.importorskip("accelerate")
    expected, model = token(MODELS[family]()), MODELS[family]()
    accelerate.cpu_offload(model, "cpu")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert_same(token(model), expected, 1e-6)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_what_accelerate_offloads_to_disk_gives_the_same_token(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    expected, model = token(transformers_model()), transformers_model()
    accelerate.disk_offload(model, str(tmp_path), "cpu")
    assert_same(token(model), expected, 1e-6)


def test_what_accelerate_moves_as_a_whole_gives_the_same_token():
    accelerate = pytest.importorskip("accelerate")
    expected, model = token(transformers_model()), transformers_model()
    accelerate.cpu_offload_with_hook(model, "cpu")
    assert_same(token(model), expected, 1e-6)


@pytest.mark.parametrize("family, name", [("open_clip", "CLIP"), ("siglip", "SiglipVisionModel")])
def test_an_attention_that_cannot_be_offloaded_is_named(family, name):
    """accelerate offloads its out_proj by itself, which the attention never calls: the model fails without us, too."""
    accelerate = pytest.importorskip("accelerate")
    model = MODELS[family]()
    accelerate.cpu_offload(getattr(model, "visual", model), "cpu")
    with pytest.raises(mi.ModelError, match=f"forward pass of this {name} fails by itself"):
        token(model)


def test_what_is_offloaded_with_all_its_parts_is_refused():
    accelerate = pytest.importorskip("accelerate")
    model = siglip_model()
    accelerate.cpu_offload(model, "cpu", preload_module_classes=["SiglipMultiheadAttentionPoolingHead"])
    with pytest.raises(mi.ModelError, match=r"head.*without preload_module_classes"):
        token(model)


def test_adapters_that_are_offloaded_are_refused():
    accelerate = pytest.importorskip("accelerate")
    model = adapted(transformers_model(), ["fc1", "fc2"])
    accelerate.cpu_offload(model, "cpu")
    with pytest.raises(mi.ModelError, match=r"layers\.2\.mlp\.fc1 of this model has adapters, and is offloaded.*merge"):
        token(model)


@pytest.mark.parametrize("family", MODELS)
def test_weights_that_are_not_there_are_refused(family):
    with pytest.raises(mi.ModelError, match=r"in memory|fails by itself"):
        token(MODELS[family]().to("meta"))
    model = MODELS[family]()
    last(model, family).to("meta")
    with pytest.raises(mi.ModelError, match=r"in memory|fails by itself"):
        token(model)


# --- other classes, hooks and forwards

Change = Callable[[nn.Module], object]


class OtherForward(transformers.CLIPVisionModelWithProjection):
    def forward(self, *args, **options):
        found = super().forward(*args, **options)
        found.image_embeds = found.image_embeds.roll(1, -1)
        return found


class OtherEncode(open_clip.CLIP):
    def encode_image(self, image, normalize: bool = False):
        return super().encode_image(image, normalize).roll(1, -1)


class SameModel(transformers.CLIPVisionModelWithProjection):
    """Computes what its parent does."""


@pytest.mark.parametrize(("family", "kind"), [("transformers", OtherForward), ("open_clip", OtherEncode)])
def test_a_subclass_with_another_forward_is_refused(family, kind):
    model = MODELS[family]()
    model.__class__ = kind
    with pytest.raises(mi.ModelError, match=f"this {kind.__name__} gives another embedding"):
        token(model)


def test_a_subclass_with_the_same_forward_is_read():
    model = transformers_model()
    expected = token(model)
    model.__class__ = SameModel
    assert_same(token(model), expected, 1e-6)


def forward_of_its_own(module: nn.Module) -> None:
    own = module.forward
    module.forward = types.MethodType(lambda self, *args, **options: changed(own(*args, **options)), module)


def changed(output):
    if isinstance(output, tuple):
        return (output[0] * 1.5, *output[1:])
    return output * 1.5


CHANGES: dict[str, Change] = {
    "another forward": forward_of_its_own,
    "a hook": lambda module: module.register_forward_hook(lambda module, args, output: changed(output)),
    "a hook before": lambda module: module.register_forward_pre_hook(lambda module, args: (args[0] * 1.5, *args[1:])),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("family", "part"), [(family, part) for family in PARTS for part in PARTS[family]])
def test_a_changed_part_of_the_last_block_is_refused_by_name(family, part, change):
    model = MODELS[family]()
    try:
        CHANGES[change](last(model, family).get_submodule(part))
        found = token(model)
    except TypeError:
        pytest.skip("this part takes its input by keyword")
    except mi.ModelError as error:
        assert f"{LAST[family].removeprefix('visual.')}.{part} of this model has a forward" in str(error).removeprefix("visual.")
    else:
        raise AssertionError(f"{part} was read in silence: {found}")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("which", range(1, 40, 3))
def test_a_change_anywhere_is_refused_or_right(family, change, which):
    """One part after the other of the whole image side."""
    model = MODELS[family]()
    side = getattr(model, "visual", model)
    names = [name for name, module in side.named_modules() if name and not isinstance(module, (nn.ModuleList, nn.Identity))]
    expected, module = token(model), side.get_submodule(names[which % len(names)])
    CHANGES[change](module)
    pixels = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    try:
        found = token(model)
    except mi.ModelError:
        return
    except (TypeError, IndexError):
        with pytest.raises((TypeError, IndexError)):  # the model itself does not run with this change
            side(pixels)
        return
    with torch.no_grad():
        inverter = mi.MaskInverter(mi.load_clip(model))
        encoded = inverter.encode(picture(48, 2)[0])
    own = inverter.clip.tower.own(inverter.clip.tower.canvas(picture(48, 2)[0].permute(2, 0, 1)[None], encoded.geometry))[0]
    torch.testing.assert_close(encoded.global_embedding, own, rtol=1e-3, atol=1e-4)
    assert found.isfinite().all() and expected.isfinite().all()


def test_hooks_of_the_models_own_library_do_no_harm():
    """transformers leaves hooks on a model that was once asked for its hidden states."""
    model = transformers_model()
    expected = token(model)
    model(pixel_values=torch.rand(1, 3, 48, 48), output_hidden_states=True, output_attentions=True)
    assert_same(token(model), expected, 1e-6)


def test_a_hook_that_comes_after_the_first_picture_is_seen():
    model = transformers_model()
    inverter, (image, _) = mi.MaskInverter(mi.load_clip(model)), picture(48, 2)
    inverter.encode(image)
    hook = model.vision_model.register_forward_hook(lambda module, args, output: None)
    with pytest.raises(mi.ModelError, match="vision_model of this model has a forward hook"):
        inverter.encode(image)
    hook.remove()
    inverter.encode(image)


@pytest.mark.parametrize("size", [48, 64])
def test_a_patched_class_is_found_out_at_any_size(size, monkeypatch):
    kind = type(transformers_model().vision_model.encoder.layers[0].mlp)
    own = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: own(self, x) * 1.5)
    with pytest.raises(mi.ModelError, match="gives another embedding of the picture than its weights say"):
        token(transformers_model(), size)


def test_training_mode_is_named():
    model = MODELS["transformers"]()
    for module in model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.5
    with pytest.raises(mi.ModelError, match="training mode"):
        token(model.train())


# --- quantised and parametrised


@pytest.mark.parametrize("family", ["open_clip", "transformers"])
def test_dynamic_quantisation_is_named(family):
    model = torch.ao.quantization.quantize_dynamic(MODELS[family](), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(mi.ModelError, match=r"of this model is of class Linear.*without quantisation"):
        token(model)


class Packed(torch.Tensor):
    """As torchao and others keep weights: a tensor that computes something else than its numbers."""


def test_a_tensor_of_another_kind_is_named():
    model = transformers_model()
    fc2 = last(model, "transformers").mlp.fc2
    fc2.weight = nn.Parameter(fc2.weight.as_subclass(Packed), requires_grad=False)
    with pytest.raises(mi.ModelError, match=r"fc2 of this model keeps its weight in another form \(Packed\).*without quantisation"):
        token(model)


class Int8Linear(nn.Linear):
    """As bitsandbytes has it: a linear layer whose weight is packed."""


Int8Linear.__module__ = "bitsandbytes.nn.modules"


def test_the_layers_of_a_quantising_library_are_named():
    model = transformers_model()
    last(model, "transformers").mlp.fc1.__class__ = Int8Linear
    with pytest.raises(mi.ModelError, match=r"fc1 of this model is of class Int8Linear.*without quantisation"):
        token(model)


NORMS = (nn.utils.weight_norm, nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("family", "part"), [("open_clip", "mlp.c_fc"), ("timm", "mlp.fc2"), ("transformers", "mlp.fc1")])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_parametrisations_are_named(norm, family, part):
    model = MODELS[family]()
    norm(last(model, family).get_submodule(part))
    named = rf"{part} of this model (is of class ParametrizedLinear|has a forward hook).*remove"
    with pytest.raises(mi.ModelError, match=named):
        token(model)


def test_parametrisations_of_what_is_only_called_are_right():
    model = transformers_model()
    expected = token(model)
    nn.utils.parametrizations.weight_norm(model.vision_model.encoder.layers[0].mlp.fc1)
    assert_same(token(model), expected)


def test_weights_that_are_not_finite_are_named():
    model = transformers_model()
    model.vision_model.encoder.layers[1].mlp.fc1.weight.data[0, 0] = float("nan")
    with pytest.raises(mi.ModelError, match="gives an embedding that is not finite"):
        token(model)


# --- wrapped as a whole


def test_wrappers_that_change_nothing_are_looked_through():
    model = transformers_model()
    expected = token(model)
    assert_same(token(nn.DataParallel(model)), expected, 1e-6)
    assert_same(token(torch.compile(model)), expected, 1e-6)
