"""What is drawn on pictures."""

import pytest
import torch
import torch.nn.functional as F

from maskinversion.drawing.overlay import outline


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (300, 451), (1000, 777), (5, 2000), (160, 1)])
def test_the_outline_is_what_a_square_window_finds(size):
    """Pixels outside of a mask with a pixel of it in the square around them, pooled by brute force."""
    width = max(1, min(size) // 150)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mask = F.interpolate(torch.rand(1, 1, 4, 6, generator=generator), size=size, mode="bilinear")[0, 0]
        inside = (mask >= 0.5).float()
        grown = F.max_pool2d(inside[None, None], 2 * width + 1, stride=1, padding=width)[0, 0]
        assert torch.equal(outline(mask), grown - inside)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float16, torch.float64])
def test_a_mask_of_any_type_has_an_outline(dtype):
    mask = torch.zeros(40, 40)
    mask[10:20, 10:20] = 1
    found = outline(mask.to(dtype))
    assert found.is_floating_point() and found.sum() == 12 * 12 - 10 * 10
