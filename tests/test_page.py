"""The example workflow in ComfyUI's own page, in a real browser."""

import json
import os
import shutil
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

WORKFLOW = Path(__file__).parents[1] / "workflows" / "localize_a_region.json"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOAD_MS = 180_000
SIZE = {"width": 1920, "height": 1080}

# Puts the whole graph into the window, clear of the side bar and of the top and bottom bars.
FIT = """() => {
  const canvas = app.canvas, left = 90, top = 110, right = 40, bottom = 50
  const boxes = app.graph.nodes.map(n => n.getBounding())
  const x0 = Math.min(...boxes.map(b => b[0])), y0 = Math.min(...boxes.map(b => b[1]))
  const x1 = Math.max(...boxes.map(b => b[0] + b[2])), y1 = Math.max(...boxes.map(b => b[1] + b[3]))
  const w = innerWidth - left - right, h = innerHeight - top - bottom
  const scale = Math.min(w / (x1 - x0), h / (y1 - y0), 1.2)
  canvas.ds.scale = scale
  canvas.ds.offset[0] = (left + (w - (x1 - x0) * scale) / 2) / scale - x0
  canvas.ds.offset[1] = (top + (h - (y1 - y0) * scale) / 2) / scale - y0
  app.graph.setDirtyCanvas(true, true)
}"""

# Pairs of nodes that cover each other, and nodes that the page had to make larger than they were saved.
OVERLAPS = """() => {
  const nodes = app.graph.nodes.map(n => [n.title, n.getBounding()])
  const out = []
  for (const [i, [a, p]] of nodes.entries()) for (const [b, q] of nodes.slice(i + 1))
    if (p[0] < q[0] + q[2] && q[0] < p[0] + p[2] && p[1] < q[1] + q[3] && q[1] < p[1] + p[3]) out.push(a + ' / ' + b)
  return out
}"""


@pytest.fixture(scope="module")
def page():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser was found; any one of {', '.join(BROWSERS)} will do")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser.new_page(viewport=SIZE)
        browser.close()


def test_the_workflow_opens_runs_and_shows_its_results(server, page, tmp_path):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingNodesWarning": True})
    page.goto(server.url, timeout=LOAD_MS)
    page.wait_for_function("() => window.app?.graph && window.app.extensionManager", timeout=LOAD_MS)
    page.evaluate("data => app.loadGraphData(data)", json.loads(WORKFLOW.read_text(encoding="utf-8")))
    page.evaluate("() => { window.done = null; window.pictures = 0 }")
    page.evaluate(
        """() => {
          for (const kind of ['execution_success', 'execution_error', 'execution_interrupted'])
            app.api.addEventListener(kind, event => { window.done = [kind, event.detail.exception_message ?? ''] })
          app.api.addEventListener('b_preview_with_metadata', () => { window.pictures += 1 })
        }"""
    )
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function("() => window.done", timeout=LOAD_MS)
    assert page.evaluate("() => window.done") == ["execution_success", ""]
    assert page.evaluate("() => window.pictures") > 0  # the live picture of the map
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")
    page.evaluate(FIT)
    page.wait_for_timeout(2000)
    picture = Path(os.environ.get("MASKINVERSION_SCREENSHOT") or tmp_path / "page.png")
    page.screenshot(path=picture)
    assert page.evaluate(OVERLAPS) == []
    assert picture.stat().st_size > 50_000
    assert not errors
