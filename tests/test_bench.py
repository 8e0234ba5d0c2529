"""The benchmark measures what it says: its baselines come to the same tokens, and a small run writes its files."""

import json

import open_clip
import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.bench.baselines import explicit_decomposition, shared_autograd
from maskinversion.bench.worker import inputs
from maskinversion.cli import main


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


def test_a_small_run(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["bench", "--model", "ViT-S-32", "--masks", "1", "2", "--repeats", "1", "--methods", "forward", "exact"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "bench.json").read_text())
    assert [(row["method"], row["masks"]) for row in rows] == [(m, n) for n in (1, 2) for m in ("forward", "exact")]
    assert all(row["seconds"] > 0 for row in rows)
    assert "| exact | " in capsys.readouterr().out and (tmp_path / "bench.png").stat().st_size > 1000
