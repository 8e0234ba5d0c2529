"""`maskinversion eval`: protocols and readers by hand, masks, baselines, other losses, and a run that stops and goes on."""

import argparse
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import maskinversion as mi
from maskinversion.cli.evaluate import add_arguments, settings_of
from maskinversion.datasets.coco import read_coco
from maskinversion.datasets.phrasecut import read_phrasecut
from maskinversion.datasets.refcoco import read_refcoco
from maskinversion.datasets.shapes import decode
from maskinversion.evaluation import run as run_module
from maskinversion.evaluation import settings as choices
from maskinversion.evaluation.ablation import OBJECTIVES
from maskinversion.evaluation.baselines import WAYS, Picture, embeddings
from maskinversion.evaluation.baselines.pictures import crop, embed, grey, masked_crop, red_circle
from maskinversion.evaluation.masks import box_of, degrade, dilate, erode, largest_overlaps
from maskinversion.evaluation.protocols import class_hits, expression_hits, wilson
from maskinversion.evaluation.run import Row, evaluate, rows_of
from maskinversion.evaluation.settings import METHODS, Settings
from maskinversion.pickles import read_plain_pickle
from tests.helpers.pictures import picture as noise
from tests.helpers.small_models import small_clip

pytest.importorskip("pycocotools")


# Protocols


def test_class_retrieval_by_hand():
    # Six classes; the picture has the classes 0, 0 and 3. Region 0 is right; region 1 is right only among the picture's own
    # classes (0.3 > 0.2) and is second to class 5; region 2 has everything above its own class 3.
    similarities = torch.tensor([[0.9, 0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.0, 0.0, 0.2, 0.1, 0.6], [0.5, 0.4, 0.3, 0.1, 0.2, 0.6]])
    assert class_hits(similarities, [0, 0, 3]) == {"acc1": [1, 0, 0], "acc5": [1, 1, 0], "own": [1, 1, 0]}


def test_a_picture_with_one_class_says_nothing_about_its_own():
    assert class_hits(torch.tensor([[0.1, 0.9], [0.2, 0.9]]), [1, 1])["own"] == [None, None]


def test_ties_share_the_hit():
    # Three classes with the same score: one in three is right by chance. Of the two of the picture, one in two.
    hits = class_hits(torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]), [0, 2])
    assert hits["acc1"] == pytest.approx([1 / 3, 1 / 3]) and hits["own"] == [0.5, 0.5]


def test_expressions_by_hand():
    # Columns: the red one (0), the round one (0), the tall one (1), the last one (2).
    texts = [("the red one", "the round one"), ("the tall one",), ("the last one",)]
    similarities = torch.tensor([[0.3, 0.5, 0.6, 0.1], [0.4, 0.1, 0.9, 0.3], [0.1, 0.2, 0.8, 0.25]])
    hits = expression_hits(similarities, texts, one_to_one=True)
    # The best expression of every region is "the tall one": right for region 1 only.
    assert hits["phrase"] == [0, 1, 0]
    # The best regions of the four expressions are 1, 0, 1, 1: right for the second and the third.
    assert hits["region"] == [0, 1, 1, 0]
    # First turn: red, tall, last. The right assignment has 0.3 + 0.9 + 0.25 = 1.45, the others 0.3 + 0.3 + 0.8 = 1.4,
    # 0.6 + 0.4 + 0.25, 0.6 + 0.3 + 0.1, 0.1 + 0.4 + 0.8 and 0.1 + 0.9 + 0.1. Second turn: only region 0 has another, "round".
    assert hits["assigned"] == [1, 1, 1, 1]


def test_one_to_one_by_hand():
    # Both regions like "a" best, but together (a, b) = 0.9 + 0.5 beats (b, a) = 0.3 + 0.8.
    similarities = torch.tensor([[0.9, 0.3], [0.8, 0.5]])
    hits = expression_hits(similarities, [("a",), ("b",)], one_to_one=True)
    assert hits == {"phrase": [1, 0], "region": [1, 1], "assigned": [1, 1]}


