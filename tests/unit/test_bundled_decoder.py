"""The bundled decoder: pictures of regions, offline."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import maskinversion as mi
from maskinversion.bundled import load_example
from maskinversion.operations import nothing
from maskinversion.pictures import as_pixels
from maskinversion.tasks.classify import classify
from maskinversion.tasks.diffusion import Settings, load_decoder
from maskinversion.tasks.diffusion.loading import BUNDLED_DECODERS

SETTINGS = Settings(steps=15, guidance=4.0)


@pytest.fixture(scope="module")
def decoder():
    return load_decoder("bundled")


@pytest.fixture(scope="module")
def zoo(bundled):
    example = load_example("zoo")
    inverter = mi.MaskInverter(bundled)
    return example, inverter.invert(inverter.encode(example.image), example.masks)


def test_it_is_small_and_holds_weights_as_safetensors_only():
    files = [file for folder in BUNDLED_DECODERS.values() for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30 * 10**6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md"}
    kinds = {json.loads((folder / "model_index.json").read_text())["_class_name"] for folder in BUNDLED_DECODERS.values()}
    assert kinds == {"KandinskyV22Pipeline", "KandinskyV22InpaintPipeline"}


def test_it_paints_what_is_in_the_region(bundled, decoder, zoo):
    """Judged here by the CLIP that it was trained with; recipes/decoder/evaluate.py has a judge of its own, and more scenes."""
    example, tokens = zoo
    pictures = decoder.generate([tokens], replace(SETTINGS, count=2), [nothing(bundled)])
    assert pictures.shape == (6, 64, 64, 3)
    inverter = mi.MaskInverter(bundled)
    seen = torch.stack([inverter.encode(picture).global_embedding for picture in pictures])
    answers = [phrase for phrase, _ in classify(seen, bundled, example.names).best]
    expected = [name for name in example.names for _ in range(2)]
    assert sum(a == e for a, e in zip(answers, expected, strict=True)) >= 5, answers


def test_it_paints_into_a_region_and_nowhere_else(bundled, zoo):
    example, tokens = zoo
    image = as_pixels(example.image)[0].permute(1, 2, 0)
    inpainter = load_decoder("bundled-inpaint")
    fox = replace(
        tokens, **{name: getattr(tokens, name)[2:] for name in ("embeddings", "maps", "iou")}, losses=tokens.losses[:, 2:]
    )
    painted = inpainter.inpaint([fox], image, example.masks[1], SETTINGS, 4, [nothing(bundled)])[0]
    outside = example.masks[1] == 0
    assert torch.equal(painted[outside], image[outside])
    assert (painted - image)[example.masks[1] > 0.9].abs().mean() > 0.05


def test_tokens_of_another_clip_are_refused(decoder, zoo):
    _, tokens = zoo
    with pytest.raises(mi.InputError, match=r"not the CLIP that the bundled decoder was trained with.*the bundled CLIP"):
        decoder.generate([replace(tokens, fingerprint="0" * 16, model="ViT-64")], SETTINGS)
    with pytest.raises(mi.ModelError, match="the bundled one for painting"):
        decoder.inpaint([tokens], np.zeros((64, 64, 3), np.uint8), torch.ones(64, 64), SETTINGS)
