"""What goes through with a warning, because it is probably not what was meant; and what goes through without one."""

import warnings

import pytest
import torch

import maskinversion as mi
from maskinversion.errors import InputWarning
from maskinversion.explain.plan import Plan


def warned(bundled, image, masks) -> list[str]:
    inverter = mi.MaskInverter(bundled, iterations=2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inverter.invert(inverter.encode(image), masks)
    return [str(warning.message) for warning in caught if issubclass(warning.category, InputWarning)]


def test_a_usual_mask_is_no_reason_to_warn(bundled, scene):
    assert warned(bundled, *scene) == []


def test_the_mask_of_a_cut_out_picture_is_probably_inverted(bundled, scene):
    (words,) = warned(bundled, scene[0], torch.stack([scene[1][0], 1 - scene[1][1]]))
    assert words.startswith("mask 1 covers") and "invert it" in words


@pytest.mark.parametrize("case", ["whole picture", "large object", "frame of little area"])
def test_a_large_region_is_not_called_inverted(bundled, scene, case):
    mask = torch.ones(96, 128)
    if case == "large object":
        mask[:30], mask[:, :10] = 0, 0
    elif case == "frame of little area":
        mask[10:-10, 10:-10] = 0
    assert warned(bundled, scene[0], mask) == []


def test_a_map_without_contrast_is_told(bundled, monkeypatch, scene):
    """Which picture has one depends on the weights; here every map is made flat."""
    monkeypatch.setattr(Plan, "render", lambda plan: torch.zeros(plan.masks, 96, 96))
    (words,) = warned(bundled, *scene)
    assert "the map of mask 0, 1 has no contrast" in words
