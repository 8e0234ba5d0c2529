"""Pictures and masks in a real ComfyUI: what Load Image gives, and what the nodes take."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import maskinversion as mi
from maskinversion.pictures import as_pixels
from tests.helpers.files import PICTURES, B, H, W, b8, pil, shown, write_pictures, write_scene
from tests.helpers.graphs import inversion
from tools.comfyui_server import find_comfyui

LOAD_IMAGE = """
import os, sys
folder, out, comfyui = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]
os.chdir(comfyui)
sys.path.insert(0, comfyui)
import comfy.options
comfy.options.enable_args_parsing()
import folder_paths, nodes, numpy
folder_paths.set_input_directory(folder)
numpy.savez(out, **{name: nodes.LoadImage().load_image(name)[0][0].float().numpy() for name in os.listdir(folder)})
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def by_load_image(files, tmp_path_factory):
    """What ComfyUI's own Load Image makes of the files."""
    out = tmp_path_factory.mktemp("loaded") / "loaded.npz"
    subprocess.run([sys.executable, "-c", LOAD_IMAGE, str(files), str(out), str(find_comfyui())], check=True, timeout=300)
    return np.load(out)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_file_is_what_load_image_gives(files, by_load_image, name):
    found, loaded = shown(as_pixels(str(files / name))), by_load_image[name]
    assert found.shape == loaded.shape
    bound = 2.01 / 255 if "cmyk.tif" in name else 9 / 255 if name.endswith("jpg") else 1.01 / 255  # decoders round as they like
    assert np.abs(found - loaded).max() < bound


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


def report(run):
    assert not run.error, run.error
    return json.loads(run.text("report"))


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


def test_a_long_thin_picture_and_files_of_the_input_folder(server, defaults, bundled, tmp_path):
    graph = inversion(defaults, mask_size=(8, 5000), iterations=2)
    graph["image"]["inputs"] |= {"height": 8, "width": 5000}
    assert report(server.submit(graph))["maps"] == [1, 8, 5000]
    inverter = mi.MaskInverter(bundled, lr=defaults["lr"])
    token = inverter.invert(inverter.encode(write_scene(tmp_path)), B).embeddings[0]
    (server.base / "input" / "turned.png").write_bytes((tmp_path / "turned.png").read_bytes())
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
