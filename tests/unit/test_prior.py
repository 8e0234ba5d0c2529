"""lambda-ECLIPSE: a prompt with regions in the places of its words, to an image embedding."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import PriorTransformer

import maskinversion as mi
from maskinversion.bundled import BUNDLED, bundled_classes, load_example
from maskinversion.models.text_states import pieces_of, places_of, text_states
from maskinversion.operations import nothing, pick
from maskinversion.settings import PRESETS
from maskinversion.tasks.classify import classify
from maskinversion.tasks.diffusion import load_prior
from tests.helpers import small_priors
from tests.helpers.random_tokens import made

PROMPT = "a fox beside a cup"


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    return load_prior(small_priors.write(tmp_path_factory.mktemp("prior") / "small"))


def token_of(clip, seed=0):
    return replace(made(1, width=64, seed=seed), fingerprint=clip.fingerprint, model=clip.name)


def theirs(weights, config):
    """diffusers' own PriorTransformer with these weights: the picture of edges where it has the text, and the text where it has
    time."""
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    model = PriorTransformer(**options)
    given = {key: value for key, value in weights.items() if not key.startswith(("embedding_proj.", "embedding_control."))}
    given |= {key.replace("control", "proj"): value for key, value in weights.items() if key.startswith("embedding_control.")}
    missing, unexpected = model.load_state_dict(given, strict=False)
    assert not unexpected and all(key.startswith("time_embedding") for key in missing)
    text = torch.nn.Linear(config["embedding_dim"], config["num_attention_heads"] * config["attention_head_dim"])
    text.load_state_dict({key: weights[f"embedding_proj.{key}"] for key in ("weight", "bias")})
    return model, text


class Given(torch.nn.Module):
    """What it was made with, whatever it is called with."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, _):
        return self.what


