"""`precision="fast"`: large products in half precision, and the first step as `exact` takes it."""

from copy import copy

import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion import inverter as inverting
from maskinversion.bench import gpu
from maskinversion.bundled import EXAMPLES, load_example
from maskinversion.explain import plan
from maskinversion.explain.table import TabulatedMap
from tests.helpers.fast_agreement import HALVES, Imitated
from tests.helpers.pictures import many_masks, picture
from tests.helpers.small_models import small_clip


@pytest.fixture(autouse=True, params=HALVES, ids=str)
def half(request, monkeypatch):
    monkeypatch.setattr(plan, "low_precision", lambda device: request.param)
    return request.param


def both(clip: mi.Clip, image, masks, **settings) -> list[mi.LocalizedTokens]:
    inverters = [mi.MaskInverter(clip, precision=precision, **settings) for precision in ("exact", "fast")]
    return [inverter.invert(inverter.encode(image), masks) for inverter in inverters]


@pytest.mark.parametrize("start", ["picture", "patches"])
@pytest.mark.parametrize("count", [3, 60])
def test_the_first_step_is_the_exact_one(count, start):
    image, masks = picture(48, 1)[0], many_masks(48, count)
    exact, fast = both(small_clip(), image, masks, iterations=1, start=start)
    torch.testing.assert_close(exact.embeddings, fast.embeddings, rtol=0, atol=1e-12)
    torch.testing.assert_close(exact.maps, fast.maps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [3, 60])
def test_later_steps_are_in_low_precision(count):
    image, masks = picture(48, 1)[0], many_masks(48, count)
    exact, fast = both(small_clip(), image, masks, iterations=2)
    off = (exact.embeddings - fast.embeddings).norm(dim=1) / exact.embeddings.norm(dim=1)
    assert off.min() > 1e-9 and off.max() < 1e-2


def test_pictures_together_have_the_tokens_that_each_has_alone(monkeypatch):
    joined = []
    monkeypatch.setattr(inverting, "joined", lambda maps: joined.append(plan.joined(maps)) or joined[-1])
    pictures, masks = [picture(48, 1)[0].roll(shift, 1) for shift in (0, 9, 21)], [many_masks(48, 2)] * 3
    fast = mi.MaskInverter(small_clip(), precision="fast", iterations=3)
    encoded = [fast.encode(one) for one in pictures]
    for found, one, own in zip(fast.invert(encoded, masks), encoded, masks, strict=True):
        torch.testing.assert_close(found.embeddings, fast.invert(one, own).embeddings, rtol=0, atol=1e-3)
    assert len(joined) == 1 and joined[0] is not None


def test_what_all_tokens_share_keeps_its_digits(half):
    inverter = mi.MaskInverter(small_clip())
    exact = inverter.encode(picture(48, 1)[0]).maps[0]
    gradient = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = exact.block_vjp(gradient).clone()
    low = exact.at_precision(half)
    off = (low.block_vjp(gradient) - expected).norm() / expected.norm()
    exact.slope.copy_(exact.slope.mean(-2, keepdim=True).expand_as(exact.slope))  # now there is nothing else
    expected = exact.block_vjp(gradient).clone()
    low = exact.at_precision(half)
    alike = (low.block_vjp(gradient) - expected).norm() / expected.norm()
    assert alike < 1e-12 and 1e-5 < off < 1e-2


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_bundled_scenes_have_the_tokens_of_exact(name):
    example = load_example(name)
    with Imitated():
        exact, fast = both(mi.load_clip("bundled", device="cpu"), example.image, example.masks)
    assert F.cosine_similarity(exact.embeddings, fast.embeddings).min() > 0.999
    assert not torch.equal(exact.embeddings, fast.embeddings)


@pytest.mark.parametrize("factor", [1e-25, 1e25])
@pytest.mark.parametrize("tabulated", [False, True])
@pytest.mark.parametrize("family", gpu.QUICK_FAMILIES[:2])
def test_numbers_of_any_size_have_room(half, family, tabulated, factor):
    inverter = mi.MaskInverter(mi.load_clip(gpu.small_model(family)))
    low = inverter.encode(picture(48, 1)[0]).maps[0].at_precision(half)
    larger = copy(low)
    larger.seed = low.seed * factor
    low, larger = (TabulatedMap(one) if tabulated else one for one in (low, larger))
    generator = torch.Generator().manual_seed(0)
    unit = F.normalize(torch.randn(3, 64, dtype=torch.float64, generator=generator), dim=1)
    expected = low.cotangents(unit).clone()
    change = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(larger.cotangents(unit) / factor, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    found, expected = larger.cotangents_vjp(change) / factor, low.cotangents_vjp(change)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    found, expected = low.cotangents_vjp(change * factor) / factor, low.cotangents_vjp(change)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
