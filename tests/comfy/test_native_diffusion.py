"""The workflows for ComfyUI's own diffusion models.

All of them are checked against the nodes that the server has. SD 2.1 unCLIP really samples, from a checkpoint of random weights in
the true architecture: that takes a 3.2 GB file, 12 GB of memory for a moment and two minutes, so it needs
MASKINVERSION_CHECKPOINTS=1.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.graphs import WORKFLOWS
from tools.comfyui_server import find_comfyui

NATIVE = ("unclip_sd21", "unclip_sd21_two_regions", "unclip_sdxl", "unclip_stable_cascade")
CHECKPOINT = "sd21-unclip-l.ckpt"
SCRIPT = Path(__file__).parents[1] / "helpers" / "unclip_checkpoint.py"


def workflow(server, name):
    return server.read(WORKFLOWS / f"{name}.json")


def only(graph, kind):
    return [entry for entry in graph.values() if entry["class_type"] == kind]


@pytest.mark.parametrize("name", NATIVE)
def test_only_the_files_are_missing(server, name):
    """The server finds nothing wrong with a workflow but that its model files are not there."""
    with pytest.raises(ValueError) as refused:
        server.queue(workflow(server, name))
    found = json.loads(str(refused.value))["node_errors"].values()
    problems = {(error["type"], error["extra_info"]["input_name"]) for node in found for error in node["errors"]}
    assert problems <= {("value_not_in_list", "ckpt_name"), ("value_not_in_list", "clip_name")} and problems


@pytest.fixture(scope="module")
def checkpoint(server):
    if not os.environ.get("MASKINVERSION_CHECKPOINTS"):
        pytest.skip("set MASKINVERSION_CHECKPOINTS=1: it writes 3.2 GB and takes 12 GB of memory")
    file = server.base / "models" / "checkpoints" / CHECKPOINT
    command = [sys.executable, str(SCRIPT), str(find_comfyui()), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert not done.returncode, done.stderr
    yield
    server.forget()
    file.unlink()


def tiny(graph):
    """The same at 1/12 of the size, in two steps, with a report of the latent."""
    for latent in only(graph, "EmptyLatentImage"):
        latent["inputs"] |= {"width": 64, "height": 64}
    for mask in only(graph, "SolidMask"):
        mask["inputs"] |= {side: mask["inputs"][side] // 12 for side in ("width", "height")}
    for placed in only(graph, "MaskComposite"):
        placed["inputs"]["x"] //= 12
    only(graph, "KSampler")[0]["inputs"] |= {"steps": 2, "seed": 1}
    only(graph, "MaskInversion")[0]["inputs"]["iterations"] = 2
    sampler = next(name for name, entry in graph.items() if entry["class_type"] == "KSampler")
    return graph | {"latent": {"class_type": "TestLatent", "inputs": {"latent": [sampler, 0]}}}


def latent(run):
    assert not run.error, run.error
    found = json.loads(run.text("latent"))
    assert found["finite"] and found["shape"] == [1, 4, 8, 8]
    return found["digest"]


def test_another_token_gives_another_latent_and_the_same_token_the_same(server, checkpoint):
    graph = tiny(workflow(server, "unclip_sd21"))
    first = latent(server.submit(graph))
    pick = only(graph, "MaskInversionPick")[0]["inputs"]
    pick["numbers"] = "1"
    second = latent(server.submit(graph))
    pick["numbers"] = "-3"  # token 0 by another name
    assert latent(server.submit(graph)) == first != second


def test_two_regions_each_have_their_place(server, checkpoint):
    graph = tiny(workflow(server, "unclip_sd21_two_regions"))
    first = latent(server.submit(graph))
    left, right = only(graph, "MaskInversionPick")
    left["inputs"]["numbers"], right["inputs"]["numbers"] = right["inputs"]["numbers"], left["inputs"]["numbers"]
    assert latent(server.submit(graph)) != first


def test_the_ip_adapter_workflow_needs_that_pack_only(server):
    graph = workflow(server, "ip_adapter_region")
    known = server.get("/object_info")
    missing = {name: entry for name, entry in graph.items() if entry["class_type"] not in known}
    assert {entry["class_type"] for entry in missing.values()} == {"IPAdapterUnifiedLoader", "IPAdapterEmbeds"}
    embeds = only(graph, "IPAdapterEmbeds")[0]["inputs"]
    for slot, name in enumerate(("pos_embed", "neg_embed")):
        source, output = embeds[name]
        kind = graph[source]["class_type"]
        assert output == slot and known[kind]["output_name"][output] == name and known[kind]["output"][output] == "EMBEDS"
