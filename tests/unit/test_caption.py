"""Captions of embeddings: the published format, decoding, and what is refused."""

import json
import pickle
from dataclasses import replace

import pytest
import torch

import maskinversion as mi
from maskinversion.bundled import load_example
from maskinversion.errors import PackageError
from maskinversion.tasks.caption import BUNDLED_CAPTIONER, Decoding, MlpMapper, TransformerMapper, load_captioner, retrieve
from tests.helpers.random_tokens import made
from tests.helpers.small_captioners import WORDS, checkpoint, write

pytestmark = pytest.mark.usefixtures("own_pickles")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Small captioners of both forms, for embeddings of 32 numbers."""
    folder = tmp_path_factory.mktemp("captioners")
    return {form: write(folder / form, checkpoint(form, 32)) for form in ("mlp", "transformer")}


@pytest.fixture(scope="module")
def captioner(files):
    return load_captioner(files["mlp"], device="cpu")


@pytest.fixture
def embeddings():
    return 3 * torch.randn(3, 32, generator=torch.Generator().manual_seed(1))


def published_prefix(state, embedding, form, clip=3):
    """The prefix as the paper describes it, from the tensors alone, head by head."""
    state = {key.removeprefix("clip_project."): value for key, value in state.items() if key.startswith("clip_project.")}
    linear = torch.nn.functional.linear
    if form == "mlp":
        hidden = linear(embedding, state["model.0.weight"], state["model.0.bias"]).tanh()
        return linear(hidden, state["model.2.weight"], state["model.2.bias"]).reshape(-1, 64)
    x = torch.cat([linear(embedding, state["linear.weight"], state["linear.bias"]).reshape(clip, 64), state["prefix_const"]])
    for i in range(2):
        own = {k.removeprefix(f"transformer.layers.{i}."): v for k, v in state.items() if k.startswith(f"transformer.layers.{i}.")}
        y = torch.nn.functional.layer_norm(x, (64,), own["norm1.weight"], own["norm1.bias"])
        q, kv = y @ own["attn.to_queries.weight"].T, y @ own["attn.to_keys_values.weight"].T
        k, v = kv[:, :64], kv[:, 64:]
        heads = [
            ((q[:, h : h + 8] @ k[:, h : h + 8].T) / 8**0.5).softmax(1) @ v[:, h : h + 8] for h in range(0, 64, 8)
        ]  # 8 heads of 8
        x = x + linear(torch.cat(heads, 1), own["attn.project.weight"], own["attn.project.bias"])
        y = torch.nn.functional.layer_norm(x, (64,), own["norm2.weight"], own["norm2.bias"])
        x = x + linear(linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"]).relu(), own["mlp.fc2.weight"], own["mlp.fc2.bias"])
    return x[clip:]


@pytest.mark.parametrize("form, kind", [("mlp", MlpMapper), ("transformer", TransformerMapper)])
def test_the_published_format_of_both_forms(files, embeddings, form, kind):
    captioner = load_captioner(files[form], device="cpu")
    state = torch.load(files[form], weights_only=True)
    assert isinstance(captioner.model.clip_project, kind) and captioner.width == 32 and captioner.fingerprint is None
    assert captioner.normalize == (form == "transformer")  # as the published ones were trained
    own = captioner.model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items() if not key.endswith(("attn.bias", "masked_bias")))
    with torch.no_grad():
        torch.testing.assert_close(
            captioner.model.clip_project(embeddings[:1])[0], published_prefix(state, embeddings[0], form), rtol=1e-4, atol=1e-4
        )
    captions = captioner.caption(embeddings)
    assert [len(each) for each in captions] == [1, 1, 1]
    assert all(set(text) <= {*"abcdefghijklmnopqrstuvwxyz. "} for (text,) in captions)
    longer = captioner.caption(2 * embeddings)
    assert (longer == captions) == captioner.normalize


@pytest.mark.slow
def test_the_true_size_loads(tmp_path):
    state = checkpoint("mlp", 512, "published")
    words = [f"w{i}" for i in range(50257 - len(WORDS))]
    path = write(tmp_path, state, words=[*WORDS, *words])
    captioner = load_captioner(path, device="cpu")
    assert captioner.width == 512 and captioner.clip == "ViT-B-32/openai" and not captioner.normalize
    assert captioner.model.gpt.config.n_head == 12
    assert len(captioner.caption(torch.randn(1, 512), Decoding(length=2))) == 1


def test_safetensors_are_the_same_and_the_file_beside_them_counts(files, captioner, embeddings, tmp_path):
    state = checkpoint("mlp", 32)
    path = write(tmp_path, state, "mine.safetensors")
    assert load_captioner(path, device="cpu").caption(embeddings) == captioner.caption(embeddings)
    path.with_suffix(".json").write_text(json.dumps({"normalize": True, "clip_fingerprint": "1", "clip": "one"}))
    other = load_captioner(path, device="cpu")
    assert other.normalize and other.fingerprint == "1" and other.caption(embeddings) == other.caption(2 * embeddings)
    other.caption(made(2))
    path.with_suffix(".json").write_text("[1]")
    with pytest.raises(mi.ModelError, match=r"mine\.json is not a JSON object"):
        load_captioner(path)


def test_a_head_of_its_own_and_half_precision(embeddings, tmp_path):
    state = checkpoint("mlp", 32)
    state["gpt.lm_head.weight"] = state["gpt.lm_head.weight"].flip(0)
    state = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    captioner = load_captioner(write(tmp_path, state), device="cpu")
    assert torch.equal(captioner.model.gpt.lm_head.weight, captioner.model.gpt.transformer.wte.weight.flip(0))
    assert captioner.model.gpt.lm_head.weight.dtype == torch.float32
    assert load_captioner(tmp_path / "captioner.pt", device="cpu", dtype=torch.bfloat16).caption(embeddings)


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda s: s | {"more": Code()}, "was refused: it is not plain weights and could run code"),
        (lambda s: {"model": s}, "holds other things than weights"),
        (lambda s: [1], "holds other things than weights"),
        (lambda s: {k: v for k, v in s.items() if "gpt" not in k}, "it has no gpt.transformer.wte.weight"),
        (lambda s: {k: v for k, v in s.items() if "clip_project" not in k}, "it has no clip_project.model.0.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "gpt.transformer.h.1.ln_1.bias"}, "it has no gpt.transformer.h.1.ln_1.bias"),
        (lambda s: s | {"another": torch.zeros(1)}, "it has something else, another"),
        (lambda s: s | {"clip_project.model.2.bias": torch.zeros(7)}, r"clip_project.model.2.bias has the shape \(7,\)"),
        (lambda s: s | {"gpt.transformer.wte.weight": torch.zeros(30, 7)}, "its tensors have other shapes"),
        (lambda s: s | {"gpt.transformer.wte.weight": torch.zeros(1)}, "its tensors have other shapes"),
    ],
)
def test_what_is_not_a_captioner_is_refused(tmp_path, capsys, wrong, message):
    path = write(tmp_path, {})
    torch.save(wrong(checkpoint("mlp", 32)), path)
    with pytest.raises(mi.ModelError, match=message):
        load_captioner(path)
    assert "this ran" not in capsys.readouterr().out


def test_files_that_cannot_be_read(tmp_path, files):
    with pytest.raises(mi.ModelError, match="there is no file"):
        load_captioner(tmp_path / "none.pt")
    with pytest.raises(mi.ModelError, match=r"\.safetensors, \.pt"):
        load_captioner(tmp_path)
    for name, content in (
        ("cut.pt", files["mlp"].read_bytes()[:2000]),
        ("cut.safetensors", b"\x08\0\0\0\0\0\0\0{}"),
        ("empty.pt", b""),
        ("plain.pt", pickle.dumps(Code())),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(mi.ModelError, match=name):
            load_captioner(tmp_path / name)


def test_a_tokenizer_that_is_not_there_or_of_another_model(tmp_path, files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = write(tmp_path / "alone", checkpoint("mlp", 32))
    (path.parent / "vocab.json").unlink()
    with pytest.raises(mi.ModelError, match=r"could not be loaded from .*none.*: put its vocab\.json and merges\.txt beside"):
        load_captioner(path, tokenizer=tmp_path / "none", device="cpu")
    assert load_captioner(path, tokenizer=files["mlp"].parent, device="cpu").width == 32
    other = write(tmp_path / "other", checkpoint("mlp", 32), words=WORDS[:-1])
    with pytest.raises(mi.ModelError, match=f"has {len(WORDS) - 1} words, but captioner.pt knows {len(WORDS)}"):
        load_captioner(other, device="cpu")


def test_without_transformers_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("maskinversion.packages.installed", lambda name: None)
    with pytest.raises(PackageError, match=r"a captioner needs the package transformers: python -m pip install transformers$"):
        load_captioner()


def test_greedy_takes_the_likeliest_word_and_stops(captioner, embeddings):
    """Against the model's own logits, one word after the other."""
    model, end = captioner.model, {WORDS.index("."), 0}
    for embedding, (caption,) in zip(embeddings, captioner.caption(embeddings, Decoding(length=12)), strict=True):
        with torch.no_grad():
            words = model.clip_project(embedding[None])
            found = []
            while len(found) < 12 and not end & {*found}:
                found.append(int(model.gpt(inputs_embeds=words).logits[0, -1].argmax()))
                words = torch.cat([words, model.gpt.transformer.wte.weight[found[-1]][None, None]], 1)
        assert caption == captioner.tokenizer.decode([word for word in found if word]).strip()


