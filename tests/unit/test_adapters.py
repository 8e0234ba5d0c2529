"""IP-Adapters beyond the basic one: what each reads, from files with the published names, in pipelines in miniature."""

from dataclasses import replace
from importlib.util import find_spec

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.torch_version import TorchVersion

import maskinversion as mi
from maskinversion.operations import pick
from maskinversion.tasks.diffusion import Settings, load_decoder
from tests.helpers import small_adapters
from tests.helpers.random_tokens import made
from tests.helpers.small_adapters import OF_STATES, OF_TOKENS, SINCE, STATES
from tests.helpers.small_pipelines import WIDTH

SETTINGS = Settings(steps=2, guidance=3.0, width=32, height=32, prompt="a fox")
PAINTS = ("sd", "sdxl", "sd3", "flux")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module", params=[*OF_STATES, *OF_TOKENS])
def decoder(request, base):
    name = request.param
    if TorchVersion(diffusers.__version__) < SINCE.get(name, "0"):
        pytest.skip(f"diffusers {diffusers.__version__} has no adapter for {name}")
    if name == "kolors" and find_spec("sentencepiece") is None:
        pytest.skip("Kolors' tokenizer needs sentencepiece")
    folder = small_adapters.write_newer(name, base)
    return load_decoder(folder, adapter=small_adapters.write_newer_adapter(name, base))


def regions(decoder, count, rows=10, seed=0):
    if not decoder.reads_states:
        return [made(count, seed, WIDTH)]
    return torch.randn(count, rows, STATES, generator=torch.Generator().manual_seed(seed))


def of(found, index):
    return found[[index]] if isinstance(found, torch.Tensor) else pick(found, [index])


def short(decoder):
    return decoder.name.split(" ")[0]


def test_every_region_makes_its_own_picture_and_the_same_one_again(decoder):
    both, nothing = regions(decoder, 2), regions(decoder, 1, 14, seed=5)
    assert decoder.width == (STATES if decoder.reads_states else WIDTH)
    pictures = decoder.generate(both, SETTINGS, nothing)
    assert pictures.shape == (2, 32, 32, 3) and pictures.isfinite().all() and pictures.min() < pictures.max()
    assert torch.equal(decoder.generate(both, SETTINGS, nothing), pictures)
    alone = decoder.generate(of(both, 1), replace(SETTINGS, seed=1), nothing)[0]
    assert torch.equal(alone, pictures[1])
    assert not torch.equal(decoder.generate(of(both, 0), replace(SETTINGS, seed=1), nothing)[0], alone)
    assert not torch.equal(decoder.generate(of(both, 1), replace(SETTINGS, seed=1), regions(decoder, 1, seed=6))[0], alone)
    scaled = decoder.generate(of(both, 1), replace(SETTINGS, seed=1, adapter_scale=0.0), nothing)[0]
    assert not torch.equal(scaled, alone)


def test_any_number_of_rows_is_read(decoder):
    if decoder.reads_states:
        few, nothing = regions(decoder, 1, 3), regions(decoder, 1, 14, seed=5)
        assert decoder.generate(few, SETTINGS, nothing).shape == (1, 32, 32, 3)
        assert torch.equal(decoder.generate(few, SETTINGS, nothing[:, [0, 4, 9]]), decoder.generate(few, SETTINGS, nothing))


def test_it_paints_into_a_picture_where_its_pipeline_can(decoder):
    image, mask = torch.rand(40, 56, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(40, 56)
    mask[8:32, 8:40] = 1
    one, nothing = regions(decoder, 1), regions(decoder, 1, seed=5)
    if short(decoder) not in PAINTS:
        with pytest.raises(mi.ModelError, match="cannot paint into a picture: load an inpainting model"):
            decoder.inpaint(one, image, mask, SETTINGS, 0, nothing)
        return
    painted = decoder.inpaint(one, image, mask, SETTINGS, 0, nothing)[0]
    assert torch.equal(painted[mask == 0], image[mask == 0]) and not torch.equal(painted[mask > 0], image[mask > 0])


def test_what_is_led_away_from_is_what_the_model_learnt_it_to_be(decoder):
    one = regions(decoder, 1)
    if decoder.called.way == "stacked":
        with pytest.raises(mi.InputError, match="leads away from the hidden states of a picture with nothing on it, and zeros are"):
            decoder.generate(one, SETTINGS)
        decoder.generate(one, replace(SETTINGS, guidance=1.0))
        return
    zeros = torch.zeros_like(one) if decoder.reads_states else [replace(one[0], embeddings=torch.zeros(1, WIDTH))]
    plain = decoder.generate(one, SETTINGS)
    flux = short(decoder) == "flux"  # leads away from nothing unless it is told to
    assert torch.equal(decoder.generate(one, SETTINGS, zeros), plain) == (not flux)
    if flux:
        assert not torch.equal(decoder.generate(one, replace(SETTINGS, guidance=2.0)), plain)
        away = replace(SETTINGS, negative_prompt="a cup")
        assert torch.equal(decoder.generate(one, away), decoder.generate(one, away, zeros))


def test_tokens_where_hidden_states_are_read_and_the_other_way_round_are_refused(decoder):
    if decoder.reads_states:
        with pytest.raises(mi.InputError, match=rf"reads hidden states \[regions, rows, {STATES}\] and no tokens"):
            decoder.generate([made(1, width=WIDTH)], SETTINGS)
        with pytest.raises(mi.InputError, match=f"the hidden states have 7 numbers in a row, but .* takes {STATES}"):
            decoder.generate(torch.zeros(1, 5, 7), SETTINGS)
        with pytest.raises(mi.InputError, match="of 2 pictures to lead away from; give those of one"):
            decoder.generate(regions(decoder, 1), SETTINGS, regions(decoder, 2))
    else:
        with pytest.raises(mi.InputError, match="reads tokens, and these are hidden states"):
            decoder.generate(torch.zeros(1, 5, WIDTH), SETTINGS)


def test_an_adapter_of_another_model_is_refused_with_one_that_fits(base, tmp_path):
    folder = small_adapters.write_newer("sd", base)
    plus = small_adapters.write_newer_adapter("sd", base)
    xlabs = load_file(small_adapters.write_newer_adapter("flux", base))
    save_file(xlabs, tmp_path / "xlabs.safetensors")
    with pytest.raises(mi.ModelError, match=r"was made for another model than sd: take one for SD 1\.5, say ip-adap"):
        load_decoder(folder, adapter=tmp_path / "xlabs.safetensors")
    weights = load_file(plus)
    save_file({key: value for key, value in weights.items() if "proj_in" not in key}, tmp_path / "face.safetensors")
    with pytest.raises(mi.ModelError, match="is not an IP-Adapter that reads a token or hidden states"):
        load_decoder(folder, adapter=tmp_path / "face.safetensors")
    save_file(weights | {"image_proj.latents": torch.full((1, 8, 64), float("nan"))}, tmp_path / "nan.safetensors")
    with pytest.raises(mi.ModelError, match="NaN or infinite"):
        load_decoder(folder, adapter=tmp_path / "nan.safetensors")
