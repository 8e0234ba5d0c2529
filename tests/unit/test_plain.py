"""The plain CLIP of our own: open_clip's, to the bit, and only where a configuration asks for nothing else."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import load_file

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.models.plain import PlainClip, is_plain
from maskinversion.models.towers.open_clip_vit import OpenClipViT

CONFIG = json.loads((BUNDLED / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]


def changed(part: str, **fields: object) -> dict:
    return CONFIG | {part: CONFIG[part] | fields}


@pytest.fixture(scope="module")
def theirs() -> open_clip.CLIP:
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(load_file(BUNDLED / "open_clip_model.safetensors"))
    return model.eval().requires_grad_(False)


def test_it_is_what_the_bundled_clip_is_made_of(bundled):
    assert type(bundled.model) is PlainClip


def test_the_same_bits_come_out_of_the_same_weights(bundled, theirs):
    ours = bundled.model
    assert {name: value.shape for name, value in ours.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    pixels = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    texts = ["a cat", "two dogs", "", 20 * "a story that is too long "]
    numbers = bundled.tokenizer(texts)
    assert torch.equal(numbers, open_clip.SimpleTokenizer(context_length=24)(texts))
    with torch.no_grad():
        for normalize in (False, True):
            assert torch.equal(ours.encode_image(pixels, normalize), theirs.encode_image(pixels, normalize))
            assert torch.equal(ours.encode_text(numbers, normalize), theirs.encode_text(numbers, normalize))


def test_the_same_tokens_come_out(bundled, theirs, scene):
    image, masks = scene
    theirs.visual.preprocess_cfg = bundled.model.visual.preprocess_cfg
    found = []
    for clip in (bundled, mi.Clip("theirs", OpenClipViT(theirs), theirs, bundled.tokenizer)):
        inverter = mi.MaskInverter(clip, start="both", layers=2)
        found.append(inverter.invert(inverter.encode(image), masks).embeddings)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG | {"custom_text": True},
        CONFIG | {"quick_gelu": True},
        changed("vision_cfg", pool_type="avg"),
        changed("vision_cfg", ls_init_value=0.1),
        changed("vision_cfg", layers=[1, 1, 1, 1]),
        changed("vision_cfg", image_size=0),
        changed("vision_cfg", width=192.0),
        changed("vision_cfg", layers=True),
        changed("text_cfg", hf_model_name="roberta-base"),
        changed("text_cfg", pool_type="eos"),
        {name: part for name, part in CONFIG.items() if name != "text_cfg"},
        CONFIG | {"text_cfg": {}},
        CONFIG | {"vision_cfg": None},
        CONFIG | {"embed_dim": "64"},
    ],
)
def test_what_asks_for_something_else_is_left_to_open_clip(config):
    assert is_plain(CONFIG) and not is_plain(config)


def test_loading_draws_no_random_numbers():
    before = torch.get_rng_state()
    mi.load_clip("bundled", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
