"""The same input gives the same bits, whatever a program has set for all of its PyTorch, in whichever order, from any thread."""

import threading
from contextlib import contextmanager

import pytest
import torch

import maskinversion as mi
from maskinversion.compute.ambient import settled
from maskinversion.files import CACHE
from maskinversion.tasks.caption import Decoding, load_captioner
from maskinversion.tasks.classify import classify
from maskinversion.tasks.diffusion import Settings, load_decoder
from maskinversion.tasks.texts import remembered
from tests.helpers.cold_start import Shared, at_once
from tests.helpers.digests import digest
from tests.unit.test_families import MODELS

PHRASES = ["red", "a blue thing", "nothing at all"]


@pytest.fixture(autouse=True)
def nothing_kept_on_disk(monkeypatch):
    monkeypatch.setenv(CACHE, "off")


@contextmanager
def switched(get, change, value):
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


AROUND = {
    "default dtype float64": lambda: switched(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default dtype bfloat16": lambda: switched(torch.get_default_dtype, torch.set_default_dtype, torch.bfloat16),
    "default device meta": lambda: torch.device("meta"),
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "gradients": torch.enable_grad,
    "inference mode": torch.inference_mode,
    "anomaly mode": torch.autograd.detect_anomaly,
    "deterministic mode": lambda: switched(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "products of float32 at medium precision": lambda: switched(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "other random numbers": lambda: switched(
        torch.get_rng_state, torch.set_rng_state, torch.Generator().manual_seed(5).get_state()
    ),
}
quiet = pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:In CPU autocast")


def inverted(clip, scene, **settings):
    inverter = mi.MaskInverter(clip, **settings)
    found = inverter.invert(inverter.encode(scene[0]), scene[1])
    return digest(found.embeddings, found.maps, found.losses, found.iou, found.global_embedding)


def understood(clip, tokens):
    found = classify(tokens.embeddings, clip, PHRASES)
    return digest(found.similarities, found.probabilities)


@quiet
@pytest.mark.parametrize("around", AROUND)
def test_what_is_set_around_it_does_not_reach_it(around, bundled, scene):
    inverter = mi.MaskInverter(bundled, layers=2)
    tokens = inverter.invert(inverter.encode(scene[0]), scene[1])
    expected = inverted(bundled, scene, layers=2), understood(bundled, tokens)
    with AROUND[around]():
        dtype, precision, device = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.empty(0).device
        clip = mi.load_clip("bundled", device="cpu")
        assert (inverted(clip, scene, layers=2), understood(clip, tokens)) == expected
        found = dtype, precision, device
        assert found == (torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.empty(0).device)


@quiet
@pytest.mark.parametrize("around", ["default dtype float64", "autocast to bfloat16", "default device meta"])
@pytest.mark.parametrize("name", MODELS)
def test_nor_in_another_family(name, around, scene):
    model = MODELS[name]().float()
    expected = inverted(mi.load_clip(model), scene)
    with AROUND[around]():
        assert inverted(mi.load_clip(model), scene) == expected


@quiet
@pytest.mark.parametrize("around", ["default dtype float64", "autocast to bfloat16", "default device meta", "inference mode"])
def test_nor_captions_and_pictures(around, bundled, scene):
    inverter = mi.MaskInverter(bundled)
    tokens = inverter.invert(inverter.encode(scene[0]), scene[1][:1])

    def made():
        captions = load_captioner("bundled", device="cpu").caption(tokens, Decoding("sample", 2))
        return captions, digest(load_decoder("bundled").generate([tokens], Settings(steps=2)))

    expected = made()
    with AROUND[around]():
        assert made() == expected


def test_a_setting_comes_back_when_the_last_thread_has_left():
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with settled():
            inside.set()
            leave.wait()

    with AROUND["default dtype float64"]():
        thread = threading.Thread(target=stay, daemon=True)
        thread.start()
        inside.wait()
        with settled():
            within = torch.get_default_dtype()
        after = torch.get_default_dtype()
        leave.set()
        thread.join()
        assert (within, after, torch.get_default_dtype()) == (torch.float32, torch.float32, torch.float64)


def test_what_a_phrase_is_does_not_depend_on_the_phrases_read_before(bundled, scene):
    tokens = torch.randn(3, bundled.tower.width_out, generator=torch.Generator().manual_seed(0))
    many = [f"a thing of kind {number}" for number in range(20)]
    remembered.clear()
    expected = classify(tokens, bundled, many).similarities
    remembered.clear()
    for phrase in many[3:9:2]:
        classify(tokens, bundled, [phrase])
    assert torch.equal(classify(tokens, bundled, many).similarities, expected)


def test_threads_that_share_everything_get_what_one_alone_gets():
    alone = Shared().jobs()
    shared = Shared()
    found = at_once(4, lambda number: shared.jobs(start=number))
    assert found == [alone] * 4
