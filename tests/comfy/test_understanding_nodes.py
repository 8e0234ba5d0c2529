"""Naming regions, finding them by phrase and labelling them in a real ComfyUI."""

import numpy as np
import pytest

from tests.helpers.graphs import WORKFLOW, node


@pytest.fixture
def graph(server):
    """The example workflow: three regions of the zoo, named."""
    return server.read(WORKFLOW)


def shown(graph, **sockets):
    for name, source in sockets.items():
        graph[name] = {"class_type": "PreviewAny", "inputs": {"source": source}}
    return graph


def test_phrases_of_a_file_a_list_and_the_node(server, graph):
    classify = node(graph, "MaskInversionClassify")
    folder = server.base / "input"
    (folder / "animals.txt").write_text("an elephant\nein Löwe\na fox\n", encoding="utf-8")
    server.get("/object_info/MaskInversionClassify")
    graph[classify]["inputs"] |= {"phrases": "a penguin", "word_list": "animals.txt", "template": "a photo of {}\na drawing of {}"}
    run = server.submit(shown(graph, labels=[classify, 0], scores=[classify, 1]))
    assert not run.error, run.error
    assert run.text("labels").split("\n") == ["an elephant", "a penguin", "a fox"]
    assert "ein Löwe" in run.text("scores") and len(run.text("scores").split("\n")) == 12
    graph[classify]["inputs"] |= {"word_list": "1000 names of ImageNet", "phrases": ""}
    run = server.submit(graph)
    assert not run.error and len(run.text("scores").split("\n")) == 3 * 998  # two names are there twice
    graph[classify]["inputs"] |= {"word_list": "as written", "phrases": "bus\nfox", "templates": "imagenet-7"}
    run = server.submit(graph)
    assert not run.error and run.text("labels").split("\n")[2] == "fox"


def test_phrases_choose_masks(server, graph):
    inversion, example = node(graph, "MaskInversion"), node(graph, "MaskInversionExample")
    inputs = {
        "tokens": [inversion, 0],
        "clip": graph[inversion]["inputs"]["clip"],
        "phrases": "a fox\nan elephant",
        "one_to_one": True,
        "template": "{}",
        "mask": [example, 1],
    }
    graph["find"] = {"class_type": "MaskInversionRefer", "inputs": inputs}
    graph["picture"] = {"class_type": "MaskToImage", "inputs": {"mask": ["find", 0]}}
    graph["all"] = {"class_type": "MaskToImage", "inputs": {"mask": [example, 1]}}
    for name in ("picture", "all"):
        graph[f"{name} shown"] = {"class_type": "PreviewImage", "inputs": {"images": [name, 0]}}
    run = server.submit(shown(graph, numbers=["find", 1], phrases=["find", 2], scores=["find", 3]))
    assert not run.error, run.error
    assert run.text("numbers") == "2, 0"
    assert run.text("phrases").split("\n") == ["an elephant", "(none left)", "a fox"]
    assert len(run.text("scores").split("\n")) == 6
    chosen, every = (server.images(run, f"{name} shown") for name in ("picture", "all"))
    assert [picture.tobytes() for picture in chosen] == [every[2].tobytes(), every[0].tobytes()]
    graph["find"]["inputs"]["mask"] = ["picture mask", 0]
    graph["picture mask"] = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 64, "height": 64}}
    assert "1 masks and 3 tokens" in server.submit(graph).error


def test_regions_carry_their_labels(server, graph):
    classify, example = node(graph, "MaskInversionClassify"), node(graph, "MaskInversionExample")
    inputs = {"image": [example, 0], "mask": [example, 1], "labels": [classify, 0]}
    graph["labelled"] = {"class_type": "MaskInversionLabels", "inputs": inputs}
    graph["plain"] = {"class_type": "PreviewImage", "inputs": {"images": [example, 0]}}
    graph["drawn"] = {"class_type": "PreviewImage", "inputs": {"images": ["labelled", 0]}}
    run = server.submit(graph)
    assert not run.error, run.error
    (plain,), (drawn,) = server.images(run, "plain"), server.images(run, "drawn")
    assert plain.size == drawn.size and not np.array_equal(np.asarray(plain), np.asarray(drawn))
    graph["labelled"]["inputs"]["labels"] = "one label"
    assert "3 masks and 1 labels" in server.submit(graph).error


@pytest.mark.parametrize("name", ["MaskInversionRefer", "MaskInversionLabels"])
def test_help(server, name):
    assert server.get(f"/object_info/{name}")[name]["description"]
    assert len(server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md")) > 200


def test_a_word_list_that_was_edited_is_read_again(server, graph):
    classify = node(graph, "MaskInversionClassify")
    words = server.base / "input" / "edited.txt"
    words.write_text("elephant\npenguin\n", encoding="utf-8")
    server.get("/object_info/MaskInversionClassify")
    graph[classify]["inputs"] |= {"phrases": "", "word_list": "edited.txt"}
    first = server.submit(shown(graph, labels=[classify, 0]))
    words.write_text("elephant\npenguin\nfox\n", encoding="utf-8")
    second = server.submit(graph)
    assert "fox" not in first.text("labels") and second.text("labels").split("\n") == ["elephant", "penguin", "fox"]


@pytest.mark.parametrize("labels", ["\nb\nc", "a\n\nc", "a\nb\n", "a\nb\nc\n"])
def test_any_region_may_stay_without_a_label(server, graph, labels):
    example = node(graph, "MaskInversionExample")
    inputs = {"image": [example, 0], "mask": [example, 1], "labels": labels}
    graph["labelled"] = {"class_type": "MaskInversionLabels", "inputs": inputs}
    graph["drawn"] = {"class_type": "PreviewImage", "inputs": {"images": ["labelled", 0]}}
    kept = {name: graph[name] for name in ("labelled", "drawn", example)}
    assert not server.submit(kept).error