@pytest.mark.parametrize("how", ["greedy", "beam", "sample"])
def test_captions_repeat_and_no_region_depends_on_the_others(captioner, embeddings, how):
    decoding = Decoding(how, count=1 if how == "greedy" else 3, length=10, seed=3)
    before = torch.get_rng_state()
    found = captioner.caption(embeddings, decoding)
    assert torch.equal(torch.get_rng_state(), before)
    assert [len(each) for each in found] == [decoding.count] * 3
    assert all("." not in text[:-1] for each in found for text in each)  # it ends there
    torch.manual_seed(11)
    assert captioner.caption(embeddings, decoding) == found
    assert captioner.caption(embeddings.flip(0), decoding) == found[::-1]
    assert [captioner.caption(one[None], decoding)[0] for one in embeddings] == found
    if how == "sample":
        assert captioner.caption(embeddings, replace(decoding, seed=4)) != found
        assert captioner.caption(embeddings, replace(decoding, temperature=1e-4)) == [
            3 * each for each in captioner.caption(embeddings, Decoding(length=10))
        ]
        assert [each[:2] for each in found] == captioner.caption(embeddings, replace(decoding, count=2))


def test_sampled_words_come_as_often_as_they_are_probable(captioner, embeddings):
    with torch.no_grad():
        logits = captioner.model.gpt(inputs_embeds=captioner.model.clip_project(embeddings[:1])).logits[0, -1]
    sampled = captioner.caption(embeddings[:1], Decoding("sample", count=4000, temperature=4.0, top_p=1.0, length=1))[0]
    expected = (logits / 4).softmax(0)
    for word in expected.topk(3).indices.tolist():
        share = sampled.count(captioner.tokenizer.decode([word]).strip()) / 4000
        assert share == pytest.approx(float(expected[word]), abs=0.03)


