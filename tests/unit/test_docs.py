"""What the docs say that can be checked."""

from pathlib import Path

import open_clip
import pytest
from torch.torch_version import TorchVersion

from tests.helpers import supported


@pytest.mark.skipif(TorchVersion(open_clip.__version__) < "3.3", reason="the docs count the architectures of open_clip 3.3")
def test_the_table_of_models_is_what_the_tests_run():
    assert supported.table() in (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
