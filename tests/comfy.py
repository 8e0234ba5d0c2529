"""A real ComfyUI server with the pack installed, for tests: over its HTTP API, as any client sees it."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PACK = "maskinversion-pack"
SEEDS = ("seed", "noise_seed")
START_SECONDS = 240
RUN_SECONDS = 240

# Nodes that make inputs no real node makes, and that look at values which a client never sees.
TEST_NODES = '''
import hashlib, json, torch


def digest(*tensors):
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return total.hexdigest()


class TestImage:
    INPUT_TYPES = classmethod(lambda s: {"required": {"count": ("INT",), "height": ("INT",), "width": ("INT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "make", "test"

    def make(self, count, height, width):
        return (torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(0)),)


class TestMask:
    INPUT_TYPES = classmethod(
        lambda s: {"required": {"count": ("INT",), "height": ("INT",), "width": ("INT",), "kind": ("STRING",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("MASK",), "make", "test"

    def make(self, count, height, width, kind):
        masks = torch.zeros(count, height, width)
        for i, mask in enumerate(masks):
            mask[height // 8 : height // 2 + i, width // 4 : width // 2] = 1
        if kind == "last empty":
            masks[-1] = 0
        elif kind == "last nan":
            masks[-1, 0, 0] = float("nan")
        elif kind == "two dimensions":
            masks = masks[0]
        elif kind == "four dimensions":
            masks = masks[:, None]
        elif kind == "five dimensions":
            masks = masks[None, None]
        return (masks,)


class TestPlainEncode:
    """The model's own forward pass, without the library."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"clip": ("MASKINVERSION_CLIP",), "image": ("IMAGE",)}, "optional": {"after": ("MASK",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("IMAGE",), "look", "test", True

    def look(self, clip, image, after=None):
        model = clip.ready().model
        pixels = torch.nn.functional.interpolate(image.movedim(-1, 1), size=model.visual.image_size)
        text = digest(model.encode_image(pixels), *model.state_dict().values())
        return {"ui": {"text": [text]}, "result": (image,)}