def test_an_expression_of_two_regions_is_right_for_both():
    hits = expression_hits(torch.tensor([[0.9, 0.1], [0.2, 0.1]]), [("a",), ("a", "b")])
    assert hits == {"phrase": [1, 1], "region": [1, 0.5]}


def test_one_region_alone_gives_no_hits():
    assert expression_hits(torch.ones(1, 2), [("a", "b")], one_to_one=True) == {"phrase": [], "region": [], "assigned": []}


def test_wilson_by_hand():
    # n = 4, p = 3/4, z^2 = 3.8416: the middle is (0.75 + 0.4802) / 1.9604 = 0.6275, half the width is
    # 1.96 * sqrt(0.1875 / 4 + 3.8416 / 64) / 1.9604 = 1.96 * 0.32694 / 1.9604 = 0.3269.
    assert wilson(np.array([1, 1, 1, 0])) == pytest.approx((0.75, 0.3006, 0.9544), abs=1e-4)


def test_hits_that_always_agree_count_once():
    hits, pictures = np.array([1, 0, 1, 0, 1, 0, 1, 1]), np.arange(8)
    # Eight pictures with three hits each that are the same: 1 / (n - 1) in the variance makes it a bit less than eight.
    p, low, high = wilson(hits.repeat(3), groups=pictures.repeat(3))
    assert (p, low, high) == pytest.approx(wilson(hits, groups=pictures))
    assert high - low > 1.5 * np.diff(wilson(hits.repeat(3))[1:])[0]
    assert wilson(np.ones(24), groups=pictures.repeat(3)) == wilson(np.ones(8))


# Masks


def test_masks_of_other_quality():
    mask = torch.zeros(20, 20)
    mask[5:15, 4:14] = 1  # 10 x 10: a radius of 0.1 is one pixel
    mask[5, 4] = 0
    eroded, dilated, box = (degrade(mask[None], quality)[0] for quality in ("eroded", "dilated", "box"))
    assert box.sum() == 100 and box[5, 4] == 1 and box_of(mask) == (5, 4, 15, 14)
    assert dilated.sum() == 12 * 12 - 1  # without its corner, which only the missing pixel would have reached
    assert eroded.sum() == 8 * 8 - 1 and eroded[6, 5] == 0 and eroded[6, 6] == 1
    assert torch.equal(degrade(mask[None], "exact")[0], mask)
    with pytest.raises(mi.InputError, match="no mask quality 'blurred'; there are exact"):
        degrade(mask[None], "blurred")


def test_erosion_leaves_something_and_the_border_does_not_eat():
    mask = torch.zeros(9, 9)
    mask[:, :3] = 1
    assert erode(mask, 8).sum() == 9  # 8 and 4 px would leave nothing, 2 px leave the column at the border
    thin = torch.zeros(9, 9)
    thin[4] = 1
    assert torch.equal(erode(thin, 3), thin)
    assert dilate(thin, 1).sum() == 27


def test_overlap_of_boxes_by_hand():
    masks = torch.zeros(3, 10, 10)
    masks[0, 0:4, 0:4], masks[1, 2:6, 0:4], masks[2, 8:, 8:] = 1, 1, 1
    assert largest_overlaps(masks) == pytest.approx([8 / 24, 8 / 24, 0])  # 2 x 4 shared of 16 + 16 - 8


# Readers


