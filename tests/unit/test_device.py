"""What holds on a GPU, as far as it can be told without one: nothing in a step looks at a number, and memory is what is there."""

import io
import json

import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.bench import gpu
from maskinversion.compute.adamw import AdamW
from maskinversion.compute.buffers import MB, WORKING, shares
from maskinversion.compute.memory import DeviceMemory, device_memory
from maskinversion.explain.objective import DiceObjective
from maskinversion.explain.plan import Plan, joined
from maskinversion.explain.table import TabulatedMap
from tests.helpers.pictures import many_masks, picture

META = torch.device("meta")  # where tensors have no numbers: who looks at one gets an error


def on_meta(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, map_location=META, weights_only=False)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("masks", [2, 60])
@pytest.mark.parametrize("start", ["picture", "patches"])
@pytest.mark.parametrize("family", gpu.QUICK_FAMILIES)
def test_a_step_looks_at_no_number(family, start, masks, precision, monkeypatch):
    monkeypatch.setattr("maskinversion.explain.plan.low_precision", lambda device: torch.float16)
    inverter = mi.MaskInverter(mi.load_clip(gpu.small_model(family).float()), layers=2)
    encoded = inverter.encode(picture(48, 1)[0])
    maps, objective, anchor = on_meta((encoded.maps, DiceObjective(many_masks(48, masks), encoded.grid), encoded.global_embedding))
    assert anchor.device == META
    tokens = anchor.repeat(masks, 1)
    plan = Plan(maps, objective, anchor[None] if start == "picture" else None, masks, 10, precision)
    assert any(isinstance(layer, TabulatedMap) for layer in plan.maps) == (masks == 60 and family != "CoCa")
    optimizer = AdamW(tokens, 0.1)
    for _ in range(2):
        loss, gradient = plan.evaluate(F.normalize(tokens, dim=1))
        assert loss.device == gradient.device == plan.render().device == META
        optimizer.step(gradient)


@pytest.mark.parametrize("family", gpu.QUICK_FAMILIES)
def test_a_step_of_several_pictures_looks_at_no_number(family):
    inverter = mi.MaskInverter(mi.load_clip(gpu.small_model(family).float()), layers=2)
    first = picture(48, 1)[0]
    encoded = inverter.encode([first, first.flip(0)])
    whole = torch.stack([one.global_embedding for one in encoded])
    objective = DiceObjective(many_masks(48, 6), encoded[0].grid)
    maps, objective, anchors = on_meta((joined([one.maps for one in encoded]), objective, whole))
    plan = Plan(maps, objective, anchors, 6, 10, pictures=2)
    for _ in range(2):
        loss, gradient = plan.evaluate(F.normalize(anchors.repeat_interleave(3, 0), dim=1))
        assert loss.device == gradient.device == plan.render().device == META and gradient.shape == (6, whole.shape[1])


def test_a_look_would_be_found():
    with pytest.raises(RuntimeError):
        float(torch.zeros((), device=META))


GB = 1024 * MB


@pytest.mark.parametrize("total", [2 * GB, 8 * GB, 24 * GB, 80 * GB])
def test_what_products_may_take_is_of_what_is_there(total):
    chunk, table = shares(DeviceMemory(total, total))
    assert 64 * MB <= chunk <= GB and table == total // 16
    assert (chunk, table) == shares(DeviceMemory(total // 2, total))  # and the same where others take half of it
    little, none = shares(DeviceMemory(100 * MB, total))
    assert WORKING * little <= 50 * MB and none == 0
    assert shares(DeviceMemory(0, total))[0] > 0


def test_a_device_that_does_not_say_gets_what_any_has():
    assert device_memory(META) is None and shares(None) == (128 * MB, 320 * MB)


def test_the_script_for_a_gpu_says_that_there_is_none(capsys, tmp_path):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is one")
    assert gpu.main(["--out", str(tmp_path)]) == 1
    assert "there is no GPU here" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_for_a_gpu_runs(capsys, tmp_path):
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0, capsys.readouterr()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert len({what.partition(",")[0] for what in found["turned"]}) == len(gpu.QUICK_FAMILIES)
    assert found["waits"][0] == found["waits"][1] and found["timings"][0]["seconds"] > 0
    assert "encoder passes" in capsys.readouterr().out


def test_the_script_for_a_gpu_fails_where_tokens_differ(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "agreement", lambda *_: iter([("a family, float64", float("nan"), 1e-9)]))
    monkeypatch.setattr(gpu, "waits", lambda device, steps: steps)
    monkeypatch.setattr(gpu, "timings", lambda *_: [])
    assert gpu.main(["--device", "cpu", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "a family, float64: tokens turn by up to nan" in printed and "5 and 15" in printed
