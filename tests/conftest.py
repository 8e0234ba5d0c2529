from pathlib import Path

import pytest
import torch

import maskinversion as mi
from maskinversion.files import CACHE

TESTS = Path(__file__).parent
MARKED_FOLDERS = ("comfy", "reference")


def pytest_collection_modifyitems(items):
    """A folder's tests have the marker of its name."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKED_FOLDERS:
            item.add_marker(folder)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """What is kept from run to run is kept for one run, and not in the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def bundled() -> mi.Clip:
    return mi.load_clip("bundled", device="cpu")


@pytest.fixture(scope="module")
def own_pickles():
    """Any PyTorch reads the pickles that the module's tests wrote themselves."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("weights", "loading"):
            patch.setattr(f"maskinversion.models.{module}.pickles_are_unsafe", lambda: False)
        yield


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
