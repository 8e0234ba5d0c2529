"""The workflows with pipelines of diffusers, run with miniatures in place of the files that they ask for."""

import json

import pytest

from tests.helpers.graphs import WORKFLOWS
from tests.helpers.small_pipelines import loader


def find(graph, kind):
    return next(name for name, entry in graph.items() if entry["class_type"] == kind)


def in_miniature(server, name, pipeline):
    graph = server.read(WORKFLOWS / f"{name}.json")
    graph[find(graph, "CLIPVisionLoader")] = {"class_type": "MaskInversionLoadCLIP", "inputs": {"source": "bundled"}}
    graph[find(graph, "MaskInversionLoadPipeline")] = loader(pipeline)
    return graph


@pytest.mark.parametrize("name", ["kandinsky_region", "region_into_another_picture"])
def test_only_the_clip_is_missing(server, name):
    try:
        answer = server.post("/prompt", {"prompt": server.read(WORKFLOWS / f"{name}.json")})
        server.wait(answer["prompt_id"])  # the branch that shows the picture to paint into needs no model
    except ValueError as refused:
        answer = json.loads(str(refused))
    found = answer["node_errors"].values()
    assert {(error["type"], error["extra_info"]["input_name"]) for node in found for error in node["errors"]} == {
        ("value_not_in_list", "clip_name")
    }


def test_a_region_becomes_pictures(server, pipelines):
    graph = in_miniature(server, "kandinsky_region", "kandinsky")
    graph[find(graph, "MaskInversionGenerate")]["inputs"] |= {"width": 64, "height": 64, "steps": 2}
    shown = next(
        name for name, entry in graph.items() if entry["inputs"].get("images") == [find(graph, "MaskInversionGenerate"), 0]
    )
    run = server.submit(graph)
    assert not run.error, run.error
    assert [picture.size for picture in server.images(run, shown)] == [(64, 64)] * 2


def test_a_region_of_one_picture_goes_into_a_region_of_another(server, pipelines):
    graph = in_miniature(server, "region_into_another_picture", "kandinsky-inpaint")
    paint = find(graph, "MaskInversionInpaint")
    inputs = graph[paint]["inputs"]
    inputs |= {"width": 64, "height": 64, "steps": 2}
    graph["compared"] = {
        "class_type": "TestOutside",
        "inputs": {"image": inputs["image"], "mask": inputs["mask"], "result": [paint, 0]},
    }
    run = server.submit(graph)
    assert not run.error, run.error
    found = json.loads(run.text("compared"))
    assert found["shape"] == [1, 384, 384, 3] and found["same outside"] and found["changed inside"] > 0.9
    taken, painted = graph[find(graph, "MaskInversion")]["inputs"]["image"], inputs["image"]
    assert taken != painted and graph[taken[0]]["inputs"] != graph[painted[0]]["inputs"]


@pytest.mark.slow
def test_a_picture_of_a_region_offline(server):
    """The template as it is, on the bundled models."""
    graph = server.read(WORKFLOWS / "picture_of_a_region.json")
    larger = find(graph, "ImageScaleBy")
    assert graph[larger]["inputs"]["image"] == [find(graph, "MaskInversionGenerate"), 0]
    shown = next(name for name, entry in graph.items() if entry["inputs"].get("images") == [larger, 0])
    run = server.submit(graph)
    assert not run.error, run.error
    assert [picture.size for picture in server.images(run, shown)] == [(4 * 64, 4 * 64)] * 4


def test_a_region_goes_into_another_picture_offline(server):
    graph = server.read(WORKFLOWS / "region_into_another_picture_offline.json")
    paint = find(graph, "MaskInversionInpaint")
    inputs = graph[paint]["inputs"]
    graph["compared"] = {
        "class_type": "TestOutside",
        "inputs": {"image": inputs["image"], "mask": inputs["mask"], "result": [paint, 0]},
    }
    run = server.submit(graph)
    assert not run.error, run.error
    found = json.loads(run.text("compared"))
    assert found["shape"] == [1, 384, 384, 3] and found["same outside"] and found["changed inside"] > 0.9


def test_regions_are_named_and_found_by_a_phrase(server):
    graph = server.read(WORKFLOWS / "name_and_find_regions.json")
    graph["labels"] = {"class_type": "PreviewAny", "inputs": {"source": [find(graph, "MaskInversionClassify"), 0]}}
    graph["numbers"] = {"class_type": "PreviewAny", "inputs": {"source": [find(graph, "MaskInversionRefer"), 1]}}
    run = server.submit(graph)
    assert not run.error, run.error
    assert run.text("labels").split("\n") == ["elephant", "penguin", "fox"] and run.text("numbers") == "1"
    assert sum(len(server.images(run, name)) for name, entry in graph.items() if entry["class_type"] == "PreviewImage") == 2
