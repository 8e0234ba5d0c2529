"""The pack as ComfyUI has it in its process: what it adds to the start, what it keeps, and what cannot cost a result."""

import json
import subprocess
import sys
from pathlib import Path

import comfy
import open_clip
import pytest
from test_nodes import inversion, report

from maskinversion.models.catalogue import pretrained_names, readable_architectures

pytest_plugins = ["comfy"]

ALONE = Path(__file__).parent / "pack_alone.py"
NOT_BEFORE_A_NODE_RUNS = {"open_clip", "timm", "diffusers", "matplotlib", "scipy", "pycocotools", "accelerate", "pandas", "sklearn"}
NAMES = """
import json, sys
from maskinversion.models import catalogue
names = catalogue.pretrained_names()
print(json.dumps([names, [name for name in sys.modules if "open_clip" in name]]))
"""


@pytest.fixture(scope="module")
def alone():
    command = [sys.executable, str(ALONE), str(comfy.comfyui_folder())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_heavy_is_imported_before_a_node_runs(alone):
    assert alone["starting"]["nodes"] == 23
    assert not NOT_BEFORE_A_NODE_RUNS.intersection(alone["starting"]["added"])
    assert "transformers" not in alone["starting"]["added"]


def test_what_is_computed_of_a_native_models_weights_is_kept_with_them(alone):
    assert alone["native"]["product is kept"]


def test_tokens_of_a_native_model_are_those_of_its_weights_at_the_time(alone):
    found = alone["native"]
    assert found["by patching"] > 0.01
    assert found["patched"] < 1e-5 and found["patched and back"] < 1e-6 and found["in place"] < 1e-6
    assert found["fingerprints"] == [True, True, True]


def test_a_native_model_is_freed_when_comfyui_drops_it(alone):
    assert alone["native"]["still there"] == []


def test_loaders_of_the_same_files_share_the_model_while_it_is_in_use(alone):
    assert alone["loaders"] == {"shared": True, "once": 1, "again": 3}


def test_what_a_node_shows_cannot_cost_its_result_and_an_interrupt_passes(alone):
    found = alone["progress"]
    assert found["preview"] == found["bar"] == "goes on" and found["shown"] == [None]
    assert found["interrupt in the preview"] == found["interrupt in the bar"] == "InterruptProcessingException"


def test_a_picture_that_is_too_thin_for_a_preview_is_inverted(server):
    inputs = server.get("/object_info/MaskInversion")["MaskInversion"]["input"]["required"]
    defaults = {name: options["default"] for name, (_, options) in inputs.items() if "default" in options}
    graph = inversion(defaults)
    graph["image"]["inputs"] |= {"height": 8, "width": 5000}
    graph["mask"]["inputs"] |= {"height": 8, "width": 5000}
    assert report(server.submit(graph))["maps"] == [1, 8, 5000]


def test_the_names_are_open_clips_own_and_found_without_importing_it():
    readable = set(readable_architectures())
    expected = [f"{name}/{tag}" for name, tag in open_clip.list_pretrained() if name in readable]
    assert list(pretrained_names()) == expected and len(expected) > 100
    done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, timeout=300, cwd=ALONE.parents[1])
    names, imported = json.loads(done.stdout)
    assert names == expected and not imported
