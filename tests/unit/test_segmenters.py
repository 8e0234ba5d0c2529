"""Masks of pictures that have none, by transformers' own SAM and SAM 2, on random weights."""

import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.cli.main import main
from maskinversion.collection.segmenters import Segmenter, SegmenterSettings
from maskinversion.collection.table import RegionTable
from tests.helpers.datasets import H, W, picture
from tests.helpers.small_segmenters import sam, sam2

pytest.importorskip("pyarrow")
ANY = dict(points=4, least_quality=0.0, least_stability=0.0)


@pytest.fixture(scope="module", params=[sam, sam2], ids=["SAM", "SAM 2"])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("model") / "sam")


def test_masks_are_those_of_the_pipeline_the_largest_first(folder):
    from transformers import pipeline

    segmenter = Segmenter(SegmenterSettings(str(folder), least_area=0.0, **ANY), torch.device("cpu"))
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8))
    found = [one.mask.bool().numpy() for one in segmenter.masks(shown)]
    theirs = pipeline("mask-generation", model=str(folder), device="cpu")(
        shown, points_per_crop=4, pred_iou_thresh=0.0, stability_score_thresh=0.0
    )["masks"]
    expected = sorted((np.asarray(mask) for mask in theirs), key=lambda mask: -mask.sum())
    assert found and [mask.sum() for mask in found] == [mask.sum() for mask in expected if mask.any()]
    assert {mask.tobytes() for mask in found} == {mask.tobytes() for mask in expected if mask.any()}
    few = Segmenter(SegmenterSettings(str(folder), most=1, **ANY), torch.device("cpu"))
    assert [one.annotation for one in few.masks(shown)] == ["0"]


def test_a_table_of_pictures_without_masks(folder, tmp_path):
    for seed in range(2):
        picture(tmp_path / "pictures" / f"{seed}.png", seed)
    line = f"--pictures {tmp_path}/pictures --segmenter {folder} --points 4 --least-quality 0 --least-stability 0 --iterations 1"
    assert main(["embed", *line.split(), "--preset", "published", "--out", str(tmp_path / "table")]) == 0
    table = RegionTable.open(tmp_path / "table")
    rows = table.read().to_pylist()
    assert {row["picture"] for row in rows} == {"0.png", "1.png"} and table.source["segmenter"]["points"] == 4
    for row in rows:
        assert np.asarray(Image.open(io.BytesIO(row["mask"]))).mean() == pytest.approx(row["area"])


def test_what_is_no_segmenter_is_refused(folder, tmp_path):
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(mi.ModelError, match="is not a SAM or SAM 2 of transformers with its weights as safetensors"):
        Segmenter(SegmenterSettings(str(tmp_path)), torch.device("cpu"))
    with pytest.raises(mi.InputError, match=r"least_area is 2; it must be in 0\.\.1"):
        SegmenterSettings(str(tmp_path), least_area=2)
