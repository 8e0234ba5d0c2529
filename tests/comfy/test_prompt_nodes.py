"""Prompts of regions, and regions of every kind, in a real ComfyUI."""

import json

import numpy as np
import pytest

from tests.helpers.graphs import WORKFLOW, WORKFLOWS, node

BOX = {"x": 32, "y": 48, "width": 160, "height": 96}


@pytest.fixture
def graph(server):
    """The tokens of the example workflow: three regions of the zoo, of 384 px."""
    kinds = ("MaskInversionExample", "MaskInversionLoadCLIP", "MaskInversion")
    return {name: entry for name, entry in server.read(WORKFLOW).items() if entry["class_type"] in kinds}


def shown(graph, **sockets):
    for name, source in sockets.items():
        graph[name] = {"class_type": "PreviewAny", "inputs": {"source": source}}
    return graph


def looking_at(graph, source):
    graph["as image"] = {"class_type": "MaskToImage", "inputs": {"mask": source}}
    graph["look"] = {"class_type": "PreviewImage", "inputs": {"images": ["as image", 0]}}
    return graph


def looked_at(server, graph, source):
    """The masks of a socket as they come out, [M, h, w] in 0..255."""
    run = server.submit(looking_at(graph, source))
    assert not run.error, run.error
    return np.stack([np.asarray(picture.convert("L")) for picture in server.images(run, "look")]), run


def test_the_template_names_every_region_with_its_place(server):
    graph = server.read(WORKFLOWS / "prompt_of_regions.json")
    join, prompt = node(graph, "MaskInversionJoinPrompts"), node(graph, "MaskInversionPrompt")
    run = server.submit(shown(graph, text=[join, 0], places=[join, 1], scores=[prompt, 1]))
    assert not run.error, run.error
    assert run.text("text") == "a drawing: at the top left, elephant; on the right, penguin; at the bottom left, fox"
    assert run.text("places").split("\n") == ["at the top left", "on the right", "at the bottom left"]
    assert [row.split("\t")[2] for row in run.text("scores").split("\n")] == ["things: elephant", "things: penguin", "things: fox"]
    graph[join]["inputs"].pop("mask")
    assert "the places are not known" in server.submit(graph).error
    graph[join]["inputs"]["tokens"] = [node(graph, "MaskInversion"), 0]
    assert server.submit(graph).text("places").split("\n")[0] == "at the top left"


def test_a_prompt_has_lists_of_the_pack_and_of_the_user(server):
    graph = server.read(WORKFLOWS / "prompt_of_regions.json")
    prompt = node(graph, "MaskInversionPrompt")
    (server.base / "input" / "own.txt").write_text("a fox\na penguin\nan elephant\n", encoding="utf-8")
    server.get("/object_info/MaskInversionPrompt")
    graph[prompt]["inputs"] |= {"things": "own.txt", "colours": True, "phrases": "a drawing of it", "template": "a photo of {}"}
    run = server.submit(shown(graph, prompts=[prompt, 0], scores=[prompt, 1]))
    assert not run.error, run.error
    prompts = run.text("prompts").split("\n")
    wanted = ["an elephant", "a penguin", "a fox"]
    assert all(text.startswith(f"a photo of {name}") for text, name in zip(prompts, wanted, strict=True))
    known = {"things", "colours", "own"}
    assert all(entry.split(": ")[0] in known for row in run.text("scores").split("\n") for entry in row.split("\t")[2:])
    graph[prompt]["inputs"] |= {"things": "none", "colours": False, "phrases": ""}
    assert "no phrase to make a prompt of" in server.submit(graph).error


def test_comfyuis_own_box_is_a_region(server, graph):
    """Straight into MaskInversion, as its mask does, and as a mask, from ComfyUI's own node of a box."""
    example, inversion = node(graph, "MaskInversionExample"), node(graph, "MaskInversion")
    graph["box"] = {"class_type": "PrimitiveBoundingBox", "inputs": BOX}
    graph["masks"] = {"class_type": "MaskInversionRegions", "inputs": {"regions": ["box", 0], "image": [example, 0]}}
    masks, run = looked_at(server, shown(graph, boxes=["masks", 2]), ["masks", 0])
    expected = np.zeros((1, 384, 384), np.uint8)
    expected[:, 48:144, 32:192] = 255
    assert np.array_equal(masks, expected)
    assert json.loads(run.text("boxes").replace("'", '"')) == [[BOX | {"score": 1.0}]]
    maps = []
    for source in (["box", 0], ["masks", 0], ["masks", 2]):
        graph[inversion]["inputs"]["mask"] = source
        maps.append(looked_at(server, graph, [inversion, 2])[0])
    assert np.array_equal(maps[0], maps[1]) and np.array_equal(maps[0], maps[2])
    graph[inversion]["inputs"]["mask"] = [example, 1]
    assert not np.array_equal(looked_at(server, graph, [inversion, 2])[0][:1], maps[0])