def square(left, top, side):
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def instances(tmp_path):
    """Two pictures, 20 x 10: one with a polygon, run lengths and a crowd, one with nothing, under the names of train2017."""
    content = {
        "images": [
            {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 10, "width": 20},
            {"id": 8, "file_name": "none.jpg", "height": 10, "width": 20},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": 70, "image_id": 7, "category_id": 5, "iscrowd": 0, "segmentation": [square(2, 1, 4), [1, 2, 3, 4]]},
            # Column by column: 20 pixels not, 15 in, 165 not.
            {"id": 71, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": {"size": [10, 20], "counts": [20, 15, 165]}},
            {"id": 72, "image_id": 7, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [10, 20], "counts": [200]}},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_coco(tmp_path):
    dataset = read_coco(instances(tmp_path), tmp_path)
    (sample,) = dataset.samples
    assert dataset.classes == ["cat", "dog"] and dataset.regions == 2 and dataset.name.endswith("/instances")
    assert [region.texts for region in sample.regions] == [("dog",), ("cat",)]
    masks = sample.masks((10, 20))
    expected = torch.zeros(2, 10, 20)
    expected[0, 1:5, 2:6] = 1
    expected[1, :, 2], expected[1, :5, 3] = 1, 1
    assert torch.equal(masks, expected)
    assert sample.masks((20, 40)).shape == (2, 20, 40)  # a copy of the picture at twice the size
    with pytest.raises(mi.InputError, match=r"there is no file .*000000000007.jpg, which the annotations name"):
        sample.open()


def test_coco_compressed_run_lengths():
    from pycocotools import mask

    wanted = np.zeros((6, 5), np.uint8)
    wanted[1:4, 2:] = 1
    runs = mask.encode(np.asfortranarray(wanted))
    assert np.array_equal(decode({"size": runs["size"], "counts": runs["counts"].decode()}, (6, 5)), wanted)
    with pytest.raises(mi.InputError, match="neither polygons nor run lengths"):
        decode({"size": [6, 5]}, (6, 5))


@pytest.mark.parametrize("content", ["[]", '{"images": []}', "{"])
def test_a_file_that_is_not_cocos(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(mi.InputError, match=r"is not COCO's instances|as JSON"):
        read_coco(path, tmp_path)


REFS = [
    {"ref_id": 0, "ann_id": 70, "image_id": 7, "category_id": 5, "split": "testA", "file_name": "x.jpg", "sent_ids": [0, 1, 2],
     "sentences": [{"sent_id": i, "sent": sent, "raw": sent.upper(), "tokens": sent.split()}
                   for i, sent in enumerate(["left dog", "dog", "left dog"])]},
    {"ref_id": 1, "ann_id": 71, "image_id": 7, "category_id": 1, "split": "val", "file_name": "x.jpg", "sent_ids": [3],
     "sentences": [{"sent_id": 3, "sent": "caf\u00e9 cat", "raw": "", "tokens": []}]},
]  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 1, 2, "json"])
def test_refcoco(tmp_path, protocol):
    refs = tmp_path / ("refs.json" if protocol == "json" else "refs(unc).p")
    refs.write_bytes(json.dumps(REFS).encode() if protocol == "json" else pickle.dumps(REFS, protocol))
    Image.new("RGB", (20, 10)).save(tmp_path / "000000000007.jpg")  # the name it has in train2017
    dataset = read_refcoco(refs, instances(tmp_path), tmp_path)
    (sample,) = dataset.samples
    assert dataset.classes == [] and [r.texts for r in sample.regions] == [("left dog", "dog"), ("caf\u00e9 cat",)]
    assert sample.open().size == (20, 10) and sample.masks((10, 20)).sum((1, 2)).tolist() == [16, 15]
    assert read_refcoco(refs, instances(tmp_path), tmp_path, "test").regions == 1
    with pytest.raises(mi.InputError, match="has no split 'testC'; it has testA, val"):
        read_refcoco(refs, instances(tmp_path), tmp_path, "testC")


def test_a_pickle_of_python_2_is_read(tmp_path):
    # What Python 2 wrote for [{'sent': 'dog', 'id': 3L, 'raw': u'd\xf6g'}], byte by byte (protocol 2).
    content = (
        b"\x80\x02]q\x00}q\x01(U\x04sentq\x02U\x03dogq\x03U\x02idq\x04\x8a\x01\x03U\x03rawq\x05X\x04\x00\x00\x00d\xc3\xb6gq\x06ua."
    )
    (tmp_path / "refs.p").write_bytes(content)
    assert read_plain_pickle(tmp_path / "refs.p") == [{"sent": "dog", "id": 3, "raw": "d\u00f6g"}]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused(tmp_path, protocol):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([{"sent": "dog"}, Malicious(tmp_path / "done")], protocol))
    with pytest.raises(mi.InputError, match=r"was refused: .* could run code .*mkdir"):
        read_refcoco(path, instances(tmp_path), tmp_path)
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04]", b"hello", pickle.dumps(np.zeros(2)), pickle.dumps(3j)])
def test_a_pickle_that_is_damaged_or_holds_objects_is_refused(tmp_path, content):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(mi.InputError, match=r"refused|not a complete pickle"):
        read_plain_pickle(tmp_path / "refs.p")


