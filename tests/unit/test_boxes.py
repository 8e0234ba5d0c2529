"""Boxes in every notation, the Impact Pack's segments, and label maps in colours."""

import json
import math
from collections import namedtuple

import numpy as np
import pytest
import torch

import maskinversion as mi
from maskinversion.pictures import Box, box_mask, box_of, colour_masks, is_segments, read_boxes, segment_masks

SEG = namedtuple(  # as the Impact Pack defines it
    "SEG",
    ["cropped_image", "cropped_mask", "confidence", "crop_region", "bbox", "label", "control_net_wrapper"],
    defaults=[None],
)
ONE = {"x": 2, "y": 1, "width": 4, "height": 3}
CORNERS = [2, 1, 6, 4]


@pytest.mark.parametrize(
    ("given", "counts"),
    [
        (ONE, [1]),
        ([ONE, ONE], [2]),
        ([[ONE], [], [ONE, ONE]], [1, 0, 2]),
        ([], [0]),
        (CORNERS, [1]),
        ([CORNERS, CORNERS], [2]),
        ([[CORNERS], [CORNERS]], [1, 1]),
        (np.array([CORNERS, CORNERS]), [2]),
        ([np.array(CORNERS)], [1]),
        (torch.tensor([[CORNERS]]), [1]),
        (list(np.array(CORNERS, np.float32)), [1]),
        ([list(np.array(CORNERS)), list(torch.tensor(CORNERS))], [2]),
        ({"bboxes": [CORNERS], "labels": ["cat"]}, [1]),
        ([{"bboxes": [CORNERS], "labels": ["cat"]}, {"bboxes": [], "labels": []}], [1, 0]),
        (json.dumps([[CORNERS, CORNERS]]), [2]),
        ([[CORNERS, CORNERS]], [2]),
    ],
)
def test_every_notation_is_the_same_box(given, counts):
    found = read_boxes(given)
    assert [len(frame) for frame in found] == counts
    assert all((box.x, box.y, box.width, box.height) == (2, 1, 4, 3) for frame in found for box in frame)


def test_labels_and_scores_are_kept():
    ((first,),) = read_boxes([[ONE | {"label": "cat", "score": 0.5}]])
    ((second,),) = read_boxes({"bboxes": [CORNERS], "labels": ["a dog"]})
    assert first.as_dict() == ONE | {"label": "cat", "score": 0.5} and second.label == "a dog"
    assert Box(0, 0, 1, 1).as_dict() == {"x": 0, "y": 0, "width": 1, "height": 1, "score": 1.0}


@pytest.mark.parametrize(
    "given",
    [None, 3, "no JSON", "[" * 5000, {"x": 1}, [{"x": 1}], [[1, 2, 3]], ONE | {"x": "left"}, ONE | {"width": 0}, [1, 1, 1, 5],
     ONE | {"height": -1}, ONE | {"x": math.nan}, [0, 0, math.inf, 1], ["ab"], {"bboxes": 3}, [np.float32(1)] * 3],
)  # fmt: skip
def test_what_is_no_box_is_explained(given):
    with pytest.raises(mi.InputError, match="box"):
        read_boxes(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([300, 200, 50, 250], "write {'x': 300, 'y': 200, 'width': 50, 'height': 250}"),
        ([[2, 1, 6, 4], [200, 300, 250, 50]], "write {'x': 200, 'y': 300, 'width': 250, 'height': 50}"),
        ([0.1, 0.2, 0.5, 0.6], "in parts of the picture, multiply it by"),
        ({"x": 0, "y": 0, "width": 1, "height": 1}, "in parts of the picture, multiply it by"),
    ],
)
def test_boxes_of_another_kind_are_refused_with_what_they_may_be(given, said):
    with pytest.raises(mi.InputError, match=said):
        read_boxes(given)


def test_a_box_covers_its_pixels_and_parts_of_them():
    mask = box_mask(Box(1, 0, 2, 3), (4, 5))
    expected = torch.zeros(4, 5)
    expected[:3, 1:3] = 1
    assert torch.equal(mask, expected)
    soft = box_mask(Box(0.5, 0.25, 1, 0.5), (2, 2))
    torch.testing.assert_close(soft, torch.tensor([[0.25, 0.25], [0.0, 0.0]]))
    assert float(box_mask(Box(-5, -5, 100, 100), (4, 5)).min()) == 1
    assert not box_mask(Box(9, 0, 2, 2), (4, 5)).any()