@pytest.mark.parametrize("kind", ["frames", "segments", "corners", "florence"])
def test_what_detectors_give_arrives_as_it_comes(server, graph, kind):
    example, inversion = node(graph, "MaskInversionExample"), node(graph, "MaskInversion")
    graph["detector"] = {"class_type": "TestDetector", "inputs": {"kind": kind}}
    graph["masks"] = {"class_type": "MaskInversionRegions", "inputs": {"regions": ["detector", 0], "image": [example, 0]}}
    masks, run = looked_at(server, shown(graph, labels=["masks", 3]), ["masks", 0])
    assert masks.shape == (2, 384, 384) and [int((mask > 127).sum()) for mask in masks] == [100 * 60, 40 * 80]
    assert masks[0, 20:80, 10:110].min() == 255 and masks[1, 200:280, 300:340].min() == 255
    assert run.text("labels") == ("\n" if kind == "corners" else "cat\ndog")
    graph[inversion]["inputs"]["mask"] = ["detector", 0]
    assert len(looked_at(server, graph, [inversion, 2])[0]) == 2
    labels = {"image": [example, 0], "mask": ["detector", 0], "labels": "a\nb"}
    graph["labelled"] = {"class_type": "MaskInversionLabels", "inputs": labels}
    graph["drawn"] = {"class_type": "PreviewImage", "inputs": {"images": ["labelled", 0]}}
    painted = {"image": [example, 0], "maps": [inversion, 2], "mask": ["detector", 0], "strength": 0.5}
    graph["painted"] = {"class_type": "MaskInversionOverlay", "inputs": painted}
    graph["outlined"] = {"class_type": "PreviewImage", "inputs": {"images": ["painted", 0]}}
    run = server.submit(graph)
    assert not run.error and len(server.images(run, "outlined")) == 2, run.error


def test_boxes_of_several_pictures_go_with_their_own(server, graph):
    inversion = node(graph, "MaskInversion")
    graph["pictures"] = {"class_type": "TestImage", "inputs": {"count": 3, "height": 384, "width": 384}}
    graph["detector"] = {"class_type": "TestDetector", "inputs": {"kind": "three pictures"}}
    graph[inversion]["inputs"] |= {"image": ["pictures", 0], "mask": ["detector", 0]}
    assert "image 1" in server.submit(looking_at(graph, [inversion, 2])).error
    graph[inversion]["inputs"]["empty_masks"] = "leave out"
    assert len(looked_at(server, graph, [inversion, 2])[0]) == 3  # two of the first, none of the second, one of the third
    graph["pictures"]["inputs"]["count"] = 2
    assert "of 3 pictures, and there are 2 images" in server.submit(graph).error


def test_masks_are_joined_split_and_picked(server, graph):
    example = node(graph, "MaskInversionExample")
    graph["small"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 32}}
    graph["joined"] = {"class_type": "MaskInversionRegions", "inputs": {"regions": [example, 1], "more": ["small", 0]}}
    masks, _ = looked_at(server, graph, ["joined", 0])
    assert masks.shape == (4, 384, 384) and masks[3].min() == 255
    single, _ = looked_at(server, graph, ["joined", 1])  # a list: what follows runs once for each
    assert np.array_equal(single, masks)
    graph["again"] = {"class_type": "MaskInversionRegions", "inputs": {"regions": ["joined", 1]}}
    assert np.array_equal(looked_at(server, graph, ["again", 0])[0], masks)
    graph["picked"] = {"class_type": "MaskInversionPickMasks", "inputs": {"mask": ["joined", 0], "numbers": "-1, 1"}}
    assert np.array_equal(looked_at(server, graph, ["picked", 0])[0], masks[[3, 1]])
    refused = {"4": "there is no mask 4: there are 4, so use 0 to 3", "": "no mask is picked", "x": "whole numbers"}
    for numbers, words in refused.items():
        graph["picked"]["inputs"]["numbers"] = numbers
        assert words in server.submit(graph).error
    graph["joined"]["inputs"] = {"regions": ["box", 0]}
    graph["box"] = {"class_type": "PrimitiveBoundingBox", "inputs": BOX}
    graph["picked"]["inputs"]["numbers"] = "0"
    assert "size of their picture" in server.submit(graph).error


def test_a_label_map_gives_a_mask_a_colour(server, graph):
    graph["map"] = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0xC00080}}
    graph["other"] = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}}
    paste = {"destination": ["map", 0], "source": ["other", 0], "x": 8, "y": 4, "resize_source": False}
    graph["pasted"] = {"class_type": "ImageCompositeMasked", "inputs": paste}
    graph["split"] = {"class_type": "MaskInversionLabelMap", "inputs": {"image": ["pasted", 0], "labels": "", "least": 0.0}}
    masks, run = looked_at(server, shown(graph, labels=["split", 1]), ["split", 0])
    expected = np.full((1, 48, 64), 255, np.uint8)
    expected[:, 4:20, 8:24] = 0
    assert np.array_equal(masks, expected) and run.text("labels") == "#c00080"
    graph["split"]["inputs"]["labels"] = "#000000, #c00080"
    assert np.array_equal(looked_at(server, graph, ["split", 0])[0], np.concatenate([255 - expected, expected]))


@pytest.mark.parametrize(
    "name",
    ["MaskInversionPrompt", "MaskInversionJoinPrompts", "MaskInversionRegions", "MaskInversionPickMasks", "MaskInversionLabelMap"],
)
def test_help(server, name):
    assert server.get(f"/object_info/{name}")[name]["description"]
    assert len(server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md")) > 200
