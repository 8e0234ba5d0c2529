"""The workflow in ComfyUI's real page, in a real browser. Set MASKINVERSION_SCREENSHOT to keep the picture."""

import json
import os
import shutil

import pytest

from tests.helpers.graphs import WORKFLOW
from tools.comfyui_server import Server, as_api, read_history

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture
def opened(tmp_path):
    """A server, and its page in a browser."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser_path is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with Server(tmp_path / "base") as server, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 900})
        page.goto(server.url, timeout=120_000)
        page.wait_for_function("window.app && window.app.graph && window.app.canvas", timeout=120_000)
        page.wait_for_timeout(3000)
        page.keyboard.press("Escape")
        yield server, page
        browser.close()


def test_the_workflow_runs_from_the_page(opened, tmp_path):
    server, page = opened
    page.evaluate("w => window.app.loadGraphData(w)", json.loads(WORKFLOW.read_text(encoding="utf-8")))
    page.wait_for_timeout(2000)
    page.evaluate("() => window.app.queuePrompt(0, 1)")
    history = {}
    for _ in range(240):
        history = server.get("/history")
        if history:
            break
        page.wait_for_timeout(500)
    run = read_history(next(iter(history.values())))
    assert not run.error and any("images" in output for output in run.outputs.values())
    page.wait_for_timeout(2000)
    page.keyboard.press("Escape")
    page.keyboard.press(".")
    page.wait_for_timeout(2500)
    page.screenshot(path=os.environ.get("MASKINVERSION_SCREENSHOT", str(tmp_path / "page.png")))


def test_the_page_reads_every_workflow_as_the_tests_do(opened):
    """So what the tests run without a page is what people run; but for nodes of packs that are not here."""
    server, page = opened
    known = server.get("/object_info")
    for path in sorted(WORKFLOW.parent.glob("*.json")):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        page.evaluate("w => window.app.loadGraphData(w)", workflow)
        page.wait_for_timeout(1500)
        seen = page.evaluate("async () => (await window.app.graphToPrompt()).output")
        for name, entry in as_api(workflow).items():
            if entry["class_type"] in known:
                assert seen[name]["inputs"] == entry["inputs"], (path.stem, entry["class_type"])
