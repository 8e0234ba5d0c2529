"""Prompts of regions: greedy by the whole sentence, with places; and the texts' embeddings on disk."""

import json
import os
import pickle
import stat
from dataclasses import replace

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.bundled import BUNDLED, load_example
from maskinversion.cli.main import main
from maskinversion.files import CACHE, cache_folder
from maskinversion.tasks import text_cache
from maskinversion.tasks.phrases import PROMPT_LISTS, prompt_phrases
from maskinversion.tasks.prompt import describe, join, place_of
from maskinversion.tasks.texts import remembered, text_embeddings
from tests.helpers.small_models import small_clip

THINGS = ["fox", "cat", "bus", "penguin", "elephant"]
MORE = ["red", "blue", "a drawing", "striped", "cat"]


@pytest.fixture(scope="module")
def zoo(bundled):
    example = load_example("zoo")
    inverter = mi.MaskInverter(bundled)
    return example, inverter.invert(inverter.encode(example.image), example.masks)


def greedy(token, clip, lists, template, each, rise):
    """All sentences, one at a time, with nothing remembered: what the prompt must be."""

    def cosine(phrases):
        return float(F.cosine_similarity(clip.encode_text([template.replace("{}", ", ".join(phrases))])[0], token, dim=0))

    first, *_ = lists
    chosen = [max(((first, phrase) for phrase in lists[first]), key=lambda pair: cosine([pair[1]]))]
    best = cosine([chosen[0][1]])
    while True:
        more = [
            (name, phrase)
            for name, phrases in lists.items()
            if sum(taken == name for taken, _ in chosen) < each
            for phrase in phrases
            if phrase not in [taken for _, taken in chosen]
        ]
        if not more:
            return chosen, best
        found = {pair: cosine([*(phrase for _, phrase in chosen), pair[1]]) for pair in more}
        pair = max(found, key=found.__getitem__)
        if found[pair] <= best + rise:
            return chosen, best
        chosen, best = [*chosen, pair], found[pair]


@pytest.mark.parametrize(("template", "each", "rise"), [("{}", 1, 0.0), ("a photo of {} here", 2, 0.0), ("{}", 3, 0.02)])
def test_a_prompt_is_the_greedy_one_of_whole_sentences(bundled, zoo, template, each, rise):
    lists = {"things": THINGS, "more": MORE}
    embeddings = zoo[1].embeddings
    for token, prompt in zip(embeddings, describe(embeddings * 3, bundled, lists, template, each, rise), strict=True):
        chosen, best = greedy(token, bundled, lists, template, each, rise)
        assert prompt.phrases == chosen and prompt.similarity == pytest.approx(best, abs=1e-5)
        assert prompt.text == template.replace("{}", ", ".join(phrase for _, phrase in chosen))


def test_a_region_is_named_first_and_another_region_gets_another_prompt(bundled, zoo):
    example, tokens = zoo
    told = []
    lists = {"things": prompt_phrases("things", "bundled")}
    found = describe(tokens.embeddings, bundled, lists, callback=lambda *done: told.append(done))
    assert [prompt.text for prompt in found] == example.names
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_sentence_is_longer_than_the_model_reads(bundled, zoo, recwarn):
    lists = {"things": ["fox"], "more": [f"{' '.join(['red'] * n)} thing" for n in range(1, 12)]}
    (prompt,) = describe(zoo[1].embeddings[2:], bundled, lists, each=11)
    assert not bundled.cut_texts([prompt.text]) and not recwarn
    assert bundled.cut_texts([prompt.text, " ".join(["red"] * 40)]) == [" ".join(["red"] * 40)]


def test_bad_lists_are_explained(bundled, zoo):
    embeddings = zoo[1].embeddings
    with pytest.raises(mi.InputError, match="no phrase to make a prompt of"):
        describe(embeddings, bundled, {"things": [" "], "more": []})
    with pytest.raises(mi.InputError, match="each is 0"):
        describe(embeddings, bundled, {"things": ["fox"]}, each=0)
    with pytest.raises(mi.InputError, match=r"no \{\}"):
        describe(embeddings, bundled, {"things": ["fox"]}, "a photo")
    with pytest.raises(mi.InputError, match="is not a text"):
        describe(embeddings, bundled, {"things": ["fox", "\udcff"]})


