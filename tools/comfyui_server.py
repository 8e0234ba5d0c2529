"""A real ComfyUI server with the pack installed, for the demo and the tests: over its HTTP API, as any client sees it.

Only the standard library is imported here: start.py imports it before anything is installed.
"""

from __future__ import annotations  # an older Python gets as far as being told which one is needed

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from .comfyui_source import ROOT, find_comfyui

if TYPE_CHECKING:
    from PIL import Image

PACK = "maskinversion-pack"
SEEDS = ("seed", "noise_seed")
START_SECONDS = 240
RUN_SECONDS = 240


@dataclass(frozen=True)
class Run:
    """What a graph left behind. outputs: by node, then as ComfyUI shows them. error: the message, or ''."""

    outputs: dict
    error: str
    error_type: str
    interrupted: bool
    cached: set[str]

    def text(self, node: str) -> str:
        return self.outputs[node]["text"][0]


class Server:
    """A ComfyUI on a free port with a base directory of its own; a context manager that stops it.

    more_nodes: modules of further nodes. packs: folders of custom nodes to link, the pack itself by default.
    options: further arguments of ComfyUI.
    """

    def __init__(self, base: Path, *more_nodes: Path, packs: Sequence[Path] = (ROOT,), options: Sequence[str] = ()):
        self.base = base
        custom = base / "custom_nodes"
        custom.mkdir(parents=True)
        for pack in packs:
            install_pack(custom / (PACK if pack == ROOT else pack.name), pack)
        for module in more_nodes:
            shutil.copy(module, custom)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "server.log"
        command = [sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)]
        command += ["--disable-auto-launch", "--preview-method", "auto", *options]
        command += ["--database-url", f"sqlite:///{base / 'comfyui.db'}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=find_comfyui(), stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with suppress(OSError):
                self.get("/system_stats")
                return self
            time.sleep(0.5)
        self.stop()
        raise RuntimeError(f"ComfyUI did not start:\n{self.tail()}")

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def get(self, path: str) -> dict:
        return json.loads(self.fetch(path))

    def fetch(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()

    def post(self, path: str, data: dict) -> dict:
        request = urllib.request.Request(self.url + path, json.dumps(data).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            raise ValueError(error.read().decode()) from error

    def read(self, workflow: Path) -> dict:
        """The graph of a saved workflow."""
        return as_api(json.loads(workflow.read_text(encoding="utf-8")))

    def queue(self, graph: dict) -> str:
        """Queue a graph in the API's format. Raises ValueError with the answer when the server refuses it, or some of its nodes."""
        answer = self.post("/prompt", {"prompt": graph})
        if answer["node_errors"]:
            raise ValueError(json.dumps(answer))
        return answer["prompt_id"]

    def wait(self, prompt: str) -> Run:
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt}").get(prompt)
            if entry is not None:
                return read_history(entry)
            time.sleep(0.1)
        raise TimeoutError(f"the graph is still running after {RUN_SECONDS} s:\n{self.tail()}")

    def submit(self, graph: dict) -> Run:
        return self.wait(self.queue(graph))

    def images(self, run: Run, node: str) -> list[Image.Image]:
        from PIL import Image

        found = run.outputs[node]["images"]
        return [Image.open(BytesIO(self.fetch(f"/view?{urllib.parse.urlencode(image)}"))) for image in found]

    def forget(self) -> None:
        """Ask for every cached output and model to be dropped."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def submit_anew(self, graph: dict) -> Run:
        """Run a graph with every cached output and model dropped. The server drops them when it gets to it, and does not say."""
        for _ in range(5):
            self.forget()
            time.sleep(1)
            run = self.submit(graph)
            if not run.cached:
                return run
        raise AssertionError("the server keeps its cached outputs")


def read_history(entry: dict) -> Run:
    messages = dict(entry["status"]["messages"])
    failure = messages.get("execution_error", {})
    return Run(
        outputs=entry["outputs"],
        error=failure.get("exception_message", "").strip(),
        error_type=failure.get("exception_type", ""),
        interrupted="execution_interrupted" in messages,
        cached=set(messages.get("execution_cached", {}).get("nodes", [])),
    )


def install_pack(target: Path, pack: Path = ROOT) -> None:
    """Link a pack into custom_nodes, or copy it where links need rights that one does not have (Windows)."""
    try:
        target.symlink_to(pack, target_is_directory=True)
    except OSError:
        shutil.copytree(pack, target, ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv*", "tests"))


def as_api(workflow: dict) -> dict:
    """A saved workflow in the API's format. Every widget of a saved node is also listed among its inputs."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph = {}
    for node in workflow["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            continue
        inputs = {i["name"]: sources[i["link"]] for i in node.get("inputs", []) if i.get("link") is not None}
        values = iter(node.get("widgets_values") or [])
        for name in (i["name"] for i in node.get("inputs", []) if "widget" in i):
            inputs.setdefault(name, next(values))
            if name in SEEDS:
                next(values)  # what the page does with the seed after a run
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph
