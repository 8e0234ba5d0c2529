"""Naming regions, finding them by phrase, and writing on them."""

import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.bundled import load_example
from maskinversion.drawing.labels import COLOURS, draw_labels
from maskinversion.files import CACHE
from maskinversion.tasks.classify import classify
from maskinversion.tasks.phrases import NAMES, TEMPLATES
from maskinversion.tasks.refer import assign, refer
from maskinversion.tasks.texts import remembered, text_embeddings


@pytest.fixture(scope="module")
def zoo(bundled):
    example = load_example("zoo")
    inverter = mi.MaskInverter(bundled)
    return example, inverter.invert(inverter.encode(example.image), example.masks)


def test_classify_is_a_softmax_of_cosines(bundled):
    texts = bundled.encode_text(["a photo of a cat", "a photo of a bus"])
    found = classify(texts * 7, bundled, ["cat", "", "bus"])
    assert [phrase for phrase, _ in found.best] == ["cat", "bus"] and found.phrases == ["cat", "bus"]
    torch.testing.assert_close(found.similarities.diagonal(), torch.ones(2))
    torch.testing.assert_close(found.probabilities, (bundled.logit_scale * found.similarities).softmax(1))


def test_a_phrase_that_is_there_twice_counts_once(bundled):
    texts = bundled.encode_text(["a photo of a cat", "a photo of a bus"])
    found, twice = (classify(texts, bundled, phrases) for phrases in (["cat", "bus"], ["cat", "bus", "cat", " bus "]))
    assert twice.phrases == ["cat", "bus"] and torch.equal(twice.probabilities, found.probabilities)
    assert refer(texts, bundled, ["bus", "cat", "bus"]).region_of == [1, 0, 1]


def test_classify_explains_bad_input(bundled):
    one = torch.zeros(1, bundled.tower.width_out)
    with pytest.raises(mi.InputError, match="no phrase"):
        classify(one, bundled, [" "])
    with pytest.raises(mi.InputError, match=r"no \{\}"):
        classify(one, bundled, ["cat"], "a photo")
    with pytest.raises(mi.InputError, match=r"no \{\}"):
        classify(one, bundled, ["cat"], ["a photo of a {}", "a photo"])
    with pytest.raises(mi.InputError, match="no template"):
        classify(one, bundled, ["cat"], [])
    with pytest.raises(mi.InputError, match="one text, 'cat': give a list"):
        classify(one, bundled, "cat")
    with pytest.raises(mi.InputError, match="512 numbers"):
        classify(torch.zeros(1, 512), bundled, ["cat"])
    with pytest.raises(mi.InputError, match="list"):
        bundled.encode_text("cat")


def test_several_templates_are_averaged_as_unit_vectors(bundled):
    templates = ["a photo of a {}", "a drawing of a {}", "{}"]
    each = F.normalize(bundled.encode_text([template.format("cat") for template in templates]), dim=1)
    expected = F.normalize(each.mean(0), dim=0)
    torch.testing.assert_close(text_embeddings(bundled, ["cat"], templates)[0], expected)


def test_texts_are_read_once(bundled, monkeypatch):
    monkeypatch.setenv(CACHE, "off")
    read = []
    encode = bundled.encode_text
    monkeypatch.setattr(bundled, "encode_text", lambda texts, **how: read.extend(texts) or encode(texts, **how))
    remembered.pop(bundled, None)
    first = text_embeddings(bundled, ["cat", "bus", "cat"], ["{}"])
    told = []
    second = text_embeddings(bundled, ["bus", "key", "cat"], ["{}"], lambda *done: told.append(done))
    assert read == ["cat", "bus", "key"] and told == [(1, 1)]
    assert torch.equal(first, second[[2, 0, 2]])


def test_built_in_lists_and_templates():
    assert len(NAMES["bundled"]()) == 98 and len(NAMES["imagenet"]()) == 1000
    assert [len(TEMPLATES[name]) for name in ("imagenet-7", "imagenet-80")] == [7, 80]
    assert all(template.count("{}") == 1 for templates in TEMPLATES.values() for template in templates)


def test_phrases_find_their_regions_and_regions_their_phrases(bundled, zoo):
    example, tokens = zoo
    phrases = [f"a {name}" for name in reversed(example.names)]
    for one_to_one in (False, True):
        found = refer(tokens.embeddings, bundled, phrases, one_to_one=one_to_one)
        assert found.region_of == [2, 1, 0] and found.phrase_of == [2, 1, 0]


def test_one_to_one_leaves_out_who_fits_worst(bundled, zoo):
    _, tokens = zoo
    found = refer(tokens.embeddings[:2], bundled, ["an elephant", "a fox", "a penguin"], one_to_one=True)
    assert found.region_of == [0, None, 1] and found.phrase_of == [0, 2]
    found = refer(tokens.embeddings, bundled, ["a penguin"], one_to_one=True)
    assert found.region_of == [1] and found.phrase_of == [None, 0, None]


def test_the_assignment_is_the_best_in_all():
    """By hand: the greedy one takes 0.9 + 0.0, the best 0.8 + 0.7."""
    assert assign(torch.tensor([[0.9, 0.8], [0.7, 0.0]])) == ([0, 1], [1, 0])


def test_labels_stand_on_their_regions():
    image, masks = torch.full((96, 160, 3), 0.5), torch.zeros(2, 96, 160)
    masks[0, 10:60, 10:70] = 1
    masks[1, 30:90, 100:150] = 1
    drawn = draw_labels(image, masks, ["cat", ""])
    for index, (y, x) in enumerate(((12, 12), (35, 120))):
        expected = 0.5 + 0.25 * (torch.tensor(COLOURS[index]) / 255 - 0.5)
        torch.testing.assert_close(drawn[y, x], expected, atol=0.01, rtol=0)
    dark = (drawn < 0.1).all(2)
    assert dark[10:60, 10:70].any() and not dark[:, 80:].any()
    assert torch.equal(drawn[:5, 75:95], (torch.full((5, 20, 3), 128.0) / 255))


def test_labels_that_would_hide_one_another_are_moved():
    image, masks = torch.zeros(96, 96, 3), torch.ones(3, 96, 96)
    drawn = (draw_labels(image, masks, ["one", "two", "three"]) * 255).round()
    for colour in COLOURS[:3]:
        assert ((drawn == torch.tensor(colour)).all(2)).sum() > 100


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(mi.InputError, match="2 masks and 1 labels"):
        draw_labels(torch.zeros(8, 8, 3), torch.ones(2, 8, 8), ["cat"])
    with pytest.raises(mi.InputError, match="same size"):
        draw_labels(torch.zeros(8, 8, 3), torch.ones(1, 9, 8), ["cat"])
