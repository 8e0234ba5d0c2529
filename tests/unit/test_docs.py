"""What the docs say that can be checked."""

import json
from pathlib import Path

import open_clip
import pytest
from torch.torch_version import TorchVersion

from tests.helpers import supported
from tests.helpers.graphs import WORKFLOWS

FILES = (".safetensors", ".ckpt", ".bin")


@pytest.mark.skipif(TorchVersion(open_clip.__version__) < "3.3", reason="the docs count the architectures of open_clip 3.3")
def test_the_table_of_models_is_what_the_tests_run():
    assert supported.table() in (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("template", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_a_template_says_where_each_of_its_files_is_published(template):
    """To the page, which offers the download, and to a person who reads the note."""
    nodes = json.loads(template.read_text(encoding="utf-8"))["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    models = {model["name"]: model for node in nodes for model in node["properties"].get("models", [])}
    asked = {value for node in nodes for value in node.get("widgets_values") or [] if str(value).endswith(FILES)}
    assert asked <= models.keys()
    for name, model in models.items():
        assert model["url"].startswith("https://huggingface.co/") and Path(model["url"]).suffix == Path(name).suffix
        assert f"[{name}]({model['url']})" in note and f"**models/{model['directory']}**" in note
