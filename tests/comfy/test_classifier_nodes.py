"""Region classifiers in a real ComfyUI: trained, saved, loaded, used, and drawn from."""

import json

import pytest

from tests.helpers.graphs import WORKFLOW, node

LARE = {"method": "lare", "method.points": 4, "method.reach": 1.0, "method.size": 0.1, "method.steps": 20, "method.lr": 0.003}
METHODS = {"lare": LARE | {"method.seed": 1}, "probe": {"method": "probe"}}
WORDS = "an elephant\na penguin\nsomething else"
HELP = {
    "MaskInversionTrainClassifier": "MaskInversion",
    "MaskInversionSaveClassifier": "MaskInversion",
    "MaskInversionLoadClassifier": "MaskInversion",
    "MaskInversionLoadLabelled": "MaskInversion/tokens",
    "MaskInversionSampleBox": "MaskInversion/tokens",
}


@pytest.fixture
def trained(server):
    """The three regions of the zoo, and a classifier of them that the node Classify Region has instead of phrases and a CLIP."""
    graph = server.read(WORKFLOW)
    classify, inversion = node(graph, "MaskInversionClassify"), node(graph, "MaskInversion")
    clip = graph[inversion]["inputs"]["clip"]
    keep = {classify, inversion, clip[0], node(graph, "MaskInversionExample")}
    graph = {name: entry for name, entry in graph.items() if name in keep}
    inputs = {"tokens": [inversion, 0], "clip": clip, "labels": WORDS, "prior": "none", "decay": 0.001, "template": "{}"}
    graph["train"] = {"class_type": "MaskInversionTrainClassifier", "inputs": inputs | METHODS["lare"]}
    del graph[classify]["inputs"]["clip"]
    graph[classify]["inputs"]["classifier"] = ["train", 0]
    graph["labels"] = {"class_type": "PreviewAny", "inputs": {"source": [classify, 0]}}
    return graph


@pytest.mark.parametrize("method", METHODS)
def test_a_classifier_names_regions_and_goes_into_a_file_and_comes_back(server, trained, method):
    classify = node(trained, "MaskInversionClassify")
    for name in [name for name in trained["train"]["inputs"] if name.startswith("method")]:
        del trained["train"]["inputs"][name]
    trained["train"]["inputs"] |= METHODS[method]
    inputs = {"classifier": ["train", 0], "filename_prefix": f"learnt/{method}"}
    saved = {"saved": {"class_type": "MaskInversionSaveClassifier", "inputs": inputs}}
    first = server.submit(trained | saved)
    assert not first.error, first.error
    assert first.text("labels") == WORDS and first.text("saved") == f"learnt/{method}_00001_.safetensors"
    assert (server.base / "output" / first.text("saved")).is_file()
    loaded = {"file": f"learnt/{method}_00001_.safetensors [output]"}
    trained["loaded"] = {"class_type": "MaskInversionLoadClassifier", "inputs": loaded}
    trained["names"] = {"class_type": "PreviewAny", "inputs": {"source": ["loaded", 1]}}
    trained[classify]["inputs"]["classifier"] = ["loaded", 0]
    trained.pop("train")
    again = server.submit(trained)
    assert not again.error, again.error
    assert again.text("labels") == WORDS and again.text("names").split("\n") == sorted(WORDS.split("\n"))


def test_folders_of_classes_are_examples_and_boxes_give_tokens(server, trained):
    inversion = node(trained, "MaskInversion")
    graph = {name: trained[name] for name in trained if name not in ("train", "labels", node(trained, "MaskInversionClassify"))}
    for number, name in enumerate(("elephant", "penguin")):
        picked = {"tokens": [inversion, 0], "numbers": str(number)}
        graph[name] = {"class_type": "MaskInversionPick", "inputs": picked}
        saving = {"tokens": [name, 0], "filename_prefix": f"animals/{name}/region"}
        graph[f"{name} saved"] = {"class_type": "MaskInversionSaveTokens", "inputs": saving}
    assert not server.submit(graph).error
    graph = {name: trained[name] for name in trained if name != "labels"}
    graph["loaded"] = {"class_type": "MaskInversionLoadLabelled", "inputs": {"folder": "animals [output]"}}
    graph["train"]["inputs"] |= {"tokens": ["loaded", 0], "labels": ["loaded", 2]}
    graph["shown"] = {"class_type": "PreviewAny", "inputs": {"source": ["loaded", 2]}}
    inputs = {"tokens": ["loaded", 0], "classifier": ["train", 0], "count": 3, "seed": 7}
    graph["drawn"] = {"class_type": "MaskInversionSampleBox", "inputs": inputs}
    graph["seen"] = {"class_type": "TestTokens", "inputs": {"tokens": ["drawn", 0], "output": ["drawn", 1]}}
    run = server.submit(graph)
    assert not run.error, run.error
    assert run.text("shown") == "elephant\npenguin"
    found = json.loads(run.text("seen"))
    assert found["count"] == 6 and found["same"]
    assert run.text(node(graph, "MaskInversionClassify")).startswith("region 1: elephant")


def test_what_does_not_fit_is_explained(server, trained):
    classify = node(trained, "MaskInversionClassify")
    for labels, message in (("a\nb", "3 tokens and 2 labels"), ("a\na\na", "only of 'a'")):
        trained["train"]["inputs"]["labels"] = labels
        assert message in server.submit(trained).error
    trained["train"]["inputs"] |= {"labels": WORDS + "\n"} | METHODS["probe"]
    inputs = {"tokens": [node(trained, "MaskInversion"), 0], "classifier": ["train", 0], "count": 1, "seed": 0}
    trained["drawn"] = {"class_type": "MaskInversionSampleBox", "inputs": inputs}
    trained["seen"] = {"class_type": "TestTokens", "inputs": {"tokens": ["drawn", 0], "output": ["drawn", 1]}}
    assert "no boxes" in server.submit(trained).error
    for name in ("drawn", "seen"):
        del trained[name]
    del trained[classify]["inputs"]["classifier"]
    assert "connect the CLIP that made the tokens, or a classifier" in server.submit(trained).error


def test_tokens_are_no_classifier(server, trained):
    inversion = node(trained, "MaskInversion")
    saving = {"tokens": [inversion, 0], "filename_prefix": "not/a_classifier"}
    graph = {name: trained[name] for name in trained if name not in ("train", "labels", node(trained, "MaskInversionClassify"))}
    graph["saved"] = {"class_type": "MaskInversionSaveTokens", "inputs": saving}
    assert not server.submit(graph).error
    loaded = {"class_type": "MaskInversionLoadClassifier", "inputs": {"file": "not/a_classifier_00001_.safetensors [output]"}}
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["loaded", 1]}}
    assert "not one of a classifier" in server.submit({"loaded": loaded, "shown": shown}).error


@pytest.mark.parametrize("name", HELP)
def test_help(server, name):
    info = server.get(f"/object_info/{name}")[name]
    assert info["category"] == HELP[name] and info["description"]
    assert len(server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md")) > 200
