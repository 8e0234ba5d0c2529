"""Models are read only where the class of a module says what it computes; and a family of them is one file."""

from types import SimpleNamespace

import pytest
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import nn

import maskinversion as mi
from maskinversion.models.catalogue import readable_architectures
from maskinversion.models.towers import FAMILIES, tower_of
from maskinversion.models.towers.base import family
from maskinversion.models.towers.open_clip_vit import OpenClipViT
from tests.helpers.small_models import small_clip


class Adapted(nn.Linear):
    """Computes something else than its weights say, as what quantises or adapts a model does."""

    def forward(self, x):
        return super().forward(x) + 1


class AdaptedNorm(nn.LayerNorm):
    pass


class AdaptedAttention(nn.MultiheadAttention):
    pass


Quantised = type("Linear", (Adapted,), {"__module__": "torch.ao.nn.quantized.dynamic"})  # as torch's own are called


def timm_clip() -> mi.Clip:
    torch.manual_seed(0)
    model = TimmModel("test_vit", 32, pool="avg", proj="linear")
    model.trunk = timm.create_model("test_vit", num_classes=0, global_pool="avg", img_size=48, patch_size=8)
    model.head = nn.Sequential(nn.Linear(model.trunk.num_features, 32, bias=False))
    return mi.load_clip(model.eval().requires_grad_(False))


def transformers_clip() -> mi.Clip:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, patch_size=8, image_size=48)
    config = transformers.CLIPVisionConfig(**shape, projection_dim=40)
    return mi.load_clip(transformers.CLIPVisionModelWithProjection(config).eval().requires_grad_(False))


def turn(layer: nn.Module, into: type) -> None:
    layer.__class__ = into


def encode(clip: mi.Clip) -> mi.EncodedImage:
    return mi.MaskInverter(clip).encode(torch.rand(48, 48, 3, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda block: turn(block.mlp.c_fc, Adapted), "Adapted"),
        (lambda block: turn(block.mlp.c_proj, Quantised), "Linear"),
        (lambda block: turn(block.attn.out_proj, Adapted), "Adapted"),
        (lambda block: nn.utils.parametrizations.weight_norm(block.mlp.c_fc), "ParametrizedLinear"),
        (lambda block: setattr(block.mlp, "c_proj", nn.Sequential(block.mlp.c_proj)), "Sequential"),
        (lambda block: setattr(block.mlp, "gelu", nn.Softmax(-1)), "Softmax"),
        (lambda block: setattr(block, "ls_1", Adapted(64, 64, dtype=torch.float64)), "Adapted"),
        (lambda block: turn(block.ln_2, AdaptedNorm), "AdaptedNorm"),
        (lambda block: turn(block.attn, AdaptedAttention), "AdaptedAttention"),
    ],
)
def test_what_an_open_clip_block_has_of_another_class_is_refused_by_name(change, name):
    model = small_clip().model
    change(model.visual.transformer.resblocks[-1])
    with pytest.raises(mi.ModelError, match=rf"resblocks\.3\.\S+ of this model is of class {name}, which is not supported: "):
        encode(mi.load_clip(model))


@pytest.mark.parametrize("part", ["fc1", "fc2"])
def test_what_a_block_of_timm_or_transformers_has_of_another_class_is_refused_by_name(part):
    for clip, blocks in ((timm_clip(), "trunk.blocks"), (transformers_clip(), "vision_model.encoder.layers")):
        encode(clip)
        turn(clip.model.get_submodule(f"{blocks}.1.mlp.{part}"), Adapted)  # not one of the last: it is called, not read
        encode(clip)
        turn(clip.tower.blocks[-1].mlp.get_submodule(part), Adapted)
        with pytest.raises(mi.ModelError, match="Adapted"):
            encode(clip)


def test_what_is_called_and_not_read_may_be_of_any_class():
    clip = small_clip()
    image = torch.rand(48, 48, 3, generator=torch.Generator().manual_seed(0))
    plain = encode(clip).global_embedding
    for layer in (clip.tower.blocks[0].mlp.c_fc, clip.tower.blocks[1].mlp.c_proj):
        turn(layer, Adapted)
    found = encode(clip).global_embedding
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.tower.mean, clip.tower.std))
    expected = clip.model.encode_image(((image.permute(2, 0, 1) - mean) / std)[None].double())[0]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(found, plain)


def test_a_family_registers_itself():
    model = SimpleNamespace(image_side=small_clip().model.visual)
    with pytest.raises(mi.ModelError, match="SimpleNamespace"):
        tower_of(model)
    assert "RN50" not in readable_architectures()

    @family
    class OurTower(OpenClipViT):
        def __init__(self, model):
            super().__init__(model.image_side)

        @staticmethod
        def reads(model):
            return hasattr(model, "image_side")

        @staticmethod
        def reads_config(vision):
            return isinstance(vision.get("layers"), list)  # as those of open_clip's ResNets are

    try:
        assert type(tower_of(model)) is OurTower
        assert "RN50" in readable_architectures()
    finally:
        FAMILIES.remove(OurTower)