def test_phrasecut(tmp_path):
    tasks = [
        {"task_id": "9__1", "image_id": 9, "phrase": "two dogs ", "ann_ids": [1], "instance_boxes": [[0, 0, 3, 3], [10, 0, 2, 2]],
         "Polygons": [[[[0, 0], [2.9, 0], [2, 2], [0, 2]]], [[[10, 0], [11, 0], [11, 1], [10, 1]], [[5, 5]]]]},
        {"task_id": "9__3", "image_id": 9, "phrase": "a line", "ann_ids": [3], "instance_boxes": [[0, 8, 5, 1]],
         "Polygons": [[[[0, 8], [4, 8]]]]},
    ]  # fmt: skip
    (tmp_path / "refer_test.json").write_text(json.dumps(tasks))
    Image.new("RGB", (20, 10)).save(tmp_path / "9.jpg")
    (sample,) = read_phrasecut(tmp_path / "refer_test.json", tmp_path).samples
    masks = sample.masks(sample.open().size[::-1])
    expected = torch.zeros(2, 10, 20)  # both instances of the phrase, borders included
    expected[0, :3, :3], expected[0, :2, 10:12], expected[1, 8, :5] = 1, 1, 1
    assert [region.texts for region in sample.regions] == [("two dogs",), ("a line",)] and torch.equal(masks, expected)


def test_a_smaller_limit_is_part_of_a_larger_one(tmp_path):
    path = drawn(tmp_path, pictures=6)
    dataset = read_coco(path, tmp_path)
    two, four = ({sample.name for sample in dataset.limited(n, seed=3).samples} for n in (2, 4))
    assert len(two) == 2 and two < four and dataset.limited(9, 0) is dataset


# Baselines


def test_crops_and_grey_by_hand(scene):
    image, masks = scene
    pixels = image.permute(2, 0, 1)
    boxes, cut, outside = (list(way(pixels, masks)) for way in (crop, masked_crop, grey))
    assert boxes[0].shape == (3, 40, 50) and torch.equal(boxes[0], pixels[:, 10:50, 10:60])
    torch.testing.assert_close(cut[1], pixels[:, 40:90, 70:120])  # the mask is its own box
    assert (outside[0][:, 60:] == 0.5).all()
    torch.testing.assert_close(outside[0][:, 10:50, 10:60], pixels[:, 10:50, 10:60])
    (circled, _) = red_circle(pixels, masks)
    assert circled[:, 10, 35].tolist() == [1, 0, 0] and circled[:, 30, 10].tolist() == [1, 0, 0]  # top and left of the box
    assert (circled[:, 30, 35] - pixels[:, 30, 35]).abs().max() < 1 / 255  # its middle is left alone