def test_the_lists_of_the_package_have_every_phrase_once():
    found = {name: prompt_phrases(name, "ViT-B-16/openai") for name in PROMPT_LISTS}
    for name, phrases in found.items():
        assert len(phrases) >= 40 and len(set(phrases)) == len(phrases), name
        assert all(phrase == phrase.strip() and phrase and "," not in phrase for phrase in phrases), name
    assert {path.stem for path in (BUNDLED / "phrases").glob("*.txt")} == set(PROMPT_LISTS)
    assert len(prompt_phrases("things", "bundled")) == 98


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        ((0, 30), (0, 30), "at the top left"),
        ((20, 80), (0, 50), "on the left"),
        ((35, 65), (120, 180), "in the middle"),
        ((80, 100), (0, 300), "at the bottom"),
        ((70, 100), (250, 300), "at the bottom right"),
        ((0, 100), (0, 300), "all over the picture"),
    ],
)
def test_a_place_is_where_the_middle_of_the_region_is(rows, columns, place):
    mask = torch.zeros(100, 300)
    mask[slice(*rows), slice(*columns)] = 0.9
    assert place_of(mask + 0.1 * torch.rand(100, 300, generator=torch.Generator().manual_seed(0))) == place
    with pytest.raises(mi.InputError, match="nowhere"):
        place_of(torch.zeros(4, 4))


def test_prompts_are_joined_with_their_places():
    joined = join(["a fox, red", "a {place} cup"], ["on the left", "at the top"])
    assert joined == "on the left, a fox, red; at the top, a {place} cup"
    assert join(["a", "b"], ["x", "y"], "{prompt} ({place})", " and ") == "a (x) and b (y)"
    with pytest.raises(mi.InputError, match="2 prompts and 1 places"):
        join(["a", "b"], ["x"])
    with pytest.raises(mi.InputError, match=r"no \{prompt\}"):
        join(["a"], ["x"], "{place}")


