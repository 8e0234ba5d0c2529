"""The one ComfyUI server of a test session, and what it has in its folders."""

from pathlib import Path

import pytest

from tools.comfyui_server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    modules = [Path(__file__).parents[1] / "helpers" / f"{name}.py" for name in ("comfy_test_nodes", "comfy_small_models")]
    with Server(tmp_path_factory.mktemp("comfyui") / "base", *modules) as running:
        yield running


@pytest.fixture
def defaults(server):
    """The widgets of the node MaskInversion as they are when nobody touches them."""
    inputs = server.get("/object_info/MaskInversion")["MaskInversion"]["input"]["required"]
    return {name: options["default"] for name, (_, options) in inputs.items() if "default" in options}


@pytest.fixture(scope="session")
def pipelines(server):
    """All of them in the server's models folder; its unCLIP has the bundled CLIP's projection, and `other/unclip` has not."""
    from safetensors.torch import load_file

    from tests.helpers.small_pipelines import BUNDLED, NAMES, vision, write, write_adapter

    base = server.base / "models" / "diffusers"
    for name in NAMES:
        write(name, base)
    bundled = load_file(BUNDLED / "open_clip_model.safetensors")
    vision(bundled["visual.proj"]).save_pretrained(base / "unclip" / "image_encoder")
    vision().save_pretrained(write("unclip", base / "other") / "image_encoder")
    for name in ("sd", "sdxl"):
        file = write_adapter(name, base)
        target = server.base / "models" / "ipadapter" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