def test_pictures_together_are_as_one_by_one(bundled, scene):
    inverter = mi.MaskInverter(bundled)
    pixels = scene[0].permute(2, 0, 1)
    together = embed(crop(pixels, scene[1]), inverter)
    for cut, found in zip(crop(pixels, scene[1]), together, strict=True):
        torch.testing.assert_close(inverter.encode(cut.permute(1, 2, 0)).global_embedding, found, rtol=1e-4, atol=1e-4)
    aspect = mi.MaskInverter(bundled, fit="aspect")
    one = aspect.encode(scene[0]).global_embedding
    torch.testing.assert_close(embed([pixels, pixels[:, :40]], aspect)[0], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("vision", [{}, {"pool_type": "avg"}, {"ls_init_value": 0.3}], ids=str)
def test_maskclip_is_the_last_attentions_values(vision):
    clip = small_clip(**vision)
    image, masks = noise(48, 3)
    inverter = mi.MaskInverter(clip)
    visual, block = clip.model.visual, clip.model.visual.transformer.resblocks[-1]
    entering = inverter.encode(image).entering[1:]
    value = F.linear(block.ln_1(entering), *(p[-64:] for p in (block.attn.in_proj_weight, block.attn.in_proj_bias)))
    y = entering + block.ls_1(block.attn.out_proj(value))
    dense = F.normalize(visual.ln_post(y + block.ls_2(block.mlp(block.ln_2(y)))) @ visual.proj, dim=-1)
    covered = masks.unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4)).flatten(1)
    expected = (covered / covered.sum(1, keepdim=True)).double() @ dense
    torch.testing.assert_close(embeddings("maskclip", Picture(image), masks, inverter)[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_way_gives_an_embedding_for_every_mask(bundled, scene, method):
    found, iou = embeddings(method, Picture(scene[0]), scene[1], mi.MaskInverter(bundled, iterations=2))
    assert found.shape == (2, 64) and found.isfinite().all() and (iou is not None) == (method == "maskinversion")
    assert torch.equal(found[0], found[1]) == (method == "global")


# Other losses


LOSSES = {
    "dice": lambda e, m: 1 - (2 * (e * m).sum() + 1) / (e.sum() + m.sum() + 1),
    "mse": lambda e, m: F.mse_loss(e, m),
    "bce": lambda e, m: F.binary_cross_entropy(e.clamp(1e-3, 1 - 1e-3), m),
}


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_other_losses_equal_autograd(loss):
    generator = torch.Generator().manual_seed(3)
    masks = torch.rand(3, 20, 36, generator=generator, dtype=torch.float64)
    relevance = torch.rand(3, 45, generator=generator, dtype=torch.float64).requires_grad_()
    full = F.interpolate(relevance.unflatten(1, (5, 9))[None], size=(20, 36), mode="bilinear")[0]
    low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
    expected = torch.stack([LOSSES[loss](e, m) for e, m in zip((full - low) / (high - low), masks)])
    (gradient,) = torch.autograd.grad(expected.sum(), relevance)
    for objective, chosen in (
        (OBJECTIVES[loss](masks, (5, 9)), slice(None)),
        (OBJECTIVES[loss](masks, (5, 9)).select(slice(1, 3)), slice(1, 3)),
    ):
        found, pull = objective.evaluate(relevance.detach()[chosen])
        torch.testing.assert_close(found, expected.detach()[chosen], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pull, gradient[chosen], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_an_inverter_minimises_the_loss_it_is_given(loss):
    clip = small_clip()
    image, masks = noise(48, 3)
    inverter = mi.MaskInverter(clip, objective=OBJECTIVES[loss], lr=0.02)
    tokens = inverter.invert(inverter.encode(image), masks)
    first = LOSSES[loss](tokens.maps[0].double(), masks[0].double())
    torch.testing.assert_close(tokens.losses[-1, 0], first, rtol=1e-5, atol=1e-6)
    assert (tokens.losses[-1] < tokens.losses[0]).all() and mi.MaskInverter(clip).objective is OBJECTIVES["dice"]


# The run


def drawn(tmp_path, pictures=3):
    """A small data set of coloured squares, two or three a picture, named so that the bundled model has something to say."""
    rng = np.random.default_rng(0)
    content = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": n} for i, n in enumerate(("apple", "fox", "leaf"))],
    }
    refs = []
    for key in range(pictures):
        picture = rng.integers(0, 90, (40, 60, 3), dtype=np.uint8)
        content["images"].append({"id": key, "file_name": f"{key}.png", "height": 40, "width": 60})
        for i in range(2 + key % 2):
            picture[5 + 8 * i : 20 + 8 * i, 2 + 18 * i : 18 + 18 * i, i] = 220
            known = {"image_id": key, "category_id": i}
            content["annotations"].append(
                {"id": len(refs), "iscrowd": 0, "segmentation": [square(2 + 18 * i, 5 + 8 * i, 15)], **known}
            )
            refs.append({"ref_id": len(refs), "ann_id": len(refs), "split": "test", **known,
                         "sentences": [{"sent": f"the {('apple', 'fox', 'leaf')[i]}"}]})  # fmt: skip
        Image.fromarray(picture).save(tmp_path / f"{key}.png")
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    return path


def settings(tmp_path, **changes):
    given = dict(dataset="coco", annotations=tmp_path / "instances.json", images=tmp_path, out=tmp_path / "out", device="cpu",
                 methods=("global", "crop", "maskinversion"), iterations=(2,))  # fmt: skip
    return Settings(**(given | changes))


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch):
    drawn(tmp_path)
    whole = evaluate(settings(tmp_path, out=tmp_path / "whole"))
    seen = []

    def counted(method, picture, *rest, stop=None):
        if len(seen) == stop:
            raise KeyboardInterrupt
        seen.append(method)
        return embeddings(method, picture, *rest)

    monkeypatch.setattr(run_module, "embeddings", lambda *given: counted(*given, stop=5))
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(tmp_path))
    for path in (tmp_path / "out" / "results").iterdir():  # and as if it had been cut off in the middle of a line
        with path.open("a") as file:
            file.write('{"image": "2", "hi')
    monkeypatch.setattr(run_module, "embeddings", counted)
    again = evaluate(settings(tmp_path))
    assert len(seen) == 9 and again == whole  # 3 methods x 3 pictures: nothing twice, nothing left out
    evaluate(settings(tmp_path))
    assert len(seen) == 9
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report == whole and report["pictures"] == 3 and report["regions"] == 7
    assert [row["metrics"]["acc1"]["n"] for row in report["rows"]] == [7, 7, 7]
    assert "| maskinversion |" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    "changes",
    [{"iterations": (3,)}, {"lr": (0.2,)}, {"alpha": (1.0,)}, {"mask_quality": ("box",)}, {"image_size": (48,)},
     {"loss": ("mse",)}, {"templates": ("a {}",)}, {"fit": ("pad",)}, {"precision": "fast"}, {"layers": (2,)}],
    ids=str,
)  # fmt: skip
def test_changed_settings_never_mix(tmp_path, changes, monkeypatch):
    drawn(tmp_path, pictures=2)
    one = {"methods": ("maskinversion",), "iterations": (2,)}
    before = evaluate(settings(tmp_path, **one))
    calls = []
    monkeypatch.setattr(run_module, "embeddings", lambda *given: calls.append(given) or embeddings(*given))
    evaluate(settings(tmp_path, **(one | changes)))
    assert len(calls) == 2 and len(list((tmp_path / "out" / "results").iterdir())) == 2
    assert evaluate(settings(tmp_path, **one)) == before and len(calls) == 2


