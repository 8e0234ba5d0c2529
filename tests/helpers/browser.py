"""ComfyUI's page in a real browser, as a person who has been there before finds it."""

import json
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tools.comfyui_server import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
READY = "window.app?.graph && window.app.canvas && window.app.extensionManager?.workflow?.activeWorkflow"
GREETED = {"Comfy.TutorialCompleted": True, "Comfy.OnboardingCoachmarks.Seen": ["appMode", "firstRun"]}


@contextmanager
def browser() -> Iterator[Any]:
    """A browser; where there is none, what asks for it is skipped."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


def set_up(server, name: str, value: object) -> None:
    """One of the page's settings, which the server keeps."""
    request = urllib.request.Request(
        f"{server.url}/settings/{name}", json.dumps(value).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=60).close()


def open_page(opened, server):
    """The page, when it can be used. What greets newcomers would open at some time and cover it."""
    for name, value in GREETED.items():
        set_up(server, name, value)
    page = opened.new_page(viewport={"width": 1600, "height": 900})
    page.goto(server.url, timeout=120_000)
    page.wait_for_function(READY, timeout=120_000)
    page.wait_for_timeout(2000)
    page.keyboard.press("Escape")
    return page


def photograph(page, name: str) -> None:
    """What is seen, in the folder of screenshots."""
    page.wait_for_timeout(700)
    (ROOT / "screenshots").mkdir(exist_ok=True)
    page.screenshot(path=ROOT / "screenshots" / f"{name}.png")