def test_one_beam_is_greedy_and_more_beams_find_several(captioner, embeddings):
    assert captioner.caption(embeddings, Decoding("beam", beams=1, length=6)) == captioner.caption(embeddings, Decoding(length=6))
    found = captioner.caption(embeddings, Decoding("beam", count=4, beams=4, length=6))
    assert all(len({*each}) > 1 and len(each) == 4 for each in found)
    assert [each[:1] for each in found] == captioner.caption(embeddings, Decoding("beam", count=1, beams=4, length=6))


def test_numbers_that_cannot_be(captioner, embeddings):
    for options, message in (
        ({"how": "guess"}, "greedy, beam, sample"),
        ({"count": 2}, "take beam or sample"),
        ({"how": "beam", "count": 6}, "take more beams"),
        ({"length": 0}, "length is 0"),
        ({"how": "sample", "temperature": 0.0}, "decode greedily"),
        ({"how": "sample", "top_p": 0.0}, "top_p is 0"),
    ):
        with pytest.raises(mi.InputError, match=message):
            Decoding(**options)
    with pytest.raises(mi.InputError, match=r"length is 60; captioner.pt has room for 44 tokens"):
        captioner.caption(embeddings, Decoding(length=60))


def test_tokens_of_another_clip_are_refused_with_both_names(captioner):
    with pytest.raises(mi.InputError, match=r"are of one and have 48 numbers each, but captioner\.pt takes 32: make"):
        captioner.caption([made(1, width=48)])
    with pytest.raises(mi.InputError, match=r"shape \(2, 48\); captioner.pt takes \(M, 32\)"):
        captioner.caption(torch.zeros(2, 48))
    known = replace(captioner, fingerprint="1", clip="a CLIP")
    assert known.caption(made(2)) == captioner.caption(made(2).embeddings)
    with pytest.raises(mi.InputError, match=r"are of two, which is not the CLIP that captioner\.pt was .* with a CLIP"):
        known.caption(made(1, model="two", fingerprint="2"))
    with pytest.raises(mi.InputError, match="different CLIPs, one and two"):
        captioner.caption([made(1), made(1, model="two", fingerprint="2")])
    with pytest.raises(mi.InputError, match="no tokens"):
        captioner.caption([])
    nothing = replace(captioner, normalize=True)
    with pytest.raises(mi.InputError, match="token 1 has the length 0"):
        nothing.caption(torch.stack([torch.ones(32), torch.zeros(32)]))


def test_a_callback_can_stop_it(captioner, embeddings):
    seen = []

    def stop(region, regions):
        seen.append((region, regions))
        if region == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        captioner.caption(embeddings, callback=stop)
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_the_best_of_a_list(bundled):
    phrases = ["a cat", " a red car ", "", "a tractor"]
    embeddings = torch.cat([bundled.encode_text(["a tractor", "a cat"])])
    found = retrieve(embeddings, bundled, phrases, 2)
    assert [each[0][0] for each in found] == ["a tractor", "a cat"] and [len(each) for each in found] == [2, 2]
    assert found[0][0][1] == pytest.approx(1, abs=1e-5) and found[0][0][1] > found[0][1][1]
    assert [len(each) for each in retrieve(embeddings, bundled, phrases, 9)] == [3, 3]
    with pytest.raises(mi.InputError, match="count is 0"):
        retrieve(embeddings, bundled, phrases, 0)
    with pytest.raises(mi.InputError, match="no phrase"):
        retrieve(embeddings, bundled, [" "])


@pytest.mark.parametrize("name", ["zoo", "breakfast"])
def test_the_bundled_captioner_names_the_objects_of_scenes_in_a_style_that_it_knows(bundled, name):
    captioner, inverter = load_captioner(device="cpu"), mi.MaskInverter(bundled)
    assert captioner.fingerprint == bundled.fingerprint
    assert sum(file.stat().st_size for file in BUNDLED_CAPTIONER.parent.iterdir()) < 12e6
    example = load_example(name)
    tokens = inverter.invert(inverter.encode(example.image), example.masks)
    captions = captioner.caption(tokens)
    assert all(text.endswith(f" {wanted}.") for wanted, (text,) in zip(example.names, captions, strict=True)), captions
