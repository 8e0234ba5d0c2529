"""What will not fit into memory is refused before it is asked for: systems end a process that overdraws theirs without a word."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import maskinversion as mi
from maskinversion.bench.worker import high_water
from maskinversion.compute import memory
from maskinversion.datasets.base import Region, Sample
from maskinversion.geometry import Geometry

TOO_LARGE = (10**6, 10**6)  # a picture of 4 TB as float32, without its colours


@pytest.fixture
def tokens(bundled, scene):
    inverter = mi.MaskInverter(bundled, iterations=1)
    return inverter.invert(inverter.encode(scene[0]), scene[1])


def test_what_is_free_is_told_and_is_less_than_all():
    free = memory.free_bytes()
    assert free is not None and 10**7 < free < 10**15


def test_a_picture(bundled):
    picture = torch.zeros(1, 1, 3, dtype=torch.uint8).expand(*TOO_LARGE, 3)
    with pytest.raises(mi.MemoryLimitError, match=r"the image of 1000000 x 1000000 px, which would take 12000.0 GB of the .* GB"):
        mi.MaskInverter(bundled).encode(picture)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_a_mask(bundled, scene, dtype):
    inverter = mi.MaskInverter(bundled)
    with pytest.raises(mi.MemoryLimitError, match=r"mask 1 of 1000000 x 1000000 px, .*: make it smaller first"):
        inverter.invert(inverter.encode(scene[0]), [scene[1][0], torch.ones(1, 1, dtype=dtype).expand(TOO_LARGE)])


def test_maps_of_a_large_picture_and_at_a_size_that_fits(tokens, monkeypatch):
    large = replace(tokens, geometry=Geometry((2**14, 2**14), tokens.geometry.model_size))
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**30)
    with pytest.raises(mi.MemoryLimitError, match=r"2 maps of 16384 x 16384 px.*: ask for a smaller size"):
        large.maps_for()
    assert torch.equal(large.maps_for((96, 128)), tokens.maps_for())


def test_many_masks_as_the_model_sees_them(bundled, scene, monkeypatch):
    inverter = mi.MaskInverter(bundled)
    encoded = inverter.encode(scene[0])
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 * 4 * 96 * 128)
    with pytest.raises(mi.MemoryLimitError, match=r"masks as the model sees them.*: lower image_size, or give fewer"):
        inverter.invert(encoded, scene[1][:1].expand(1000, -1, -1))


def test_masks_of_a_data_set():
    regions = (Region([[0, 0, 5, 0, 5, 5]], ("a thing",), "annotation 1"),)
    with pytest.raises(mi.MemoryLimitError, match=r"the 1 masks of large, .*: leave the picture out"):
        Sample("large", Path("large.png"), regions, TOO_LARGE).masks(TOO_LARGE)


def test_masks_of_a_large_batch_are_held_one_at_a_time(bundled, scene):
    inverter = mi.MaskInverter(bundled, iterations=1)
    encoded = inverter.encode(scene[0])
    masks = torch.zeros(2000, 3000, dtype=torch.bool)
    masks[500:1000, 500:2000] = True
    high_water()
    before = high_water()
    assert len(inverter.invert(encoded, masks.expand(40, -1, -1))) == 40
    after = high_water()
    if before is None or after is None:
        pytest.skip("this system does not say what a process took at most")
    assert after - before < 10 * 4 * masks.numel()  # a copy of each in float32 is four times as much
