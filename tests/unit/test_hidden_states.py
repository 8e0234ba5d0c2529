"""The rows of regions: which, how many, in which order, and what they are multiplied by."""

import pytest
import torch

import maskinversion as mi
from maskinversion.hidden_states import WAYS, coverage, region_rows

GRID = (3, 4)
STATES = torch.arange(13.0)[:, None] * torch.tensor([1.0, -1.0]) + 1  # a row for the class, 1, and for patches 2 to 13


def covered(*texts: str) -> torch.Tensor:
    """How much of every patch is covered: a number is tenths, a dot is nothing, * is all."""
    digits = {".": 0.0, "*": 1.0}
    return torch.tensor([[[digits.get(mark, int(mark) / 10 if mark.isdigit() else 0) for mark in line] for line in text.split()]
                         for text in texts])  # fmt: skip


def rows(way: str, *texts: str, prefix: int = 1, threshold: float = 0.5) -> list[list[float]]:
    """The first number of the rows of every region."""
    (found,) = region_rows(way, [covered(*texts)], prefix, threshold)
    return found.of(STATES[1 - prefix :])[..., 0].tolist()


def test_coverage_is_the_mean_over_each_patch():
    masks = torch.rand(2, 24, 32, generator=torch.Generator().manual_seed(0))
    expected = masks.unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4))
    torch.testing.assert_close(coverage(masks, GRID), expected)


def test_whole_is_all_of_the_picture_for_each_and_no_copy():
    (found,) = region_rows("whole", [covered("*... .... ....", ".... .... ...*")], 1)
    assert torch.equal(found.of(STATES), STATES.expand(2, 13, 2)) and found.of(STATES).data_ptr() == STATES.data_ptr()


@pytest.mark.parametrize("way", ["map", "mask"])
def test_fading_multiplies_patches_and_leaves_the_class_as_it_is(way):
    (found,) = rows(way, "*5.. .... ...2")
    assert found == pytest.approx([1, 2, 1.5, *[0] * 9, 0.2 * 13])


def test_patches_are_those_that_the_mask_covers_in_their_order():
    assert rows("patches", ".**. .46. ....") == [[1, 3, 4, 8]]
    assert rows("patches", ".**. .46. ....", threshold=0.4) == [[1, 3, 4, 7, 8]]
    assert rows("patches", ".**. .46. ....", threshold=0) == [[1, 3, 4, 7, 8]]
    assert rows("patches", ".**. .46. ....", threshold=1) == [[1, 3, 4]]
    assert rows("patches", ".**. .46. ....", prefix=0) == [[3, 4, 8]]


def test_a_region_smaller_than_a_patch_keeps_the_patch_that_it_is_in():
    assert rows("patches", ".... .21. ....") == [[1, 7, 8]]
    assert rows("patches", ".... .21. ....", threshold=0.6) == [[1, 7]]


def test_fewer_patches_than_another_region_are_repeated_evenly():
    assert rows("patches", "**** *... ....", ".... .... .5*.") == [[1, 2, 3, 4, 5, 6], [1, 11, 11, 11, 12, 12]]


def test_a_box_has_all_rows_of_its_patches_from_left_to_right():
    (found,) = region_rows("box", [covered(".*.. ..*. ....")], 1)
    assert found.grid == (2, 2) and found.of(STATES)[0, :, 0].tolist() == [1, 3, 4, 7, 8]


def test_boxes_grow_to_the_largest_and_stay_on_the_grid():
    (found,) = region_rows("box", [covered("*... *... *...", ".... .... ..**", ".*.. .... ....")], 1)
    assert found.grid == (3, 2)
    assert found.of(STATES)[..., 0].tolist() == [
        [1, 2, 3, 6, 7, 10, 11], [1, 4, 5, 8, 9, 12, 13], [1, 3, 4, 7, 8, 11, 12],
    ]  # fmt: skip


def test_regions_of_several_pictures_have_as_many_rows():
    first, second = region_rows("patches", [covered("**.. .... ....", "*... .... ...."), covered("**** .... ....")], 1)
    assert first.of(STATES)[..., 0].tolist() == [[1, 2, 2, 3, 3], [1, 2, 2, 2, 2]]
    assert second.of(STATES)[..., 0].tolist() == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("way", WAYS)
def test_states_of_all_blocks_at_once_are_those_of_each(way):
    blocks = torch.stack([STATES, 2 * STATES, -STATES])
    (found,) = region_rows(way, [covered("**.. 3... ....", "...* ...* ....")], 1)
    together = found.of(blocks)
    assert together.shape[:2] == (2, 3)
    for number, block in enumerate(blocks):
        assert torch.equal(together[:, number], found.of(block))


@pytest.mark.parametrize("way", ["map patches", "patches", "box"])
def test_what_is_left_out_has_no_influence(way):
    (found,) = region_rows(way, [covered(".**. .**. ....")], 1)
    spoilt = STATES.clone()
    outside = torch.tensor([1, 4, 5, 8, 9, 10, 11, 12])
    spoilt[outside] = torch.nan
    assert torch.equal(found.of(spoilt), found.of(STATES)) and found.of(STATES).shape == (1, 5, 2)


def test_a_quarter_of_a_picture_of_siglip_is_about_a_quarter_of_its_rows():
    mask = torch.zeros(1, 378, 378)
    mask[:, :189, :189] = 1  # 13.5 patches of 14 px each way
    for threshold, side in ((0.5, 14), (1, 13)):
        (found,) = region_rows("patches", [coverage(mask, (27, 27))], 0, threshold)
        assert found.of(torch.zeros(729, 1152)).shape == (1, side * side - (threshold == 0.5), 1152)  # a corner is covered by .25


def test_another_way_or_threshold_is_refused():
    with pytest.raises(mi.InputError, match=r"'pixels'.*whole, map, mask, map patches, patches, box"):
        region_rows("pixels", [covered("*... .... ....")], 1)
    with pytest.raises(mi.InputError, match=r"threshold is 1\.5"):
        region_rows("patches", [covered("*... .... ....")], 1, 1.5)
