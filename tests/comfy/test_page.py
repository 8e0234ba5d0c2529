"""The workflow in ComfyUI's real page, in a real browser. Set MASKINVERSION_SCREENSHOT to keep the picture."""

import json
import os
import shutil

import pytest

from maskinversion.settings import PRESETS
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


VALUES = """() => Object.fromEntries(
    window.app.graph.nodes.find((node) => node.type === "MaskInversion").widgets.map((widget) => [widget.name, widget.value]))"""
CHOOSE = """([name, value]) => {
    const widget = window.app.graph.nodes.find((node) => node.type === "MaskInversion").widgets.find((one) => one.name === name)
    widget.value = value
    widget.callback(value)
}"""


def test_presets_fill_in_values_that_stay_free_to_change(opened):
    _, page = opened
    page.evaluate("() => { window.app.graph.clear(); window.app.graph.add(window.LiteGraph.createNode('MaskInversion')) }")
    fresh = page.evaluate(VALUES)
    assert fresh["preset"] == "Region" and fresh.items() >= PRESETS["region"].items()
    for name, title in (("context", "Keep context"), ("published", "Region, as published"), ("balanced", "Balanced")):
        page.evaluate(CHOOSE, ["preset", title])
        assert page.evaluate(VALUES).items() >= PRESETS[name].items()
    page.evaluate(CHOOSE, ["iterations", 7])
    changed = page.evaluate(VALUES)
    assert changed["preset"] == "custom" and changed.items() >= (PRESETS["balanced"] | {"iterations": 7}).items()
    saved = page.evaluate("() => window.app.graph.serialize()")
    page.evaluate("w => window.app.loadGraphData(w)", saved)
    page.wait_for_timeout(1000)
    assert page.evaluate(VALUES) == changed


def test_a_workflow_from_before_presets_goes_on_as_it_was(opened):
    _, page = opened
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    (node,) = (node for node in workflow["nodes"] if node["type"] == "MaskInversion")
    node["widgets_values"] = [10, 0.1, 0, 1, 0, "stretch", False, "exact"]  # as it was in version 0.1.0
    node["inputs"] = [entry for entry in node["inputs"] if entry["name"] not in ("empty_masks", "start", "lr_unit", "threshold")]
    next(entry for entry in node["inputs"] if entry["name"] == "region_hidden_states")["type"] = "BOOLEAN"
    page.evaluate("w => window.app.loadGraphData(w)", workflow)
    page.wait_for_timeout(2000)
    found = page.evaluate(VALUES)
    assert found.items() >= PRESETS["published"].items() and found["preset"] == "Region, as published"
    sent = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    (inputs,) = (entry["inputs"] for entry in sent.values() if entry["class_type"] == "MaskInversion")
    assert inputs["start"] == "picture" and inputs["lr_unit"] == "absolute" and "preset" not in inputs
    assert inputs["region_hidden_states"] == "whole picture" and inputs["threshold"] == 0.5
    node["widgets_values"][6] = True
    page.evaluate("w => window.app.loadGraphData(w)", workflow)
    page.wait_for_timeout(2000)
    assert page.evaluate(VALUES)["region_hidden_states"] == "faded by the map"


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
