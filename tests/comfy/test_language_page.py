"""A node's names and its help page in each language, in ComfyUI's real page in a real browser."""

import json
import os
import shutil
import urllib.request

import pytest

from tests.comfy.test_page import BROWSERS, FLAGS
from tools.comfyui_server import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]

READY = "window.app && window.app.graph && window.app.canvas && window.app.extensionManager"
NODE = "MaskInversionLoadCLIP"
PUT_A_NODE = f"""() => {{
    const node = window.LiteGraph.createNode("{NODE}")
    node.pos = [300, 300]
    window.app.graph.add(node)
    window.app.canvas.selectItems([node])
    return node.title
}}"""


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


def set_language(server, language: str) -> None:
    data = json.dumps(language).encode()
    request = urllib.request.Request(f"{server.url}/settings/Comfy.Locale", data, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=60).close()


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_a_node_and_its_help_are_in_the_language_of_the_page(language, browser, server):
    set_language(server, language)
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    try:
        page.goto(server.url, timeout=120_000)
        page.wait_for_function(READY, timeout=120_000)
        page.wait_for_timeout(3000)
        page.keyboard.press("Escape")
        names = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[NODE]
        assert page.evaluate(PUT_A_NODE) == names["display_name"]
        page.get_by_test_id("info-button").click(timeout=30_000)
        example = (ROOT / "web" / "docs" / NODE / f"{language}.md").read_text(encoding="utf-8").rstrip().splitlines()[-1]
        page.get_by_text(example.partition("**")[0].strip()[:12]).first.wait_for(timeout=30_000)
    finally:
        if keep := os.environ.get("MASKINVERSION_SCREENSHOT"):
            page.screenshot(path=f"{keep}-{language}.png")
        page.close()
        set_language(server, "en")
