"""The nodes in a real ComfyUI, over its API."""

import json
from pathlib import Path

import comfy
import pytest

WORKFLOW = Path(__file__).parents[1] / "workflows" / "localize_a_region.json"
NODES = ("MaskInversionLoadCLIP", "MaskInversion", "MaskInversionOverlay", "MaskInversionClassify", "MaskInversionExample")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with comfy.Comfy(tmp_path_factory.mktemp("comfyui") / "base") as running:
        yield running


@pytest.fixture
def graph():
    return comfy.as_api(json.loads(WORKFLOW.read_text(encoding="utf-8")))


def node(graph, kind):
    return next(name for name, entry in graph.items() if entry["class_type"] == kind)


def test_every_node_is_there_with_its_help(server):
    for name in NODES:
        assert server.get(f"/object_info/{name}")[name]["category"] == "MaskInversion"
        assert len(server.fetch(f"/extensions/{comfy.PACK}/docs/{name}.md")) > 200


def test_the_workflow_ends_with_pictures_and_labels_and_the_same_bits_again(server, graph):
    first = server.submit(graph)
    assert not first.error
    pictures = server.images(first, node(graph, "PreviewImage"))
    assert len(pictures) == 3 and pictures[0].size == (384, 384)
    text = first.text(node(graph, "MaskInversionClassify"))
    assert text.count("region") == 3
    server.forget()
    again = server.submit(graph)
    assert not again.error and again.text(node(graph, "MaskInversionClassify")) == text
    second = server.images(again, node(graph, "PreviewImage"))
    assert [p.tobytes() for p in second] == [p.tobytes() for p in pictures]


def test_errors_are_messages_and_the_server_lives(server, graph):
    graph["90"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}}
    graph[node(graph, "MaskInversion")]["inputs"]["mask"] = ["90", 0]
    result = server.submit(graph)
    assert "mask 0 is empty" in result.error
    graph["90"]["inputs"]["value"] = 1.0
    graph[node(graph, "MaskInversionOverlay")]["inputs"]["mask"] = ["90", 0]
    assert not server.submit(graph).error  # a mask of another size is resized


def test_batches(server, graph):
    inversion, example = node(graph, "MaskInversion"), node(graph, "MaskInversionExample")
    graph["91"] = {"class_type": "RepeatImageBatch", "inputs": {"image": [example, 0], "amount": 2}}
    graph[inversion]["inputs"]["image"] = ["91", 0]
    assert "2 images and 3 masks do not go together" in server.submit(graph).error
    graph["91"]["inputs"]["amount"] = 3
    assert not server.submit(graph).error
