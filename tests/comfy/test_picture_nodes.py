"""The one door for pictures and masks, as the nodes use it in a real ComfyUI."""

import numpy as np
import torch

import maskinversion as mi
from tests.comfy.test_nodes import report
from tests.helpers.graphs import inversion
from tests.unit.test_pictures import B, H, W, b8, pil, scene_tokens  # noqa: F401


def everywhere(defaults, kind, count=2):
    """A graph in which all nodes that take masks are given the same ones, of a shape called `kind`."""
    graph = inversion(defaults, masks=count, kind=kind, iterations=2)
    mask, image = ["mask", 0], ["image", 0]
    graph["labels"] = {"class_type": "MaskInversionLabels", "inputs": {"image": image, "mask": mask, "labels": "a\n" * count}}
    graph["overlay"] = {
        "class_type": "MaskInversionOverlay",
        "inputs": {"image": image, "maps": ["inversion", 2], "strength": 0.5, "mask": mask},
    }
    graph["find"] = {
        "class_type": "MaskInversionRefer",
        "inputs": {"tokens": ["inversion", 0], "clip": ["clip", 0], "phrases": "cat\ndog", "one_to_one": True, "template": "{}"}
        | {"mask": mask},
    }
    graph["found"] = {"class_type": "MaskToImage", "inputs": {"mask": ["find", 0]}}
    for name in ("labels", "overlay", "found"):
        graph[f"{name} shown"] = {"class_type": "PreviewImage", "inputs": {"images": [name, 0]}}
    return graph


def results(server, graph):
    run = server.submit(graph)
    assert not run.error, run.error
    shown = [picture.tobytes() for name in ("labels", "overlay", "found") for picture in server.images(run, f"{name} shown")]
    return report(run), shown


def test_all_nodes_take_masks_of_every_shape_by_one_rule(server, defaults):
    usual = results(server, everywhere(defaults, "box"))
    assert results(server, everywhere(defaults, "four dimensions")) == usual
    assert results(server, everywhere(defaults, "five dimensions")) == usual
    one = results(server, everywhere(defaults, "box", 1))
    assert results(server, everywhere(defaults, "two dimensions", 1)) == one


def test_what_resizing_leaves_beyond_black_and_white_is_clamped(server, defaults):
    graph = everywhere(defaults, "box")
    scale = {"upscale_method": "bicubic", "width": 150, "height": 111, "crop": "disabled"}
    graph["larger"] = {"class_type": "ImageScale", "inputs": scale | {"image": ["image", 0]}}
    graph["masks"] = {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}}
    graph["larger masks"] = {"class_type": "ImageScale", "inputs": scale | {"image": ["masks", 0]}}
    graph["resized"] = {"class_type": "ImageToMask", "inputs": {"image": ["larger masks", 0], "channel": "red"}}
    for name in ("inversion", "labels", "overlay", "find"):
        inputs = graph[name]["inputs"]
        inputs |= {"mask": ["resized", 0]} | ({"image": ["larger", 0]} if "image" in inputs else {})
    found, shown = results(server, graph)
    assert found["maps"] == [2, 111, 150] and len(shown) == 5


def test_a_long_thin_picture_and_files_of_the_input_folder(server, defaults, scene_tokens):  # noqa: F811
    graph = inversion(defaults, mask_size=(8, 5000), iterations=2)
    graph["image"]["inputs"] |= {"height": 8, "width": 5000}
    assert report(server.submit(graph))["maps"] == [1, 8, 5000]
    folder, token = scene_tokens
    (server.base / "input" / "turned.png").write_bytes((folder / "turned.png").read_bytes())
    pil(b8, "RGB").save(server.base / "input" / "mask.png")  # Load Image makes 0.996 of a grey file's white
    pil(B.astype(np.uint8)).save(server.base / "input" / "faint.png")
    graph = inversion(defaults)
    graph["image"] = {"class_type": "LoadImage", "inputs": {"image": "turned.png"}}
    graph["mask"] = {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}}
    graph["save"] = {"class_type": "MaskInversionSaveTokens", "inputs": {"tokens": ["inversion", 0], "filename_prefix": "door"}}
    found = report(server.submit(graph))
    assert found["maps"] == [1, H, W]
    (saved,) = (server.base / "output").rglob("door*.safetensors")
    torch.testing.assert_close(mi.LocalizedTokens.load(saved).embeddings[0], token, rtol=1e-4, atol=1e-5)
    graph["mask"]["inputs"]["image"] = "faint.png"
    assert "Multiply it by 255" in server.submit(graph).error