@pytest.mark.parametrize("norms", [None, "layer"])
def test_the_network_is_diffusers_own_with_the_text_in_the_place_of_time(norms, tmp_path):
    config = small_priors.CONFIG | {"norm_in_type": norms}
    weights = {key: value.double() for key, value in small_priors.weights(config).items()}
    model = load_prior(small_priors.write(tmp_path, config=config)).model.double()
    reference, text_layer = (one.double() for one in theirs(weights, config))
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(2, 24, 64, generator=generator, dtype=torch.float64)
    text, control, noise = torch.randn(3, 2, 64, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([7, 24])
    reference.time_embedding = Given(text_layer(text))
    mask = torch.arange(24) < lengths[:, None]
    with torch.no_grad():
        wanted = reference(noise, torch.zeros(2), control, states, mask).predicted_image_embedding
        found = model(states, lengths, text, control, noise)
        short = model(states[:1, :7], lengths[:1], text[:1], control[:1], noise[:1])
    assert torch.allclose(found, wanted, atol=1e-9, rtol=0)
    assert torch.allclose(short, wanted[:1], atol=1e-9, rtol=0)  # what is after the end of a text changes nothing


def test_the_states_of_a_text_end_in_its_embedding(bundled):
    found = text_states(bundled, PROMPT)
    assert torch.allclose(found.embedding, bundled.encode_text([PROMPT])[0], atol=1e-6)
    assert torch.allclose(found.projected[-1], found.embedding, atol=1e-5)
    assert found.states.shape == (7, 128) and found.projected.shape == (7, 64) and len(found.numbers) == 7


def test_a_word_is_found_wherever_it_stands_whole(bundled):
    numbers = text_states(bundled, "a hot dog beside a dog and a hot dog").numbers
    assert places_of(numbers, pieces_of(bundled, "hot dog")) == [2, 3, 9, 10]
    assert places_of(numbers, pieces_of(bundled, "dog")) == [3, 6, 10]
    assert places_of(numbers, pieces_of(bundled, "do")) == places_of(numbers, pieces_of(bundled, "")) == []


def test_the_token_stands_in_the_place_of_its_word_and_nowhere_else(prior, bundled):
    first, second = token_of(bundled), token_of(bundled, 1)
    seen = {}
    handle = prior.model.register_forward_pre_hook(lambda _, given: seen.update(states=given[0], control=given[3], noise=given[4]))
    found = prior.embed(PROMPT, bundled, ["cup", "fox"], [first, second], seed=3)
    handle.remove()
    plain = text_states(bundled, PROMPT).projected
    states = seen["states"][0]
    assert torch.equal(states[2], second.embeddings[0]) and torch.equal(states[5], first.embeddings[0])
    others = [0, 1, 3, 4, 6]
    assert torch.equal(states[others], plain[others])
    assert torch.equal(seen["control"][0], nothing(bundled).embeddings[0])
    assert torch.equal(seen["noise"], torch.randn(1, 64, generator=torch.Generator().manual_seed(3)))
    assert found.embeddings.shape == (1, 64) and found.fingerprint == bundled.fingerprint
    assert found.parameters["operations"] == [{"prior": "small", "prompt": PROMPT, "subjects": ["cup", "fox"], "seed": 3}]


def test_another_region_another_word_and_another_seed_each_give_another_embedding(prior, bundled, tmp_path):
    one = [token_of(bundled)]
    plain = prior.embed(PROMPT, bundled, ["fox"], one)
    assert torch.equal(prior.embed(PROMPT, bundled, ["fox"], one).embeddings, plain.embeddings)
    edges = [token_of(bundled, 5)]
    for other in (
        prior.embed(PROMPT, bundled),
        prior.embed(PROMPT, bundled, ["cup"], one),
        prior.embed(PROMPT, bundled, ["fox"], [token_of(bundled, 1)]),
        prior.embed(PROMPT, bundled, ["fox"], one, seed=1),
        prior.embed(PROMPT, bundled, ["fox"], one, edges),
    ):
        assert not torch.equal(other.embeddings, plain.embeddings)
    plain.save(tmp_path / "prompt.safetensors")
    assert torch.equal(mi.LocalizedTokens.load(tmp_path / "prompt.safetensors").embeddings, plain.embeddings)


def test_what_does_not_go_together_is_refused(prior, bundled):
    one = token_of(bundled)
    with pytest.raises(mi.InputError, match="the prompt 'a fox beside a cup' has no 'wolf'"):
        prior.embed(PROMPT, bundled, ["wolf"], [one])
    for subjects in (["fox", "fox"], ["fox", "a fox"]):
        with pytest.raises(mi.InputError, match="another subject stands in the place of 'fox': write each"):
            prior.embed(PROMPT, bundled, subjects, [one, token_of(bundled, 1)])
    with pytest.raises(mi.InputError, match="there are 1 tokens and 2 subjects; give one token for each"):
        prior.embed(PROMPT, bundled, ["fox", "cup"], [one])
    with pytest.raises(mi.InputError, match="made with one, not with bundled: connect the CLIP that made them"):
        prior.embed(PROMPT, bundled, ["fox"], [made(1, width=64)])
    with pytest.raises(mi.InputError, match="have 32 numbers each, but small takes 64"):
        prior.embed(PROMPT, bundled, ["fox"], [replace(made(1, width=32), fingerprint=bundled.fingerprint)])
    short = replace(prior, model=load_short(prior))
    with pytest.raises(mi.InputError, match="the prompt has 7 pieces of words, and small reads 5"):
        short.embed(PROMPT, bundled)


def test_a_folder_or_a_device_that_is_not_there_is_said(tmp_path):
    with pytest.raises(mi.ModelError, match=r"there is no folder .*none' here, and it is no name on the hub"):
        load_prior(tmp_path / "none")
    with pytest.raises(mi.InputError, match="device 'gpu' cannot be used here"):
        load_prior("bundled", device="gpu")


def load_short(prior):
    model = type(prior.model)(replace(prior.model.config, num_embeddings=5))
    return model.eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_both_kinds_of_files_are_read(suffix, prior, tmp_path):
    other = load_prior(small_priors.write(tmp_path, suffix))
    state = prior.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in other.model.state_dict().items())


