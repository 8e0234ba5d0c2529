"""Captions as nodes in a real ComfyUI."""

import time

import pytest
import torch

from tests.helpers.graphs import WORKFLOWS, inversion, node
from tests.helpers.small_captioners import checkpoint, write

WORKFLOW = WORKFLOWS / "caption_a_region.json"
NODES = ("MaskInversionLoadCaptioner", "MaskInversionCaption", "MaskInversionRetrieveCaption")
SAMPLE = {"decoding": "sample", "decoding.temperature": 1.0, "decoding.top_p": 0.9}


@pytest.fixture(scope="module")
def files(server):
    """Small captioners of random weights in the models folder: for the bundled CLIP, for another width, and one with code in it."""
    folder = server.base / "models" / "clipcap"
    for name, width in (("right", 64), ("wide", 512)):
        write(folder / name, checkpoint("transformer", width))
    write(folder / "code", {})
    torch.save({"more": slice(1)}, folder / "code" / "captioner.pt")
    return folder


@pytest.fixture
def tokens(defaults, files):
    """A graph that ends in two tokens of one picture."""
    graph = inversion(defaults, masks=2, iterations=2)
    del graph["report"]
    return graph


def captioning(graph, name="right", length=12, **decoding):
    return graph | {
        "captioner": {
            "class_type": "MaskInversionLoadCaptioner",
            "inputs": {"source": "file", "source.weights": f"{name}/captioner.pt"},
        },
        "caption": {
            "class_type": "MaskInversionCaption",
            "inputs": {"tokens": ["inversion", 0], "captioner": ["captioner", 0], "length": length} | decoding,
        },
        "captions": {"class_type": "PreviewAny", "inputs": {"source": ["caption", 0]}},
    }


def test_every_node_is_there_with_its_help(server, files):
    for name in NODES:
        info = server.get(f"/object_info/{name}")[name]
        assert info["category"] == "MaskInversion" and info["description"]
        assert len(server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md")) > 200
    found = str(server.get("/object_info/MaskInversionLoadCaptioner"))
    assert "right/captioner.pt" in found and "vocab.json" not in found


@pytest.mark.parametrize(
    "decoding, count",
    [
        ({"decoding": "greedy"}, 1),
        ({"decoding": "beam", "decoding.beams": 4, "decoding.count": 3}, 3),
        (SAMPLE | {"decoding.count": 2, "decoding.seed": 2**64 - 1}, 2),
    ],
)
def test_captions_come_one_a_line_and_repeat(server, tokens, decoding, count):
    graph = captioning(tokens, **decoding)
    run = server.submit(graph)
    assert not run.error, run.error
    lines = run.text("captions").split("\n")
    assert len(lines) == 2 * count
    assert run.text("caption") == "\n".join(f"region {i + 1}: {' | '.join(lines[i * count : (i + 1) * count])}" for i in range(2))
    assert server.submit_anew(graph).text("captions") == run.text("captions")


def test_what_is_wrong_is_said(server, tokens):
    wide = server.submit(captioning(tokens, "wide", decoding="greedy")).error
    assert "are of bundled and have 64 numbers each, but captioner.pt takes 512: make the tokens with ViT-B-32/openai" in wide
    assert "could run code" in server.submit(captioning(tokens, "code", decoding="greedy")).error
    few = {"decoding": "beam", "decoding.beams": 2, "decoding.count": 3}
    assert "take more beams" in server.submit(captioning(tokens, **few)).error
    assert "has room for 44 tokens" in server.submit(captioning(tokens, length=50, decoding="greedy")).error


def test_a_file_that_is_replaced_is_read_anew(server, tokens, files):
    graph = captioning(tokens, decoding="greedy")
    before = server.submit(graph)
    assert server.submit(graph).cached >= {"captioner", "caption"}
    write(files / "right", checkpoint("transformer", 64, seed=5))
    after = server.submit(graph)
    assert not after.error and "captioner" not in after.cached
    assert after.text("captions") != before.text("captions")
    write(files / "right", checkpoint("transformer", 64))


@pytest.mark.slow
def test_an_interrupt_stops_it_between_two_regions(server, tokens):
    tokens["mask"]["inputs"]["count"] = 200  # a caption is short, so there must be many to be in the middle of
    graph = captioning(tokens, decoding="greedy")
    expected = server.submit(graph).text("captions")  # the tokens are there
    prompt = server.queue(captioning(tokens, length=44, **SAMPLE, **{"decoding.count": 64, "decoding.seed": 1}))
    time.sleep(1)
    assert server.get("/queue")["queue_running"]
    server.post("/interrupt", {})
    asked = time.monotonic()
    run = server.wait(prompt)
    assert run.interrupted and "captions" not in run.outputs and time.monotonic() - asked < 3
    assert server.submit_anew(graph).text("captions") == expected


def test_the_best_of_a_list(server, tokens):
    inputs = {"tokens": ["inversion", 0], "clip": ["clip", 0], "phrases": "a cat\n\n a tractor \na rose", "count": 2}
    graph = tokens | {
        "best": {"class_type": "MaskInversionRetrieveCaption", "inputs": inputs},
        "captions": {"class_type": "PreviewAny", "inputs": {"source": ["best", 0]}},
    }
    run = server.submit(graph)
    assert not run.error, run.error
    lines = run.text("captions").split("\n")
    assert len(lines) == 4 and {*lines} <= {"a cat", "a tractor", "a rose"}
    assert run.text("best").startswith(f"region 1: {lines[0]} (")


def test_the_workflow_asks_only_for_what_is_there(server):
    known = server.get("/object_info")
    for entry in server.read(WORKFLOW).values():
        assert entry["class_type"] in known
    assert WORKFLOW.with_suffix(".jpg").is_file()


def test_the_workflow_captions_every_region_of_the_scene(server):
    graph = server.read(WORKFLOW)
    graph["captions"] = {"class_type": "PreviewAny", "inputs": {"source": [node(graph, "MaskInversionCaption"), 0]}}
    run = server.submit(graph)
    assert not run.error, run.error
    captions = run.text("captions").split("\n")
    assert len(captions) == 9 and all(caption.endswith(".") for caption in captions[::3])
    best = " ".join(captions[::3])
    assert sum(name in best for name in ("elephant", "penguin", "fox")) >= 2