def test_results_of_another_arithmetic_are_not_gone_on_with(tmp_path, monkeypatch):
    drawn(tmp_path, pictures=1)
    report = evaluate(settings(tmp_path, methods=("maskinversion",)))
    assert report["arithmetic"]["threads"] == torch.get_num_threads()
    assert f"Computed with torch {torch.__version__}" in (tmp_path / "out" / "report.md").read_text()
    other = report["arithmetic"] | {"threads": 99, "products": "another"}
    monkeypatch.setattr(run_module, "arithmetic", lambda device: other)
    with pytest.raises(mi.InputError, match=r"begun with .*threads \d+, .* and this is .*products another, threads 99, .* folder"):
        evaluate(settings(tmp_path, methods=("maskinversion",)))
    monkeypatch.undo()
    assert evaluate(settings(tmp_path, methods=("maskinversion",))) == report


def test_changed_annotations_never_mix(tmp_path):
    path = drawn(tmp_path, pictures=2)
    evaluate(settings(tmp_path, methods=("global",)))
    content = json.loads(path.read_text())
    content["annotations"].pop()
    path.write_text(json.dumps(content))
    assert evaluate(settings(tmp_path, methods=("global",)))["rows"][0]["metrics"]["acc1"]["n"] == 4
    assert len(list((tmp_path / "out" / "results").iterdir())) == 2