class TestReport:
    INPUT_TYPES = classmethod(
        lambda s: {"required": {"tokens": ("MASKINVERSION_TOKENS",), "output": ("CLIP_VISION_OUTPUT",), "maps": ("MASK",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, tokens, output, maps):
        embeddings = torch.cat([t.embeddings for t in tokens])
        report = {
            "tokens": [list(t.embeddings.shape) for t in tokens],
            "maps": list(maps.shape),
            "range": [float(maps.min()), float(maps.max())],
            "image_embeds": list(output.image_embeds.shape),
            "same": torch.equal(embeddings.cpu(), output.image_embeds.cpu()),
            "last_hidden_state": list(output.last_hidden_state.shape),
            "penultimate_hidden_states": list(output.penultimate_hidden_states.shape),
            "image_sizes": len(output.image_sizes),
            "digest": digest(embeddings, maps),
        }
        return {"ui": {"text": [json.dumps(report)]}}


class TestOutput:
    """Everything in a CLIP vision output; the image goes on, so that what follows follows."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"output": ("CLIP_VISION_OUTPUT",), "image": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("IMAGE",), "look", "test", True

    def look(self, output, image):
        values = {name: value for name, value in vars(output).items() if torch.is_tensor(value)}
        report = {name: [*value.shape] for name, value in values.items()}
        report["finite"] = all(bool(value.isfinite().all()) for value in values.values())
        report["image_sizes"] = [[*size] for size in output.image_sizes]
        report["digest"] = {name: digest(value) for name, value in values.items()}
        return {"ui": {"text": [json.dumps(report)]}, "result": (image,)}


class TestAfter:
    INPUT_TYPES = classmethod(lambda s: {"required": {"image": ("IMAGE",), "after": ("MASK",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "look", "test"

    def look(self, image, after):
        return (image,)


class TestRegion:
    """How far hidden states of a region are from those of the picture times the map [M, H, W] over the grid of patches."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"whole": ("CLIP_VISION_OUTPUT",), "region": ("CLIP_VISION_OUTPUT",), "maps": ("MASK",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, whole, region, maps):
        errors = []
        for name in ("last_hidden_state", "penultimate_hidden_states", "all_hidden_states"):
            if not hasattr(whole, name):
                continue
            a, b = getattr(whole, name), getattr(region, name)
            side = int(a.shape[-2] ** 0.5)
            prefix = a.shape[-2] - side * side
            cells = torch.nn.functional.interpolate(maps[:, None], size=(side, side), mode="area").flatten(1)
            rows = torch.cat([torch.ones(len(maps), prefix), cells], 1)
            rows = rows.reshape(len(maps), *[1] * (a.ndim - 3), -1, 1)
            errors.append(float((b - a * rows).abs().max() / a.abs().max()))
        return {"ui": {"text": [json.dumps(errors)]}}


class TestConditioning:
    INPUT_TYPES = classmethod(lambda s: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "test"

    def make(self):
        return ([[torch.zeros(1, 1, 8), {}]],)


class TestConditioned:
    """The shapes of the image embeddings that a diffusion model would be given."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"conditioning": ("CONDITIONING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, conditioning):
        found = [given["clip_vision_output"].image_embeds for _, more in conditioning for given in more["unclip_conditioning"]]
        return {"ui": {"text": [json.dumps([[*embeds.shape] for embeds in found])]}}


class TestTokens:
    """Tokens beside the CLIP vision output that came with them."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"tokens": ("MASKINVERSION_TOKENS",), "output": ("CLIP_VISION_OUTPUT",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, tokens, output):
        embeddings = torch.cat([t.embeddings for t in tokens])
        same = torch.equal(embeddings.cpu(), output.image_embeds.cpu())
        return {"ui": {"text": [json.dumps({"count": len(embeddings), "same": same, "digest": digest(embeddings)})]}}


class TestOutputState:
    INPUT_TYPES = classmethod(lambda s: {"required": {"output": ("CLIP_VISION_OUTPUT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, output):
        return {"ui": {"text": [str(output.last_hidden_state.shape)]}}


class TestLatent:
    INPUT_TYPES = classmethod(lambda s: {"required": {"latent": ("LATENT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, latent):
        samples = latent["samples"]
        report = {"shape": list(samples.shape), "finite": bool(samples.isfinite().all()), "digest": digest(samples)}
        return {"ui": {"text": [json.dumps(report)]}}


class TestEmbeds:
    """EMBEDS, on sockets of the type that IPAdapter_plus has."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"pos_embed": ("EMBEDS",), "neg_embed": ("EMBEDS",), "tokens": ("MASKINVERSION_TOKENS",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, pos_embed, neg_embed, tokens):
        same = torch.equal(pos_embed.cpu(), torch.cat([t.embeddings for t in tokens]).cpu())
        report = {"same": same, "pos": list(pos_embed.shape), "neg": list(neg_embed.shape), "neg length": float(neg_embed.norm())}
        return {"ui": {"text": [json.dumps(report)]}}


class TestOutside:
    """Whether pictures are the same, to the bit, where a mask is 0."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"image": ("IMAGE",), "mask": ("MASK",), "result": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, image, mask, result):
        differs = (result != image).any(-1)
        outside = mask[0] == 0
        report = {
            "shape": list(result.shape),
            "same outside": not bool(differs[:, outside].any()),
            "changed inside": float(differs[:, ~outside].float().mean()),
        }
        return {"ui": {"text": [json.dumps(report)]}}


class TestEncodings:
    """Which encoded pictures of a native model are kept, once `after` is there."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"clip_vision": ("CLIP_VISION",), "after": ("MASK",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, clip_vision, after):
        import sys

        managed = next(module for name, module in sys.modules.items() if name.endswith(".nodes.managed_clip"))
        return {"ui": {"text": [json.dumps([id(encoded) for encoded in managed.encoded_by[clip_vision].values()])]}}


KINDS = (TestImage, TestMask, TestPlainEncode, TestReport, TestOutput, TestAfter, TestRegion, TestConditioning)
KINDS += (TestConditioned, TestTokens, TestOutputState, TestLatent, TestEmbeds, TestOutside, TestEncodings)
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in KINDS}
'''


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


class Comfy:
    """A server on a free port with a base directory of its own; a context manager that stops it.

    test_nodes: source of a module of further nodes.
    """

    def __init__(self, base: Path, test_nodes: str = ""):
        self.base = base
        custom = base / "custom_nodes"
        custom.mkdir(parents=True)
        install_pack(custom / PACK)
        if test_nodes:
            (custom / "maskinversion_test_nodes.py").write_text(test_nodes, encoding="utf-8")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "server.log"
        command = [sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)]
        command += ["--disable-auto-launch", "--preview-method", "auto", "--database-url", f"sqlite:///{base / 'comfyui.db'}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=comfyui_folder(), stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Comfy":
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
        """Queue a graph in the API's format. Raises ValueError with the answer when the server refuses it."""
        return self.post("/prompt", {"prompt": graph})["prompt_id"]

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
        found = run.outputs[node]["images"]
        return [Image.open(BytesIO(self.fetch(f"/view?{urllib.parse.urlencode(image)}"))) for image in found]

    def forget(self) -> None:
        """Ask for every cached output and model to be dropped."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def submit_anew(self, graph: dict) -> "Run":
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


def comfyui_folder() -> Path:
    """The ComfyUI to test with: MASKINVERSION_COMFYUI_DIR, or the one that start.py gets."""
    given = os.environ.get("MASKINVERSION_COMFYUI_DIR")
    if given:
        return Path(given)
    spec = importlib.util.spec_from_file_location("maskinversion_start", ROOT / "start.py")
    start = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(start)
    return start.find_comfyui()


def install_pack(target: Path) -> None:
    """Link the pack into custom_nodes, or copy it where links need rights that one does not have (Windows)."""
    try:
        target.symlink_to(ROOT, target_is_directory=True)
    except OSError:
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv", "tests"))


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


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The one server of a test session; test modules that use it name this module in `pytest_plugins`."""
    with Comfy(tmp_path_factory.mktemp("comfyui") / "base", TEST_NODES) as running:
        yield running
