"""The picture of all maps of an inversion."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from maskinversion.drawing.overlay import overlay
from maskinversion.drawing.summary import BRIGHT, CURVE, GAP, MOST, SMALLEST, TITLE, Cell, as_tensor, draw_summary, map_size

LOSSES = [0.8, 0.4, 0.2]


def cell(size=(144, 144), losses=LOSSES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size)
    mask[: size[0] // 2, : size[1] // 2] = 1
    return Cell(torch.rand(*size, 3, generator=generator), torch.rand(size, generator=generator), mask, 0.5, losses)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("count", [1, 2, 3, 7, MOST])
def test_every_map_is_there_with_its_mask(count):
    cells = [cell(seed=number) for number in range(count)]
    sheet = pixels(draw_summary(cells, count))
    width, height = 144 + GAP, 144 + TITLE + CURVE + GAP
    columns = (sheet.shape[1] - GAP) // width
    for number, one in enumerate(cells):
        left, top = GAP + number % columns * width, GAP + number // columns * height + TITLE
        seen = overlay(one.image, one.heat, one.mask).numpy() * 255
        assert np.abs(sheet[top : top + 144, left : left + 144] - seen).max() <= 0.5
    assert columns * math.ceil(count / columns) - count < columns  # no empty row


def test_a_curve_falls_with_its_loss_and_all_have_one_scale():
    high, low = cell(losses=[0.8] * 9), cell(losses=[0.4] * 9)
    sheet = pixels(draw_summary([high, low], 2))

    def lows(left):
        below = sheet[GAP + TITLE + 144 :, left : left + 144]
        return np.nonzero((below == BRIGHT).all(-1).any(1))[0].mean()

    assert lows(GAP) < lows(2 * GAP + 144)
    falling = pixels(draw_summary([cell()], 1))[GAP + TITLE + 144 :, GAP : GAP + 144]
    rows = [np.nonzero((falling[:, column] == BRIGHT).all(-1))[0].mean() for column in (0, 70, 140)]
    assert rows == sorted(rows) and rows[0] < rows[-1]


@pytest.mark.parametrize("losses", [[], [math.nan, 1.0], [0.0, 0.0], [0.3]])
def test_a_loss_that_is_no_curve_costs_nothing(losses):
    assert draw_summary([cell(losses=losses)], 1).width == 144 + 2 * GAP


def test_what_is_not_drawn_is_counted():
    assert draw_summary([cell()], 9).height == draw_summary([cell()], 1).height + TITLE


def test_pictures_of_several_sizes_go_together():
    sheet = draw_summary([cell((40, 200)), cell((200, 40))], 2)
    assert sheet.width >= 200 and as_tensor(sheet).shape == (sheet.height, sheet.width, 3)


@pytest.mark.parametrize(("size", "count"), [((10, 8), 1), ((4000, 3000), 1), ((1, 5000), 3), ((3000, 4000), MOST)])
def test_maps_are_small_keep_their_shape_and_are_never_enlarged(size, count):
    height, width = map_size(size, count)
    assert 1 <= height <= size[0] and 1 <= width <= size[1] and max(height, width) <= 288
    assert count == 1 or max(height, width) >= SMALLEST or max(height, width) == max(size)
    if min(height, width) > 10:
        assert abs(height / width - size[0] / size[1]) < 0.05