def test_masks_and_boxes_go_into_one_another():
    box = Box(3, 1, 4, 5)
    assert box_of(box_mask(box, (8, 9))) == box
    assert box_of(torch.zeros(3, 3)) is None
    mask = torch.zeros(6, 6)
    mask[2, 3] = 0.6
    mask[5, 5] = 0.2
    assert box_of(mask) == Box(3, 2, 1, 1)


def segments(mask, region=(2, 1, 6, 4), size=(8, 10)):
    return size, [SEG(None, mask, 0.9, region, list(region), "cat")]


@pytest.mark.parametrize("kind", [np.float32, np.uint8, torch.float32, "batch"])
def test_segments_are_put_back_into_their_picture(kind):
    cropped = np.zeros((3, 4), np.float32)
    cropped[1:, :2] = 1
    if kind == "batch":
        given = torch.from_numpy(cropped)[None]
    elif kind is torch.float32:
        given = torch.from_numpy(cropped)
    else:
        given = (cropped * (255 if kind is np.uint8 else 1)).astype(kind)
    assert is_segments(segments(given))
    ((mask, label),) = segment_masks(segments(given))
    expected = torch.zeros(8, 10)
    expected[2:4, 2:4] = 1
    assert torch.equal(mask, expected) and label == "cat"


def test_segments_that_do_not_fit_are_explained():
    with pytest.raises(mi.InputError, match="4 x 3 px for a region of 5 x 3"):
        segment_masks(segments(np.ones((3, 4), np.float32), (2, 1, 7, 4)))
    with pytest.raises(mi.InputError, match="picture of 5 x 8"):
        segment_masks(segments(np.ones((3, 4), np.float32), size=(8, 5)))
    with pytest.raises(mi.InputError, match="no mask"):
        segment_masks(segments(None))
    for region in (None, (2, 1, 6), (2, 1, float("nan"), 4)):
        with pytest.raises(mi.InputError, match=r"segment 0 has the region .*make the segments again"):
            segment_masks(((8, 10), [SEG(None, np.ones((3, 4), np.float32), 0.9, region, [], "cat")]))
    with pytest.raises(mi.InputError, match="SEGS are of a picture of the size None"):
        segment_masks(segments(np.ones((3, 4), np.float32), size=None))
    for other in ([ONE], (3, 4), ((8, 10), [ONE]), torch.zeros(2, 2, 2), (torch.zeros(1), 3)):
        assert not is_segments(other)
    assert is_segments(((8, 10), []))


@pytest.fixture
def colours():
    picture = torch.zeros(10, 10, 3)
    picture[:4] = torch.tensor([192, 0, 128]) / 255
    picture[8:, :5] = torch.tensor([255, 255, 255]) / 255
    picture[9, 9] = torch.tensor([1, 2, 3]) / 255
    return picture


def test_a_region_of_a_label_map_is_a_colour(colours):
    found = colour_masks(colours)
    assert set(found) == {"#c00080", "#ffffff", "#010203"}
    assert found["#c00080"].sum() == 40 and found["#c00080"][:4].all()
    assert set(colour_masks(colours, least=0.02)) == {"#c00080", "#ffffff"}
    assert list(colour_masks(colours, ["255", "#c00080"])) == ["#ffffff", "#c00080"]
    assert colour_masks(colours, ["#000000"])["#000000"].sum() == 49


def test_greys_of_a_label_map_are_ids():
    ids = torch.tensor([[0, 15], [255, 2]])
    picture = (ids / 255)[..., None].expand(-1, -1, 3)
    assert list(colour_masks(picture)) == ["2", "15"]  # 255 is where VOC has no label
    assert colour_masks(picture, ["255"])["255"].tolist() == [[False, False], [True, False]]


def test_what_is_no_label_map_is_explained(colours):
    with pytest.raises(mi.InputError, match="as a photo has"):
        colour_masks(torch.rand(40, 40, 3))
    with pytest.raises(mi.InputError, match="0 all over"):
        colour_masks(torch.zeros(4, 4, 3))
    with pytest.raises(mi.InputError, match="no label #070707; it has #"):
        colour_masks(colours, ["7"])
    for name in ("red", "#12", "#gggggg"):
        with pytest.raises(mi.InputError, match="is no label"):
            colour_masks(colours, [name])
