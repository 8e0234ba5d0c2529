"""Chinese and Japanese: every name, tooltip and help page is there, and none is left over of what has gone."""

import json
import re

import pytest

from tools.comfyui_server import ROOT

LANGUAGES = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


@pytest.fixture(scope="module")
def nodes(server) -> dict[str, dict]:
    return {name: node for name, node in server.get("/object_info").items() if name.startswith("MaskInversion")}


def inputs_of(spec: dict, before: str = "") -> dict[str, str]:
    """The tooltip of every input, by the page's key for it."""
    found = {}
    for name, (kind, *options) in {**spec.get("required", {}), **spec.get("optional", {})}.items():
        key = f"{before}{name}".replace(".", "_")
        settings = options[0] if options else {}
        found[key] = settings.get("tooltip", "")
        for option in settings.get("options", []) if kind == DYNAMIC else []:
            found |= inputs_of(option["inputs"], f"{key}_")
    return found


def keys(tree: dict, before: str = "") -> set[str]:
    """All paths that lead to a text."""
    return {
        path
        for name, value in tree.items()
        for path in (keys(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}"})
    }


def texts(tree: dict, before: str = "") -> dict[str, str]:
    found = {}
    for name, value in tree.items():
        found |= texts(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def expected(nodes: dict[str, dict]) -> set[str]:
    found = set()
    for name, node in nodes.items():
        found |= {f"{name}.display_name", f"{name}.description"}
        for key in inputs_of(node["input"]):
            found |= {f"{name}.inputs.{key}.name", f"{name}.inputs.{key}.tooltip"}
        for number in range(len(node["output"])):
            found |= {f"{name}.outputs.{number}.name", f"{name}.outputs.{number}.tooltip"}
    return found


def read(language: str, file: str) -> dict:
    return json.loads((ROOT / "locales" / language / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_name_and_tooltip_is_there_and_none_is_left_over(language, nodes):
    assert keys(read(language, "nodeDefs.json")) == expected(nodes)


@pytest.mark.parametrize(("language", "letters"), LANGUAGES.items())
def test_they_are_in_that_language(language, letters):
    for key, text in texts(read(language, "nodeDefs.json")).items():
        assert text.strip() == text != "", key
        assert re.search(letters, text) or key.endswith(".name") or key == "MaskInversion.display_name", f"{key}: {text}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_category_has_a_name(language, nodes):
    parts = {part for node in nodes.values() for part in node["category"].split("/")}
    assert set(read(language, "main.json")["nodeCategories"]) == parts


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_server_hands_them_to_the_page(language, server):
    given = server.get("/i18n")[language]
    assert given["nodeDefs"] == read(language, "nodeDefs.json")
    assert given["nodeCategories"] == read(language, "main.json")["nodeCategories"]


@pytest.mark.parametrize(("language", "letters"), LANGUAGES.items())
def test_every_node_has_a_help_page_that_names_all_of_its_inputs_and_outputs(language, letters, nodes):
    docs = ROOT / "web" / "docs"
    assert {path.parent.name for path in docs.glob(f"*/{language}.md")} == set(nodes)
    names = read(language, "nodeDefs.json")
    for name, node in nodes.items():
        page = (docs / name / f"{language}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {names[name]['display_name']}\n") and len(re.findall(letters, page)) > 60, name
        dynamic = [key for key, spec in node["input"].get("required", {}).items() if spec[0] == DYNAMIC]
        for key in inputs_of(node["input"]):
            short = next((key.removeprefix(f"{one}_") for one in dynamic if key.startswith(f"{one}_")), key)
            assert f"**{short}**" in page, f"{name}: {short}"
        for output in node["output_name"]:
            assert f"**{output}**" in page, f"{name}: {output}"
