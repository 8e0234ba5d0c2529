"""The nodes in a real ComfyUI, over its API."""

import json
import shutil
import time

import pytest
from PIL import Image

from tests.helpers.graphs import WORKFLOW, inversion, node
from tests.helpers.mirrored_clip import write_mirrored
from tools.comfyui_server import ROOT

BUNDLED = ROOT / "maskinversion" / "bundled"
NODES = ("MaskInversionLoadCLIP", "MaskInversion", "MaskInversionOverlay", "MaskInversionClassify", "MaskInversionExample")


@pytest.fixture
def graph(server):
    return server.read(WORKFLOW)


def report(run):
    assert not run.error
    return json.loads(run.text("report"))


def test_every_node_is_there_with_its_help(server):
    for name in NODES:
        info = server.get(f"/object_info/{name}")[name]
        assert info["category"] == "MaskInversion" and info["description"]
        assert len(server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md")) > 200


def inputs_of(groups):
    """Every (name, options) of an input's description, those of a choice's and of a growing input's own among them."""
    for kind in ("required", "optional"):
        for name, (_, *options) in groups.get(kind, {}).items():
            options = options[0] if options else {}
            yield name, options
            choices = options.get("options") or []
            for choice in choices if choices and isinstance(choices[0], dict) else []:
                yield from inputs_of(choice["inputs"])
            yield from inputs_of(options.get("template", {}).get("input", {}))


def test_every_input_and_output_says_what_it_is_for_and_every_node_is_found_by_other_words(server):
    ours = {name: info for name, info in server.get("/object_info").items() if name.startswith("MaskInversion")}
    silent = []
    for of, info in ours.items():
        tips = info.get("output_tooltips") or [None] * len(info["output"])
        silent += [(of, name) for name, options in inputs_of(info["input"]) if not options.get("tooltip")]
        silent += [(of, name) for name, tip in zip(info["output_name"], tips, strict=True) if not tip]
        silent += [] if info.get("search_aliases") else [(of, "search_aliases")]
    assert len(ours) > 30 and silent == []


def test_the_workflows_are_offered_as_templates(server):
    offered = server.get("/workflow_templates")["maskinversion-pack"]
    assert sorted(offered) == sorted(path.stem for path in WORKFLOW.parent.glob("*.json"))


@pytest.mark.parametrize("path", sorted(WORKFLOW.parent.glob("*.json")), ids=lambda path: path.stem)
def test_every_template_has_a_card(path):
    with Image.open(path.with_suffix(".jpg")) as card:
        assert card.size == (540, 200)


def test_the_workflow_has_the_nodes_own_defaults(graph, defaults):
    inputs = graph[node(graph, "MaskInversion")]["inputs"]
    assert {name: inputs[name] for name in defaults} == defaults


def test_the_workflow_ends_with_pictures_and_labels_and_the_same_bits_again(server, graph):
    first = server.submit(graph)
    assert not first.error
    pictures = server.images(first, node(graph, "PreviewImage"))
    assert len(pictures) == 3 and pictures[0].size == (384, 384)
    text = first.text(node(graph, "MaskInversionClassify"))
    assert text.count("region") == 3
    again = server.submit_anew(graph)
    assert not again.error and again.text(node(graph, "MaskInversionClassify")) == text
    second = server.images(again, node(graph, "PreviewImage"))
    assert [p.tobytes() for p in second] == [p.tobytes() for p in pictures]


def test_tokens_maps_and_clip_vision_output_belong_together_and_repeat_to_the_bit(server, defaults):
    graph = inversion(defaults, masks=3)
    found = report(server.submit(graph))
    (count, width), *others = found["tokens"]
    assert count == 3 and not others
    assert found["same"] and found["image_embeds"] == [3, width] and found["image_sizes"] == 3
    assert found["maps"] == [3, 48, 64] and 0 <= found["range"][0] < found["range"][1] <= 1
    assert found["last_hidden_state"] == found["penultimate_hidden_states"] and found["last_hidden_state"][0] == 3
    assert report(server.submit_anew(graph)) == found


def test_another_mask_on_a_picture_seen_before_gives_what_it_would_have_given_anew(server, defaults):
    server.submit(inversion(defaults, masks=1))
    found = report(server.submit(inversion(defaults, masks=2)))
    assert report(server.submit_anew(inversion(defaults, masks=2))) == found


def test_an_inversion_leaves_the_model_as_it_was(server, defaults):
    graph = inversion(defaults, masks=2)
    graph["before"] = {"class_type": "TestPlainEncode", "inputs": {"clip": ["clip", 0], "image": ["image", 0]}}
    graph["inversion"]["inputs"]["image"] = ["before", 0]
    graph["after"] = {
        "class_type": "TestPlainEncode",
        "inputs": {"clip": ["clip", 0], "image": ["image", 0], "after": ["inversion", 2]},
    }
    run = server.submit(graph)
    assert not run.error and run.text("before") == run.text("after")


@pytest.mark.parametrize("images, masks, tokens", [(1, 4, [4]), (3, 3, [1, 1, 1]), (3, 1, [1, 1, 1])])
def test_batches_that_go_together(server, defaults, images, masks, tokens):
    found = report(server.submit(inversion(defaults, images, masks)))
    assert [count for count, _ in found["tokens"]] == tokens
    assert found["maps"] == [sum(tokens), 48, 64]


@pytest.mark.parametrize("images, masks", [(2, 3), (4, 2)])
def test_batches_that_do_not(server, defaults, images, masks):
    assert f"{images} images and {masks} masks do not go together" in server.submit(inversion(defaults, images, masks)).error


def test_pairs_are_what_each_gives_alone(server, defaults):
    """The first of three pairs has the same maps as that image with that mask."""
    graph = inversion(defaults, 3, 3)
    for name, kind, source in (("first", "ImageFromBatch", "image"), ("first mask", "MaskToImage", "mask")):
        graph[name] = {"class_type": kind, "inputs": {source: [source, 0], "batch_index": 0, "length": 1}}
    graph["cut"] = {"class_type": "ImageFromBatch", "inputs": {"image": ["first mask", 0], "batch_index": 0, "length": 1}}
    graph["alone"] = {"class_type": "ImageToMask", "inputs": {"image": ["cut", 0], "channel": "red"}}
    graph["single"] = {
        "class_type": "MaskInversion",
        "inputs": graph["inversion"]["inputs"] | {"image": ["first", 0], "mask": ["alone", 0]},
    }
    for name, source in (("all", "inversion"), ("one", "single")):
        graph[f"{name} maps"] = {"class_type": "MaskToImage", "inputs": {"mask": [source, 2]}}
        graph[f"{name} shown"] = {"class_type": "PreviewImage", "inputs": {"images": [f"{name} maps", 0]}}
    run = server.submit(graph)
    assert not run.error
    every, one = (server.images(run, f"{name} shown") for name in ("all", "one"))
    assert len(every) == 3 and every[0].tobytes() == one[0].tobytes()


@pytest.mark.parametrize(
    "kind, images, message",
    [
        ("last empty", 1, "mask 2 is empty"),
        ("last empty", 3, "mask 2 is empty"),
        ("last nan", 1, "mask 2 contains NaN"),
    ],
)
def test_a_bad_mask_is_named_and_the_server_lives(server, defaults, kind, images, message):
    assert message in server.submit(inversion(defaults, images, 3, kind)).error
    assert not server.submit(inversion(defaults)).error


def test_a_mask_of_another_size_is_resized(server, defaults):
    assert report(server.submit(inversion(defaults, mask_size=(31, 90))))["maps"] == [1, 48, 64]


def test_an_image_size_that_the_model_cannot_have_is_explained(server, defaults):
    assert "use a multiple of it" in server.submit(inversion(defaults, image_size=100)).error


def test_a_file_that_is_not_there_is_explained(server, defaults):
    graph = inversion(defaults)
    graph["clip"]["inputs"] = {"source": "file", "source.weights": "(nothing found)", "source.architecture": "ViT-L-14"}
    assert "put open_clip weights into" in server.submit(graph).error


def test_a_model_folder_put_into_the_models_folder_is_offered_and_loads(server, defaults):
    folder = server.base / "models" / "open_clip" / "mine"
    folder.mkdir(parents=True)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(BUNDLED / name, folder / name)
    graph = inversion(defaults)
    expected = report(server.submit(graph))
    graph["clip"]["inputs"] = {"source": "file", "source.weights": "mine", "source.architecture": "ViT-L-14"}
    run = server.submit(graph)
    assert "clip" not in run.cached and report(run) == expected
    assert "inversion" in server.submit(graph).cached  # nothing is loaded or computed twice


def test_tokens_of_another_clip_are_refused_with_both_names(server, defaults):
    graph = inversion(defaults)
    write_mirrored(server.base / "models" / "open_clip" / "other")
    graph["other"] = {
        "class_type": "MaskInversionLoadCLIP",
        "inputs": {"source": "file", "source.weights": "other", "source.architecture": "ViT-L-14"},
    }
    graph["classify"] = {
        "class_type": "MaskInversionClassify",
        "inputs": {"tokens": ["inversion", 0], "clip": ["other", 0], "phrases": "cat\ndog", "template": "a photo of a {}"},
    }
    assert "the tokens were made with bundled, not with other" in server.submit(graph).error


def test_phrases_and_scores(server, graph):
    classify = node(graph, "MaskInversionClassify")
    graph[classify]["inputs"]["phrases"] = "an elephant\n\n  a penguin "
    for index, name in enumerate(("labels", "scores")):
        graph[name] = {"class_type": "PreviewAny", "inputs": {"source": [classify, index]}}
    run = server.submit(graph)
    assert not run.error
    labels, rows = run.text("labels").split("\n"), [row.split("\t") for row in run.text("scores").split("\n")]
    assert len(labels) == 3 and set(labels) <= {"an elephant", "a penguin"}
    assert len(rows) == 6 and [row[1] for row in rows[::2]] == labels
    graph[classify]["inputs"]["template"] = "no place"
    assert "has no {} where the phrase goes" in server.submit(graph).error


def test_an_interrupt_stops_within_a_step(server, defaults):
    server.submit(inversion(defaults))  # the model is loaded
    prompt = server.queue(inversion(defaults, iterations=10000, masks=8))
    time.sleep(3)
    assert server.get("/queue")["queue_running"]
    server.post("/interrupt", {})
    asked = time.monotonic()
    run = server.wait(prompt)
    assert run.interrupted and not run.outputs and time.monotonic() - asked < 3
    assert not server.submit(inversion(defaults, iterations=2)).error


@pytest.mark.parametrize(("images", "tokens"), [(1, [2]), (3, [1, 1])])
def test_empty_masks_are_left_out_when_that_was_chosen(server, defaults, images, tokens):
    graph = inversion(defaults, images=images, masks=3, kind="last empty", iterations=2)
    assert "mask 2 is empty" in server.submit(graph).error
    graph["inversion"]["inputs"]["empty_masks"] = "leave out"
    found = report(server.submit(graph))
    assert [rows for rows, _ in found["tokens"]] == tokens and found["maps"][0] == 2
    assert "because the mask is empty (all black): 2" in server.tail(20)
    nothing = inversion(defaults, images=1, masks=1, kind="last empty", empty_masks="leave out")
    assert "all masks are empty" in server.submit(nothing).error
