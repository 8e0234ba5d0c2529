"""How regions are inverted: what is refused, what is recorded, and that a setting has one place."""

import json
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch

import maskinversion as mi
from maskinversion.cli.main import parser
from maskinversion.evaluation.ablation import OBJECTIVES
from maskinversion.settings import InversionSettings
from maskinversion.tasks.classifier_settings import TrainingSettings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"iterations": 2.5}, "iterations is 2.5; it must be a whole number"),
        ({"layers": 0}, "layers is 0"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"alpha": -1.0}, "alpha is -1.0; it must not be negative"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"image_size": 64.0}, "image_size is 64.0; it must be a whole number of pixels"),
        ({"fit": "squash"}, "fit is 'squash'; it must be one of stretch, pad, crop, aspect"),
        ({"precision": "float8"}, "precision is 'float8'; it must be one of exact, fast"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(given, words):
    with pytest.raises(mi.InputError, match=words):
        InversionSettings(**given)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"layers": 99}, "layers is 99; bundled has . blocks"), ({"image_size": 97}, "image_size is 97; bundled has patches of")],
)
def test_a_value_that_this_clip_cannot_use_is_named(bundled, given, words):
    with pytest.raises(mi.InputError, match=words):
        mi.MaskInverter(bundled, **given)


def test_settings_are_one_thing_and_do_not_change(bundled):
    settings = InversionSettings(iterations=3, alpha=2.0)
    inverter = mi.MaskInverter(bundled, settings, lr=0.2)
    assert inverter.settings == InversionSettings(iterations=3, alpha=2.0, lr=0.2)
    with pytest.raises(FrozenInstanceError):
        inverter.settings.lr = 1.0
    with pytest.raises(TypeError):
        mi.MaskInverter(bundled, learning_rate=0.2)


@pytest.mark.parametrize("settings", [
    InversionSettings(iterations=np.int64(2), lr=np.float32(0.5), image_size=np.int32(64), alpha=torch.tensor(1.0)),
    TrainingSettings(points=np.int64(2), decay=np.float32(0.5), seed=np.uint64(3)),
])  # fmt: skip
def test_numbers_of_numpy_can_be_written_down(settings):
    assert json.loads(json.dumps(vars(settings))) == vars(settings)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_a_token_records_every_setting_and_the_loss(bundled, scene, loss):
    inverter = mi.MaskInverter(bundled, iterations=2, tolerance=1e-3, objective=OBJECTIVES[loss])
    recorded = inverter.invert(inverter.encode(scene[0]), scene[1]).parameters
    assert {field.name for field in fields(InversionSettings)} | {"loss", "arithmetic"} == set(recorded)
    assert recorded["tolerance"] == 1e-3 and recorded["loss"] == loss and recorded["image_size"] == bundled.tower.image_size


def test_the_command_line_has_every_setting():
    line = ["invert", "picture.png", "--mask", "mask.png", "--out", "out"]
    args = vars(parser(line).parse_args(line))
    assert {field.name for field in fields(InversionSettings)} <= set(args)
