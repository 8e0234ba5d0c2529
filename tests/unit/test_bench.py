"""The benchmark measures what it says: its baselines come to the same tokens, and a small run writes its files."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.bench.baselines import explicit_decomposition, shared_autograd
from maskinversion.bench.worker import inputs
from maskinversion.cli.main import main
from maskinversion.explain.table import TabulatedMap


@pytest.mark.parametrize("baseline", [explicit_decomposition, shared_autograd])
def test_a_baseline_comes_to_the_same_tokens(baseline):
    torch.manual_seed(0)
    config = dict(image_size=48, patch_size=8, width=64, layers=3, head_width=32)
    model = open_clip.CLIP(40, config, dict(context_length=8, width=32, heads=2, layers=1)).double().eval().requires_grad_(False)
    image, masks = inputs(48, 3)
    clip = mi.load_clip(model)
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    pixels = ((image.permute(2, 0, 1) - mean) / std)[None].double()
    inverter = mi.MaskInverter(clip)
    ours = inverter.invert(inverter.encode(image), masks).embeddings
    assert F.cosine_similarity(ours, baseline(model.visual, pixels, masks.double(), 10, 0.1)).min() > 1 - 1e-9


@pytest.mark.slow
def test_a_small_run(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    methods = ("forward", "exact", "fast")
    arguments = ["bench", "--model", "ViT-S-32", "--masks", "1", "2", "--repeats", "1", "--methods", *methods]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["method"], row["masks"]) for row in rows] == [(m, n) for n in (1, 2) for m in methods]
    assert all(row["seconds"] == row["floor"] > 0 for row in rows if row["method"] == "forward")
    assert all(row["seconds"] > row["floor"] > 0 for row in rows if row["method"] != "forward")
    assert "| exact | " in capsys.readouterr().out and (tmp_path / "bench.png").stat().st_size > 1000
    assert all(min(row["cosines"]) > 0.99 and len(row["cosines"]) == row["masks"] for row in rows if row["method"] == "fast")
    rows[0]["seconds"] = rows[3]["seconds"] = 12345.0
    (tmp_path / "bench.json").write_text(json.dumps(rows))
    assert main([*arguments[:3], "--masks", "2", "3", *arguments[6:], "--out", str(tmp_path)]) == 0
    added = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["method"], row["masks"]) for row in added] == [(m, n) for n in (1, 2, 3) for m in methods]
    assert [row["seconds"] == 12345.0 for row in added] == [True, *[False] * 8]


@pytest.mark.slow
def test_a_slow_down_fails_the_check(tmp_path, capsys):
    row = {"masks": 1, "model": "ViT-S-32", "size": 64, "iterations": 1, "layers": 1, "lr": 0.1, "repeats": 1, "threads": 1}
    stored = tmp_path / "bench.json"

    def store(passes):
        stored.write_text(json.dumps([row | {"method": "exact", "seconds": passes, "floor": 1.0}]))
        return main(["bench", "--check", str(stored)])

    assert store(1e6) == 0
    assert "1000000.00 encoder passes then" in capsys.readouterr().out
    assert store(1e-6) == 1
    assert "more than 20% slower" in capsys.readouterr().err
    stored.write_text("[]")
    assert main(["bench", "--check", str(stored)]) == 1 and "nothing to compare with" in capsys.readouterr().err
    stored.write_text("nothing")
    assert main(["bench", "--check", str(stored)]) == 1 and "is not a bench.json" in capsys.readouterr().err


def test_the_operations_are_counted_by_hand():
    """A block of width 8 with an MLP of 16, 2 heads, 5 tokens, one of them no patch, an embedding of 4."""
    model = open_clip.CLIP(
        4,
        dict(image_size=8, patch_size=4, width=8, layers=1, head_width=4, mlp_ratio=2.0),
        dict(context_length=8, width=8, heads=1, layers=1),
    )
    inverter = mi.MaskInverter(mi.load_clip(model.eval()))
    (found,) = inverter.encode(inputs(8, 1)[0]).maps
    pull, values = 5 * 16 * 8, 2 * 5 * 4 * 4
    assert found.step_macs == 2 * (pull + values)
    assert found.setup_macs == 5 * 8 * 8
    table = TabulatedMap(found)
    assert table.step_macs == 2 * (4 * 5 * 8 + values) and table.setup_macs == found.setup_macs + 4 * pull
