"""A node's names and its help page in each language, in ComfyUI's real page in a real browser."""

import json

import pytest

from tests.helpers.browser import browser, open_page, photograph, set_up
from tools.comfyui_server import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NODE = "MaskInversionLoadCLIP"
PUT_A_NODE = f"""() => {{
    window.app.graph.clear()
    const node = window.LiteGraph.createNode("{NODE}")
    node.pos = [300, 300]
    window.app.graph.add(node)
    window.app.canvas.selectItems([node])
    return node.title
}}"""


@pytest.fixture(scope="module")
def opened():
    with browser() as running:
        yield running


def titles(server, language: str) -> dict[str, str]:
    if language == "en":
        return server.get(f"/object_info/{NODE}")[NODE]
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[NODE]


@pytest.mark.parametrize("language", ["en", "zh", "ja"])
def test_a_node_and_its_help_are_in_the_language_of_the_page(language, opened, server):
    set_up(server, "Comfy.Locale", language)
    page = open_page(opened, server)
    try:
        assert page.evaluate(PUT_A_NODE) == titles(server, language)["display_name"]
        page.get_by_test_id("info-button").click(timeout=30_000)
        help_page = ROOT / "web" / "docs" / (f"{NODE}.md" if language == "en" else f"{NODE}/{language}.md")
        example = help_page.read_text(encoding="utf-8").rstrip().splitlines()[-1]
        page.get_by_text(example.partition("**")[0].strip()[:12]).first.wait_for(timeout=30_000)
        photograph(page, f"help, {language}")
    finally:
        page.close()
        set_up(server, "Comfy.Locale", "en")
