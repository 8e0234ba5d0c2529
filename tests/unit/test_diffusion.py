"""Pictures from tokens with every supported pipeline, in miniature and of random weights, from folders."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import maskinversion as mi
from maskinversion.operations import pick
from maskinversion.tasks.diffusion import Settings, load_decoder
from maskinversion.tasks.diffusion.steps import feathered
from tests.helpers import small_pipelines
from tests.helpers.random_tokens import made

WIDTH = small_pipelines.WIDTH
SETTINGS = Settings(steps=2, guidance=3.0, width=32, height=32)
MAKES = ("kandinsky", "unclip", "sd", "sdxl")
PAINTS = ("kandinsky-inpaint", "sd", "sdxl")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("pipelines")
    small_pipelines.write_all(base)
    return base


def load(folders, name, **options):
    if name in ("sd", "sdxl"):
        options.setdefault("adapter", folders / "adapters" / f"adapter_{name}.safetensors")
    return load_decoder(folders / name, **options)


@pytest.fixture(scope="module", params=sorted({*MAKES, *PAINTS}))
def any_decoder(request, folders):
    return request.param, load(folders, request.param)


@pytest.fixture
def tokens(any_decoder):
    return tokens_for(any_decoder[1], 2)


def just(tokens, index):
    return pick(tokens, [index])


def tokens_for(decoder, count, **options):
    """Tokens of the CLIP that the decoder carries, if it carries one."""
    return [replace(made(count, width=WIDTH, **options), fingerprint=decoder.fingerprint or "1")]


def test_every_token_makes_its_own_pictures_and_the_same_ones_again(any_decoder, tokens):
    name, decoder = any_decoder
    if name not in MAKES:
        with pytest.raises(mi.ModelError, match="only paints into pictures"):
            decoder.generate(tokens, SETTINGS)
        return
    steps = []
    settings = replace(SETTINGS, count=2, seed=5)
    pictures = decoder.generate(tokens, settings, callback=lambda *at: steps.append((at[:4], at[4].shape[0])))
    assert pictures.shape == (4, 32, 32, 3) and pictures.dtype == torch.float32
    assert pictures.isfinite().all() and 0 <= pictures.min() < pictures.max() <= 1
    assert [at for at, _ in steps] == [(picture, 4, step, 2) for picture in (1, 2, 3, 4) for step in (1, 2)]
    assert torch.equal(decoder.generate(tokens, settings), pictures)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 4
    alone = decoder.generate(just(tokens, 1), replace(SETTINGS, seed=7))  # the third: its own seed and token, whatever the rest
    assert torch.equal(alone[0], pictures[2])
    other = decoder.generate(just(tokens, 0), replace(SETTINGS, seed=7))
    assert not torch.equal(other[0], alone[0])


def test_a_negative_token_counts_where_there_is_a_place_for_it(any_decoder, tokens):
    name, decoder = any_decoder
    if name not in MAKES:
        return
    negative, one = tokens_for(decoder, 1, seed=9), just(tokens, 0)
    if name == "unclip":
        with pytest.raises(mi.InputError, match="takes no negative token"):
            decoder.generate(one, SETTINGS, negative)
        return
    plain = decoder.generate(one, SETTINGS)
    assert not torch.equal(decoder.generate(one, SETTINGS, negative), plain)
    assert torch.equal(decoder.generate(one, SETTINGS, [replace(negative[0], embeddings=torch.zeros(1, WIDTH))]), plain)
    without = replace(SETTINGS, guidance=1.0)
    assert torch.equal(decoder.generate(one, without, negative), decoder.generate(one, without))
    with pytest.raises(mi.InputError, match="2 negative tokens; give one"):
        decoder.generate(one, SETTINGS, tokens)


@pytest.mark.parametrize("feather", [0, 3])
def test_outside_the_mask_the_picture_is_the_same_to_the_bit(any_decoder, tokens, feather):
    name, decoder = any_decoder
    image = torch.rand(45, 70, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(45, 70)
    mask[10:30, 20:50] = 1
    settings = Settings(steps=2)
    if name not in PAINTS:
        with pytest.raises(mi.ModelError, match="cannot paint into a picture: load"):
            decoder.inpaint(tokens, image, mask, settings)
        return
    pictures = decoder.inpaint(tokens, image, mask, settings, feather)
    assert pictures.shape == (2, 45, 70, 3)
    for picture in pictures:
        assert torch.equal(picture[mask == 0], image[mask == 0])
        changed = (picture - image).abs().sum(-1)[10:30, 20:50]
        assert (changed > 0).float().mean() > 0.95
    assert not torch.equal(pictures[0], pictures[1])
    small = replace(settings, width=32, height=32)
    smaller = decoder.inpaint(just(tokens, 0), image, mask, small, feather)[0]
    assert torch.equal(smaller[mask == 0], image[mask == 0]) and smaller.shape == image.shape


def test_a_mask_of_another_size_and_one_that_is_soft(folders):
    decoder = load(folders, "sd")
    image = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    soft = torch.zeros(16, 16)
    soft[4:12, 4:12] = 0.5
    picture = decoder.inpaint([made(1, width=WIDTH)], image, soft, Settings(steps=1), 0)[0]
    assert torch.equal(picture[:4], image[:4]) and not torch.equal(picture[16], image[16])
    with pytest.raises(mi.InputError, match="2 masks; give one"):
        decoder.inpaint([made(1, width=WIDTH)], image, torch.ones(2, 32, 32), Settings(steps=1))


def test_a_feather_fades_in_inside_the_mask_and_not_at_the_border_of_the_picture():
    mask = torch.zeros(20, 20)
    mask[:10, 5:15] = 1
    soft = feathered(mask, 3)
    assert torch.equal(soft > 0, mask > 0) and soft.max() == 1
    assert soft[:, 9].tolist()[:10] == pytest.approx([1] * 7 + [0.75, 0.5, 0.25])
    assert torch.equal(feathered(mask, 0), mask)


def test_an_exception_of_the_callback_stops_within_a_step(any_decoder, tokens):
    name, decoder = any_decoder

    class Stop(BaseException):
        pass

    seen = []

    def stop(picture, pictures, step, steps, latents):
        seen.append(step)
        if step == 2:
            raise Stop

    settings = replace(SETTINGS, steps=50)
    with pytest.raises(Stop):
        if name in MAKES:
            decoder.generate(tokens, settings, callback=stop)
        else:
            decoder.inpaint(tokens, torch.rand(32, 32, 3), torch.ones(32, 32), settings, callback=stop)
    assert seen == [1, 2]


@pytest.mark.parametrize("name", sorted({*MAKES, *PAINTS}))
def test_offloaded_and_in_bfloat16_it_runs_too(folders, name):
    plain, decoder = (load(folders, name, dtype=torch.bfloat16, offload=offload) for offload in (None, "cpu"))
    tokens = [made(1, width=WIDTH)]
    image = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    for makes, call in (
        (name in MAKES, lambda one: one.generate(tokens, SETTINGS)),
        (name in PAINTS, lambda one: one.inpaint(tokens, image, torch.ones(32, 32), SETTINGS)),
    ):
        if makes:
            picture = call(decoder)
            assert picture.isfinite().all() and picture.dtype == torch.float32 and torch.equal(picture, call(plain))
    assert decoder.fingerprint is None
    assert not any(hasattr(part, "_hf_hook") for module in decoder.modules.values() for part in module.modules())


def test_tokens_of_the_wrong_width_are_refused_with_both_names(any_decoder):
    name, decoder = any_decoder
    call = decoder.generate if name in MAKES else lambda t, s: decoder.inpaint(t, torch.rand(32, 32, 3), torch.ones(32, 32), s)
    with pytest.raises(mi.InputError, match=rf"are of one and have {2 * WIDTH} numbers each, but {name}.* takes {WIDTH}"):
        call([made(1, width=2 * WIDTH)], SETTINGS)


def test_tokens_of_another_clip_as_wide_are_refused_where_the_pipeline_has_its_own(folders):
    decoder = load(folders, "unclip")
    own = mi.load_clip(decoder.pipeline.image_encoder)
    tokens = mi.MaskInverter(own, iterations=2)
    token = tokens.invert(tokens.encode(torch.rand(32, 32, 3)), torch.ones(32, 32))
    assert decoder.generate([token], SETTINGS).shape == (1, 32, 32, 3)
    with pytest.raises(mi.InputError, match="are of one, which is not the CLIP that unclip was trained with"):
        decoder.generate([made(1, width=WIDTH)], SETTINGS)


def test_sizes_that_it_cannot_make(folders):
    decoder = load(folders, "kandinsky")
    with pytest.raises(mi.InputError, match="height is 35; kandinsky makes multiples of 4 pixels: use 36"):
        decoder.generate([made(1, width=WIDTH)], replace(SETTINGS, height=35))
    for what in ("steps", "count"):
        with pytest.raises(mi.InputError, match=f"{what} is 0"):
            replace(SETTINGS, **{what: 0})


def test_too_little_memory_becomes_advice(folders):
    decoder = load(folders, "kandinsky")
    with pytest.raises(mi.MemoryLimitError, match="2000000 x 2000000 px with kandinsky: make it smaller"):
        decoder.generate([made(1, width=WIDTH)], replace(SETTINGS, width=2_000_000, height=2_000_000))


def test_what_cannot_be_loaded_is_explained(folders, tmp_path):
    with pytest.raises(mi.ModelError, match="no model_index"):
        load_decoder(tmp_path)
    with pytest.raises(mi.ModelError, match="reads text only: choose an IP-Adapter"):
        load_decoder(folders / "sd")
    (tmp_path / "model_index.json").write_text('{"_class_name": "LTXPipeline"}')
    with pytest.raises(mi.ModelError, match=r"^\S+ is a LTXPipeline, which takes no CLIP image embedding here: use one of Chro"):
        load_decoder(tmp_path)
    adapters = folders / "adapters"
    with pytest.raises(mi.ModelError, match="made for another model than sd:"):
        load_decoder(folders / "sd", adapter=adapters / "adapter_sdxl.safetensors")
    weights = load_file(adapters / "adapter_sd.safetensors")
    save_file({f"image_proj.latents.{key}": value for key, value in weights.items()}, tmp_path / "plus.safetensors")
    with pytest.raises(mi.ModelError, match="is not an IP-Adapter that reads a token or hidden states"):
        load_decoder(folders / "sd", adapter=tmp_path / "plus.safetensors")
    with pytest.raises(mi.ModelError, match="there is no file"):
        load_decoder(folders / "sd", adapter=tmp_path / "none.safetensors")


def test_weights_that_could_run_code_are_not_loaded(folders, tmp_path):
    pipeline = load(folders, "kandinsky").pipeline
    pipeline.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(mi.ModelError, match=r"needs all its parts as \.safetensors"):
        load_decoder(tmp_path)


def test_the_scale_of_an_adapter_counts(folders):
    decoder = load(folders, "sd")
    full, none, again = (
        decoder.generate([made(1, width=WIDTH)], replace(SETTINGS, adapter_scale=scale)) for scale in (1.0, 0.0, 1.0)
    )
    assert torch.equal(full, again) and not torch.equal(full, none)
    assert torch.equal(none, decoder.generate([made(1, 3, width=WIDTH)], replace(SETTINGS, adapter_scale=0.0)))


def test_diffusers_is_not_imported_before_a_pipeline_is_loaded():
    code = "import sys, maskinversion.tasks.diffusion.loading; sys.exit('diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    "given, said",
    [
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"count": 0}, "count is 0; it must be a whole number of at least 1"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"adapter_scale": float("inf")}, "adapter_scale is inf"),
    ],
)
def test_settings_that_no_pipeline_can_use_are_refused(given, said):
    with pytest.raises(mi.InputError, match=said):
        Settings(**given)