def test_a_damaged_result_is_said(tmp_path):
    drawn(tmp_path, pictures=1)
    evaluate(settings(tmp_path, methods=("global",)))
    (path,) = (tmp_path / "out" / "results").iterdir()
    path.write_text("{\n" + path.read_text())
    with pytest.raises(mi.InputError, match=r"is damaged .* delete it"):
        evaluate(settings(tmp_path, methods=("global",)))


def test_every_combination_is_a_row_once(tmp_path):
    made = settings(tmp_path, mask_quality=("exact", "eroded"), iterations=(1, 10), alpha=(0.0, 5.0), image_size=(None, 48))
    rows = rows_of(made)
    assert len(rows) == 2 * (1 + 2 + 2 * 4)  # sizes x (global once, crops by quality, tokens by quality, K and alpha)
    assert Row("global") in rows and Row("crop", "eroded", 0.1, 48) in rows
    assert {row.alpha for row in rows_of(settings(tmp_path, dataset="phrasecut"))} == {None, 5.0}


def test_expressions_end_to_end(tmp_path, capsys):
    drawn(tmp_path)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(
        ["refcoco", "--refs", str(tmp_path / "refs.json"), "--annotations", str(tmp_path / "instances.json"), "--images",
         str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu", "--split", "test", "--one-to-one", "--methods", "global",
         "maskclip", "maskinversion", "--alpha", "0", "5", "--iterations", "2", "--limit", "2"]
    )  # fmt: skip
    report = evaluate(settings_of(args))
    assert report["pictures"] == 2 and [row["alpha"] for row in report["rows"]] == [None, None, 0.0, 5.0]
    # The global embedding cannot tell the regions of a picture apart: of P phrases, each finds its region with 1 / P.
    assert report["rows"][0]["metrics"]["region"]["value"] == pytest.approx(2 / report["regions"])
    assert all(set(row["metrics"]) == {"phrase", "region", "assigned"} for row in report["rows"])
    words = capsys.readouterr().out
    assert "maskinversion (alpha 5.0)" in words and "mask to phrase by regions in the picture" in words


def test_an_empty_mask_is_left_out_and_counted(tmp_path):
    path = drawn(tmp_path, pictures=1)
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1, 1, 1, 1]]
    path.write_text(json.dumps(content))
    report = evaluate(settings(tmp_path, methods=("global",)))
    assert report["empty_masks"] == 1 and report["regions"] == 1 and report["rows"][0]["metrics"].keys() == {"acc1", "acc5"}


def test_what_can_be_chosen_is_what_there_is():
    assert (*WAYS, "maskinversion") == METHODS and tuple(OBJECTIVES) == choices.LOSSES


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"methods": ("magic",)}, "no method 'magic'; there are global"), ({"loss": ("l1",)}, "no loss 'l1'"),
     ({"mask_quality": ("soft",)}, "no mask quality"), ({"dataset": "ade"}, "no data set 'ade'"),
     ({"dataset": "refcoco"}, r"give refs\(unc\).p"), ({"limit": 0}, "at least 1")],
)  # fmt: skip
def test_settings_that_cannot_be(tmp_path, changes, message):
    with pytest.raises(mi.InputError, match=message):
        settings(tmp_path, **changes)


def test_expressions_of_drawn_scenes_are_unambiguous(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from recipes.data.make_dataset import expressions

    # Side by side on 96 px: 50 px apart, one 20 x 20 and one 30 x 30, that is 2.25 times the area.
    names, boxes, areas = ["fox", "fox", "cat"], [(0, 0, 20, 20), (45, 0, 30, 30), (0, 60, 20, 20)], [400, 900, 400]
    assert expressions(0, names, boxes, areas, False) == ["the left fox", "the small fox", "the small fox on the left"]
    assert expressions(1, names, boxes, areas, True) == ["the right fox"]  # its other half may be hidden
    assert expressions(2, names, boxes, areas, False) == ["the cat"]
    # 10 px apart and of one size: nothing that means one only.
    assert expressions(0, ["fox", "fox"], [(0, 0, 20, 20), (10, 0, 20, 20)], [400, 400], False) == []