def test_the_command_line_writes_prompts(tmp_path, capsys):
    scene = BUNDLED / "examples" / "zoo"
    masks = [word for i in range(3) for word in ("--mask", f"{scene}-mask{i}.png")]
    assert main(["prompt", f"{scene}.png", *masks, "--join"]) == 0
    names = load_example("zoo").names
    printed = capsys.readouterr().out
    assert printed == f"at the top left, {names[0]}; on the right, {names[1]}; at the bottom left, {names[2]}\n"
    (tmp_path / "own.txt").write_text("\ufeffa fox\na bus\n", encoding="utf-8")
    assert main(["prompt", f"{scene}.png", *masks[-2:], "--list", str(tmp_path / "own.txt"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["prompt"] == "a fox" and found["place"] == "at the bottom left" and 0 < found["similarity"] < 1
    assert main(["prompt", f"{scene}.png", *masks, "--list", "colors"]) == 1
    assert "there is no file colors, and no list of this name: the lists are things" in capsys.readouterr().err


def test_a_map_without_contrast_costs_its_place_only(bundled, zoo, tmp_path, capsys):
    _, tokens = zoo
    maps = tokens.maps.clone()
    maps[1] = 0
    replace(tokens, maps=maps).save(path := tmp_path / "tokens.safetensors")
    assert main(["prompt", str(path)]) == 0
    prompts = capsys.readouterr().out.splitlines()
    assert main(["prompt", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["prompt"] for one in found] == prompts and [one["place"] is None for one in found] == [False, True, False]
    assert main(["prompt", str(path), "--join"]) == 1
    assert "where region 1 is, its map does not say: give the picture" in capsys.readouterr().err


class Counted:
    """A CLIP's texts, as they are read."""

    def __init__(self, clip, monkeypatch):
        self.read = []
        encode = clip.encode_text
        monkeypatch.setattr(clip, "encode_text", lambda texts, **options: self.read.extend(texts) or encode(texts, **options))

    def again(self, clip, phrases, templates=("{}",)):
        """What another process would read."""
        remembered.pop(clip, None)
        self.read.clear()
        found = text_embeddings(clip, phrases, templates)
        return found, list(self.read)


@pytest.fixture
def counted(bundled, monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE, str(tmp_path))
    yield Counted(bundled, monkeypatch)
    remembered.pop(bundled, None)


def test_the_next_run_reads_texts_from_disk_to_the_bit(bundled, counted, tmp_path):
    first, read = counted.again(bundled, ["cat", "bus"])
    assert read == ["cat", "bus"]
    second, read = counted.again(bundled, ["bus", "key"])
    assert read == ["key"] and torch.equal(second[0], first[1])
    assert counted.again(bundled, ["cat", "bus", "key"])[1] == []
    assert counted.again(bundled, ["cat"], ["a {}"])[1] == ["a cat"]
    files = list((tmp_path / "texts").iterdir())
    assert len(files) == 2 and all(file.suffix == ".safetensors" for file in files)


def test_another_clip_has_texts_of_its_own(bundled, counted, tmp_path):
    counted.again(bundled, ["cat"])
    with torch.no_grad():
        bundled.model.text_projection[3] *= 1.5  # the image side, and so the fingerprint, is the same
    try:
        assert counted.again(bundled, ["cat"])[1] == ["cat"]
    finally:
        with torch.no_grad():
            bundled.model.text_projection[3] /= 1.5
    assert counted.again(bundled, ["cat"])[1] == []
    tokenizer = bundled.tokenizer
    bundled.tokenizer = lambda texts, **options: tokenizer([text.upper() + "!" for text in texts], **options)
    try:
        assert counted.again(bundled, ["cat"])[1] == ["cat"]
    finally:
        bundled.tokenizer = tokenizer


def damaged(path, how):
    whole = path.read_bytes()
    tensors = safetensors.torch.load(whole)
    if how == "cut":
        path.write_bytes(whole[:-7])
    elif how == "header":
        path.write_bytes(b"\xff" * 8 + whole[8:])
    elif how == "pickle":
        path.write_bytes(pickle.dumps(tensors))
    elif how == "empty":
        path.write_bytes(b"")
    else:
        changes = {
            "NaN": {"embeddings": tensors["embeddings"] * float("nan")},
            "length": {"embeddings": tensors["embeddings"] * 2},
            "width": {"embeddings": tensors["embeddings"][:, :-1].contiguous()},
            "keys": {"keys": tensors["keys"].float()},
            "count": {"keys": tensors["keys"].repeat(2, 1)},
        }
        path.write_bytes(safetensors.torch.save(tensors | changes[how]))


@pytest.mark.parametrize("how", ["cut", "header", "pickle", "empty", "NaN", "length", "width", "keys", "count"])
def test_a_damaged_file_is_as_none(bundled, counted, tmp_path, how):
    first, _ = counted.again(bundled, ["cat"])
    (file,) = (tmp_path / "texts").iterdir()
    damaged(file, how)
    found, read = counted.again(bundled, ["cat"])
    assert read == ["cat"] and torch.equal(found, first)
    assert counted.again(bundled, ["cat"])[1] == []


def test_where_nothing_can_be_written_everything_works(bundled, counted, tmp_path, monkeypatch, recwarn):
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "in it", "off"):
        monkeypatch.setenv(CACHE, str(folder))
        assert counted.again(bundled, ["cat"])[1] == counted.again(bundled, ["cat"])[1] == ["cat"]
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IREAD | stat.S_IEXEC)
    monkeypatch.setenv(CACHE, str(locked))
    assert counted.again(bundled, ["cat"])[1] == ["cat"]
    locked.chmod(stat.S_IRWXU)
    assert not recwarn


def test_the_cache_keeps_within_bounds(bundled, counted, tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "PHRASES", 2)
    counted.again(bundled, ["cat", "bus", "key"])
    assert counted.again(bundled, ["cat", "bus", "key"])[1] == ["cat"]
    folder = tmp_path / "texts"
    (old,) = folder.iterdir()
    os.utime(old, (1, 1))
    monkeypatch.setattr(text_cache, "LARGEST", old.stat().st_size + 1)
    counted.again(bundled, ["cat"], ["a {}"])
    assert old not in folder.iterdir() and len(list(folder.iterdir())) == 1


def test_texts_that_are_cut_are_warned_of_at_every_start(bundled, counted):
    for _ in range(2):
        with pytest.warns(mi.InputWarning, match="longer than bundled reads"):
            counted.again(bundled, ["cat " * 40, "bus"])
    assert counted.read == ["cat " * 40]


def test_the_cache_is_where_the_system_keeps_such(monkeypatch, tmp_path):
    monkeypatch.delenv(CACHE)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "maskinversion"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "maskinversion" / "cache"
    monkeypatch.delenv("LOCALAPPDATA")
    assert cache_folder() is None


def test_a_model_without_texts_has_no_cache():
    clip = small_clip()
    clip.tokenizer = None
    assert text_cache.TextCache(clip, ("{}",)).read(["cat"]) == {}
