"""Classifiers of regions: the boxes of LARE, the layer, files, and the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import maskinversion as mi
from maskinversion.cli.main import main
from maskinversion.operations import taken
from maskinversion.tasks.boxes import learn_boxes
from maskinversion.tasks.classifier import fit_layer, train
from maskinversion.tasks.classifier_files import FORMAT, load_classifier, read_labelled, save_classifier
from maskinversion.tasks.classifier_settings import TrainingSettings
from maskinversion.tasks.classify import classify
from tests.helpers.random_tokens import made

NAMES = ("cat", "dog", "key")
QUICK = TrainingSettings(steps=20, points=4)


@pytest.fixture(scope="module")
def labelled(bundled):
    """Tokens near the texts of three classes, two, three and five of them, and their labels."""
    labels = ["dog"] * 3 + ["cat"] * 2 + ["key"] * 5
    generator = torch.Generator().manual_seed(0)
    texts = dict(zip(NAMES, F.normalize(bundled.encode_text([f"a photo of a {name}" for name in NAMES]), dim=1)))
    embeddings = torch.stack([texts[label] for label in labels])
    embeddings = 5 * (embeddings + 0.05 * torch.randn(embeddings.shape, generator=generator))
    plain = made(len(labels), width=64, model="bundled", fingerprint=bundled.fingerprint)
    return [replace(plain, embeddings=embeddings)], labels


@pytest.fixture(scope="module")
def lare(bundled, labelled):
    return train(*labelled, bundled, QUICK)


def points(count=40, classes=3, width=6):
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % classes
    centres = F.normalize(torch.randn(classes, width, generator=generator, dtype=torch.float64), dim=1)
    found = centres[labels] + 0.7 * torch.randn(count, width, generator=generator, dtype=torch.float64)
    return F.normalize(found, dim=1), labels, centres


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_no_other_layer_is_better(prior):
    """The loss is convex, so where its gradient is zero is the one best layer."""
    units, labels, centres = points()
    shares = torch.full((len(units),), 1 / len(units), dtype=torch.float64)
    weight = fit_layer(units, labels, shares, prior * centres, 20.0, 0.01).requires_grad_()
    loss = F.cross_entropy(units @ weight.T, labels) + 0.01 * (weight / 20.0 - prior * centres).square().sum()
    assert torch.autograd.grad(loss, weight)[0].abs().max() < 1e-6


def test_a_firm_prior_is_zero_shot_and_a_loose_one_follows_the_labels(bundled, labelled):
    tokens, labels = labelled
    swapped = [{"cat": "dog", "dog": "cat"}.get(label, label) for label in labels]
    zero_shot = classify(tokens[0].embeddings, bundled, NAMES)
    firm = train(tokens, swapped, bundled, TrainingSettings("probe", decay=1e4)).classify(tokens)
    assert firm.phrases == zero_shot.phrases == list(NAMES)
    torch.testing.assert_close(firm.probabilities, zero_shot.probabilities, atol=1e-3, rtol=0)
    loose = train(tokens, swapped, bundled, TrainingSettings("probe", decay=1e-4)).classify(tokens)
    assert [name for name, _ in loose.best] == swapped
    nameless = train(tokens, swapped, bundled, TrainingSettings("probe", prior="none", decay=1e-4)).classify(tokens)
    assert [name for name, _ in nameless.best] == swapped


def test_a_class_counts_the_same_however_many_examples_it_has(bundled, labelled):
    tokens, labels = labelled
    own = TrainingSettings("probe")
    more = train([*tokens, taken(tokens[0], list(range(5, 10)))], [*labels, *labels[5:]], bundled, own)
    torch.testing.assert_close(more.weight, train(tokens, labels, bundled, own).weight, atol=1e-3, rtol=1e-3)


def test_points_are_of_the_box_and_the_token_is_in_it(lare, labelled):
    units = F.normalize(labelled[0][0].embeddings, dim=1)
    lower, upper = lare.boxes.box(units)
    assert (lower < units).all() and (units < upper).all()
    assert (upper - lower).max() <= 2 * lare.boxes.reach / 8 + 1e-6
    for place, corner in ((0.0, lower), (1.0, upper), (0.5, (lower + upper) / 2)):
        drawn = lare.boxes.points(units, torch.full((1, *units.shape), place))[0]
        torch.testing.assert_close(drawn, F.normalize(corner, dim=1))


def test_boxes_are_larger_the_more_their_size_counts_and_smaller_where_the_class_ends(bundled, labelled):
    tokens, labels = labelled
    units = F.normalize(tokens[0].embeddings, dim=1)
    texts = F.normalize(bundled.encode_text([f"a photo of a {name}" for name in NAMES]), dim=1).clone()
    numbers = torch.tensor([NAMES.index(label) for label in labels])
    shares = torch.full((len(units),), 1 / len(units))

    def mean_side(size, scale):
        settings = TrainingSettings(size=size, steps=100, reach=4.0)
        boxes = learn_boxes(units, numbers, shares, texts, scale, settings, torch.Generator().manual_seed(0))
        return boxes.sides(units).mean()

    assert mean_side(1.0, 20.0) > 1.3 * mean_side(0.001, 20.0)
    assert mean_side(0.01, 1e-3) > 1.1 * mean_side(0.01, 100.0)


def test_the_same_seed_gives_the_same_bits_and_torchs_own_numbers_are_left_alone(bundled, labelled, lare):
    state = torch.get_rng_state()
    again = train(*labelled, bundled, QUICK)
    with torch.inference_mode():
        inside = train(*labelled, bundled, QUICK)
    assert torch.equal(torch.get_rng_state(), state)
    for one in (again, inside):
        assert torch.equal(one.weight, lare.weight) and torch.equal(one.boxes.corners, lare.boxes.corners)
    assert not torch.equal(train(*labelled, bundled, replace(QUICK, seed=1)).weight, lare.weight)


def test_samples_are_tokens_of_the_same_length(lare, labelled):
    tokens, _ = labelled
    (drawn,) = lare.sample(tokens, 3, seed=5)
    assert len(drawn) == 30 and drawn.parameters["operations"][-1]["seed"] == 5
    torch.testing.assert_close(drawn.embeddings.norm(dim=1), tokens[0].embeddings.norm(dim=1).repeat_interleave(3))
    assert torch.equal(drawn.embeddings, lare.sample(tokens, 3, seed=5)[0].embeddings)
    assert not torch.equal(drawn.embeddings, lare.sample(tokens, 3, seed=6)[0].embeddings)


def test_labels_left_empty_leave_tokens_out(bundled, labelled):
    tokens, labels = labelled
    found = train(tokens, ["", *labels[1:]], bundled, TrainingSettings("probe"))
    assert found.parameters["examples"] == {"cat": 2, "dog": 2, "key": 5}


def test_bad_input_is_explained(bundled, labelled, lare):
    tokens, labels = labelled
    for wrong, message in (
        (labels[1:], "10 tokens and 9 labels"),
        ([""] * 10, "examples of no class"),
        (["cat", *[""] * 9], "only of 'cat'"),
        (["a\tb", *labels[1:]], "cannot be the name of a class"),
        (["\udcff", *labels[1:]], "not in Unicode"),
    ):
        with pytest.raises(mi.InputError, match=message):
            train(tokens, wrong, bundled)
    other = [replace(tokens[0], model="another", fingerprint="2")]
    with pytest.raises(mi.InputError, match="made with another, not with bundled"):
        train(other, labels, bundled)
    for use in (lare.classify, lare.sample):
        with pytest.raises(mi.InputError, match="another, which is not the CLIP"):
            use(other)
    with pytest.raises(mi.InputError, match="no boxes"):
        replace(lare, boxes=None).sample(tokens)
    with pytest.raises(mi.InputError, match="count is 0"):
        lare.sample(tokens, 0)


@pytest.mark.parametrize(
    "bad",
    [{"method": "svm"}, {"prior": "x"}, {"points": 0}, {"steps": 1.5}, {"decay": 0}, {"reach": float("nan")}, {"lr": -1},
     {"size": -1}, {"seed": -1}, {"seed": 2**64}],
)  # fmt: skip
def test_settings_that_cannot_be_used(bad):
    with pytest.raises(mi.InputError, match=f"{next(iter(bad))} is"):
        TrainingSettings(**bad)


def test_a_file_comes_back_as_it_was(lare, labelled, tmp_path):
    probe = replace(lare, boxes=None)
    for number, one in enumerate((lare, probe)):
        save_classifier(one, tmp_path / "new" / f"{number}.safetensors")
        back = load_classifier(tmp_path / "new" / f"{number}.safetensors")
        assert torch.equal(back.weight, one.weight)
        assert (back.names, back.clip, back.fingerprint, back.parameters) == (one.names, one.clip, one.fingerprint, one.parameters)
        assert (back.boxes is None) == (one.boxes is None)
    assert back.parameters["seed"] == 0 and back.parameters["method"] == "lare"
    first = load_classifier(tmp_path / "new" / "0.safetensors")
    assert torch.equal(first.sample(labelled[0])[0].embeddings, lare.sample(labelled[0])[0].embeddings)


def without(key):
    return lambda tensors, about: (tensors.pop(key, None), about.pop(key, None))


def tensor(name, value):
    return lambda tensors, about: tensors.update({name: value})


def field(name, value):
    return lambda tensors, about: about.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("weight"), "there is no weight"),
        (without("boxes.hidden"), "there is no boxes.hidden"),
        (tensor("more", torch.zeros(1)), "'more' does not belong there"),
        (tensor("weight", torch.zeros(3, 64, 1)), r"weight has the shape \(3, 64, 1\)"),
        (tensor("weight", torch.zeros(3, 64).half()), "weight has numbers of type torch.float16"),
        (tensor("weight", torch.zeros(3, 64, dtype=torch.complex64)), "weight has numbers of type"),
        (tensor("weight", torch.full((3, 64), float("nan"))), "weight has NaN"),
        (tensor("weight", torch.zeros(4, 64)), r"weight has the shape \(4, 64\); it must be \(3, any\)"),
        (tensor("weight", torch.zeros(3, 0)), "weight is empty"),
        (tensor("boxes.hidden_bias", torch.zeros(2)), "boxes.hidden_bias has the shape"),
        (tensor("boxes.corners", torch.zeros(64, 64)), "corners"),
        (tensor("boxes.hidden", torch.zeros(64, 32)), "boxes.hidden has the shape"),
        (without("names"), "names is None"),
        (field("names", ["cat"]), "two names at least"),
        (field("names", ["cat", "cat", "key"]), "the same"),
        (field("names", ["cat", "dog", 3]), "not a text"),
        (field("names", ["cat", "dog", "\ud800"]), "not in Unicode"),
        (field("names", ["cat", "dog", "a\nb"]), "cannot be the name"),
        (field("names", ["cat", "dog", ""]), "cannot be the name"),
        (field("clip", None), "not a text"),
        (field("fingerprint", 3), "not a text"),
        (field("parameters", []), "parameters is"),
        (field("reach", True), "reach is"),
        (field("reach", 1e400), "reach is"),
        (field("reach", "1"), "reach is"),
    ],
)
def test_damaged_files_are_refused_by_the_field(lare, tmp_path, change, message):
    path = tmp_path / "a.safetensors"
    save_classifier(lare, path)
    tensors, about = load_file(path), json.loads(json.dumps(about_of(lare)))
    change(tensors, about)
    save_file(tensors, path, {"format": FORMAT, "classifier": json.dumps(about)})
    with pytest.raises(mi.InputError, match=rf"a\.safetensors is damaged: .*{message}"):
        load_classifier(path)


def about_of(classifier):
    return {
        "names": classifier.names,
        "clip": classifier.clip,
        "fingerprint": classifier.fingerprint,
        "parameters": classifier.parameters,
        "reach": classifier.boxes.reach,
    }


def test_other_files_are_refused(lare, tmp_path, labelled):
    labelled[0][0].save(tmp_path / "tokens.safetensors")
    (tmp_path / "text.safetensors").write_text("hello there")
    save_classifier(lare, tmp_path / "half.safetensors")
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "half.safetensors").read_bytes()[:-100])
    for words, name in (("[" * 100_000, "deep"), ("[]", "list"), ("", "empty")):
        save_file({"a": torch.zeros(1)}, tmp_path / f"{name}.safetensors", {"format": FORMAT, "classifier": words})
    for name, message in {
        "tokens": "not one of a classifier", "text": "not a complete", "half": "not a complete", "none": "no file",
        "deep": "not JSON", "list": "not a JSON object", "empty": "not JSON",
    }.items():  # fmt: skip
        with pytest.raises(mi.InputError, match=message):
            load_classifier(tmp_path / f"{name}.safetensors")


def test_a_folder_for_each_class(labelled, tmp_path):
    tokens, _ = labelled
    with pytest.raises(mi.InputError, match="there is no folder"):
        read_labelled(tmp_path / "none")
    with pytest.raises(mi.InputError, match="has no tokens of any class"):
        read_labelled(tmp_path)
    for name in ("a cat/1", ".hidden"):
        tokens[0].save(tmp_path / name / "tokens.safetensors")
    (tmp_path / "a cat" / "note.txt").write_text("mine")
    found, known = read_labelled(tmp_path)
    assert known == ["a cat"] * 10 and torch.equal(found[0].embeddings, tokens[0].embeddings)


@pytest.mark.parametrize("method", ["lare", "probe"])
def test_command_line(labelled, tmp_path, capsys, method):
    tokens, labels = labelled
    file, words, out = (tmp_path / name for name in ("tokens.safetensors", "labels.txt", "classifier.safetensors"))
    tokens[0].save(file)
    words.write_text("\ufeff" + "\n".join(labels) + "\n\n\n", encoding="utf-8")
    options = ["--method", method, "--steps", "20", "--out", str(out)]
    assert main(["train", str(file), *options]) == 1 and "--labels" in capsys.readouterr().err
    before = file.read_bytes()
    assert main(["train", str(file), "--labels", str(words), "--out", str(tmp_path / "." / file.name)]) == 1
    assert "would be written over" in capsys.readouterr().err and file.read_bytes() == before
    assert main(["train", str(file), "--labels", str(tmp_path / "none"), *options]) == 1
    assert "the labels could not be read" in capsys.readouterr().err
    assert main(["train", str(file), "--labels", str(words), *options]) == 0
    assert f"{method}, 3 classes, 10 tokens\ncat: 2\n" in capsys.readouterr().out
    assert main(["classify", str(file), "--classifier", str(out), "--top", "1", "--json"]) == 0
    assert [next(iter(region)) for region in json.loads(capsys.readouterr().out)] == labels
    assert main(["classify", str(file), "--classifier", str(out), "--phrase", "cat"]) == 1
    assert "leave out --phrase" in capsys.readouterr().err
    for number, label in enumerate(labels):
        taken(tokens[0], [number]).save(tmp_path / "all" / label / f"{number}.safetensors")
    assert main(["train", str(tmp_path / "all"), *options]) == 0
    assert "3 classes, 10 tokens" in capsys.readouterr().out
    np.testing.assert_array_equal(list(load_classifier(out).names), NAMES)
