"""The pack as ComfyUI has it in its process: what it adds to the start, what it keeps, and what cannot cost a result."""

import json
import subprocess
import sys

import pytest

from tests.helpers.graphs import inversion
from tools.comfyui_server import ROOT, find_comfyui

NOT_BEFORE_A_NODE_RUNS = {"open_clip", "timm", "diffusers", "matplotlib", "scipy", "pycocotools", "accelerate", "pandas", "sklearn"}


@pytest.fixture(scope="module")
def alone():
    command = [sys.executable, "-m", "tests.helpers.pack_alone", str(find_comfyui())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_nothing_heavy_is_imported_before_a_node_runs(alone):
    assert alone["starting"]["nodes"] == 43
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


def test_a_picture_that_is_too_thin_for_a_preview_is_inverted(server, defaults):
    graph = inversion(defaults)
    graph["image"]["inputs"] |= {"height": 8, "width": 5000}
    graph["mask"]["inputs"] |= {"height": 8, "width": 5000}
    run = server.submit(graph)
    assert not run.error and json.loads(run.text("report"))["maps"] == [1, 8, 5000]
