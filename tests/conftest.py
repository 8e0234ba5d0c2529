import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the library, as on an engineer's path; ComfyUI itself never does this

import maskinversion as mi


@pytest.fixture(scope="session")
def bundled() -> mi.Clip:
    return mi.load_clip("bundled", device="cpu")


@pytest.fixture
def scene():
    """A picture [96, 128, 3] of two rectangles, and their masks [2, 96, 128]."""
    generator = torch.Generator().manual_seed(0)
    image = 0.2 * torch.rand(96, 128, 3, generator=generator)
    masks = torch.zeros(2, 96, 128)
    masks[0, 10:50, 10:60] = 1
    masks[1, 40:90, 70:120] = 1
    image[masks[0] > 0] += torch.tensor([0.7, 0.1, 0.1])
    image[masks[1] > 0] += torch.tensor([0.1, 0.1, 0.7])
    return image, masks