def test_what_is_no_prior_is_refused(tmp_path):
    with pytest.raises(mi.ModelError, match="there is no file"):
        load_prior(tmp_path)
    folder = small_priors.write(tmp_path / "good")
    for change, said in (
        ({"additional_embeddings": 3}, "has 3 as additional_embeddings"),
        ({"added_emb_type": None}, "has None as added_emb_type"),
        ({"num_layers": 10**6}, "1000000 as num_layers"),
        ({"num_attention_heads": "4"}, "has '4' as num_attention_heads"),
        ({"num_embeddings": 10**12}, "has 1000000000000 as num_embeddings"),
        ({"clip_embed_dim": 7}, "has 7 as clip_embed_dim"),
        ({"attention_head_dim": 4096}, "do they belong together"),
        ({"norm_in_type": "layer"}, r"norm_in.bias is missing, and should be \(32,\)"),
    ):
        (folder / "config.json").write_text(json.dumps(small_priors.CONFIG | change))
        with pytest.raises(mi.ModelError, match=said):
            load_prior(folder)
    weights = small_priors.weights()
    with pytest.raises(mi.ModelError, match=r"NaN or infinite weights, in norm_out\.bias"):
        load_prior(small_priors.write(tmp_path / "nan", state=weights | {"norm_out.bias": torch.full((32,), float("nan"))}))
    karlo = {key: value for key, value in weights.items() if not key.startswith("embedding_control")}
    with pytest.raises(mi.ModelError, match=r"embedding_control.bias is missing.*Is it a prior of lambda-ECLIPSE"):
        load_prior(small_priors.write(tmp_path / "karlo", state=karlo))
    (tmp_path / "good" / "diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "good" / "config.json").write_text(json.dumps(small_priors.CONFIG))
    with pytest.raises(mi.ModelError, match="download the whole folder"):
        load_prior(folder)


def test_a_clip_that_reads_no_words_one_by_one_is_refused(prior, bundled):
    blind = mi.Clip("blind", bundled.tower, bundled.model)
    with pytest.raises(mi.ModelError, match="came without a tokenizer"):
        prior.embed(PROMPT, blind)

    class Odd(torch.nn.Module):
        def encode_text(self, numbers):
            return torch.zeros(len(numbers), 64)

    odd = mi.Clip("odd", bundled.tower, Odd(), bundled.tokenizer)
    with pytest.raises(mi.ModelError, match="odd reads text in a way that gives no embedding of each word"):
        text_states(odd, PROMPT)


def test_the_bundled_prior_makes_an_embedding_of_the_region_and_the_words(bundled):
    """Judged by the CLIP that it was trained with; recipes/prior/evaluate.py has hundreds of scenes and a judge of its own."""
    prior = load_prior("bundled")
    example = load_example("zoo")
    inverter = mi.MaskInverter(bundled, **PRESETS["region"])
    tokens = inverter.invert(inverter.encode(example.image), example.masks)

    def seen(word, *given):
        found = classify(prior.embed(f"a {word} beside a cup of coffee", bundled, *given).embeddings, bundled, bundled_classes())
        return {found.phrases[i] for i in found.probabilities[0].argsort(descending=True)[:5]}

    for number, name in enumerate(example.names):
        assert {name, "cup of coffee"} <= seen(name, [name], pick([tokens], [number]))
    # A word that says nothing leaves it to the region; not every region is strong enough for that.
    for number, name in ((1, "penguin"), (2, "fox")):
        assert {name, "cup of coffee"} <= seen("thing", ["thing"], pick([tokens], [number]))
    assert not seen("thing") & {*example.names}


def test_the_bundled_prior_is_small_and_for_the_bundled_clip(bundled):
    prior = load_prior("bundled")
    assert prior.fingerprint == bundled.fingerprint and prior.width == 64
    files = [file for file in (BUNDLED / "prior").iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 4 * 10**6
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md"}
    other = replace(prior, fingerprint="0" * 16)
    with pytest.raises(mi.InputError, match="not the CLIP that the bundled prior was trained with"):
        other.embed(PROMPT, bundled, ["fox"], [token_of(bundled)])
