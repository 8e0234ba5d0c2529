"""ComfyUI's native CLIP_VISION: in miniature against autograd, and real files through the server.

The files are made on the fly. Three architectures that differ from the others in size only are left out, for their 4 minutes,
unless MASKINVERSION_ALL_MODELS=1.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tools.comfyui_server import ROOT, find_comfyui

NAMES = (
    "ViT-L/14",
    "ViT-H/14, ViT-bigG/14",
    "ViT-L/14-336 of LLaVA",
    "SigLIP so400m 384",
    "SigLIP so400m 512",
    "SigLIP 2 naflex",
)
CLIP = dict(patch=14, class_token=True)
SIGLIP = dict(width=1152, hidden=4304, layers=27, projection=None, class_token=False)
ARCHITECTURES = {
    "ViT-L-14": CLIP | dict(width=1024, hidden=4096, layers=24, projection=768, positions=257),
    "ViT-L-14-336": CLIP | dict(width=1024, hidden=4096, layers=24, projection=768, positions=577),
    "ViT-L-14-336-llava": CLIP | dict(width=1024, hidden=4096, layers=24, projection=768, positions=577, llava=4096),
    "ViT-H-14": CLIP | dict(width=1280, hidden=5120, layers=32, projection=1024, positions=257),
    "ViT-bigG-14": CLIP | dict(width=1664, hidden=8192, layers=48, projection=1280, positions=257),
    "SigLIP-so400m-384": SIGLIP | dict(patch=14, positions=729),
    "SigLIP-so400m-512": SIGLIP | dict(patch=16, positions=1024),
    "SigLIP2-naflex": SIGLIP | dict(patch=16, positions=256, flat=True),
}
LARGE = ("ViT-L-14-336", "ViT-bigG-14", "SigLIP-so400m-512")
EVERY = [name for name in ARCHITECTURES if name not in LARGE or os.environ.get("MASKINVERSION_ALL_MODELS")]


def write_model(path: Path, width, hidden, layers, projection, class_token, patch, positions, flat=False, llava=None) -> None:
    """Random weights under the keys by which CLIPVisionLoader recognises the architecture, in float16."""
    generator = torch.Generator().manual_seed(0)
    weights = {}

    def linear(name, out, inside, bias=True, gain=1.0):
        weight = torch.empty(out, inside, dtype=torch.float16)
        weights[f"{name}.weight"] = weight.normal_(0, gain * inside**-0.5, generator=generator)
        if bias:
            weights[f"{name}.bias"] = torch.zeros(out, dtype=torch.float16)

    def norm(name):
        weights[f"{name}.weight"] = torch.ones(width, dtype=torch.float16)
        weights[f"{name}.bias"] = torch.empty(width, dtype=torch.float16).normal_(0, 0.1, generator=generator)

    start = "vision_model.embeddings"
    linear(f"{start}.patch_embedding", width, 3 * patch * patch, bias=not class_token)
    if not flat:
        weights[f"{start}.patch_embedding.weight"] = weights[f"{start}.patch_embedding.weight"].view(width, 3, patch, patch)
    linear(f"{start}.position_embedding", positions, width, bias=False)
    if class_token:
        weights[f"{start}.class_embedding"] = torch.empty(width, dtype=torch.float16).normal_(generator=generator)
        norm("vision_model.pre_layrnorm")
    for layer in range(layers):
        block = f"vision_model.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{block}.self_attn.{part}", width, width, gain=2.0 if part[0] in "qk" else 1.0)
        linear(f"{block}.mlp.fc1", hidden, width)
        linear(f"{block}.mlp.fc2", width, hidden)
        norm(f"{block}.layer_norm1")
        norm(f"{block}.layer_norm2")
    norm("vision_model.post_layernorm")
    if projection:
        linear("visual_projection", projection, width, bias=False)
    if llava:
        linear("multi_modal_projector.linear_1", llava, width)
        linear("multi_modal_projector.linear_2", llava, llava)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)


@pytest.fixture(scope="module")
def miniatures():
    command = [sys.executable, "-m", "tests.helpers.native_small", str(find_comfyui())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_equals_autograd_and_is_left_alone(miniatures, name):
    found = miniatures[name]
    for size in (48, 80):
        assert found[f"token {size} torch.float64"] < 1e-9 and found[f"map {size} torch.float64"] < 1e-9
    assert found["token 48 torch.float32"] < 1e-4
    assert found["own"] < 1e-5  # the embedding and the hidden states are those of the model's own forward pass
    assert found["float16"] < 1e-4 and found["bfloat16"] < 1e-2 and found["dtypes"] == ["torch.float32"]
    assert found["torch.float8_e4m3fn"] < 1e-5 and found["torch.float8_e5m2"] < 1e-5
    assert found["untouched"]
    assert found["states"] == (3 if "so400m" in name else 0)


def test_dino_is_refused_in_miniature(miniatures):
    assert "no image-text space" in miniatures["DINO"] and "Use a CLIP" in miniatures["DINO"]


def inversion(defaults, file, size, masks=1, **settings):
    """A graph that encodes plainly, inverts, and encodes plainly again, with reports on each."""
    encode = {"clip_vision": ["clip", 0], "crop": "none"}
    inputs = defaults | settings | {"image": ["before", 0], "mask": ["mask", 0], "clip": ["clip", 0]}
    return {
        "image": {"class_type": "TestImage", "inputs": {"count": 1, "height": size, "width": size}},
        "mask": {"class_type": "TestMask", "inputs": {"count": masks, "height": size, "width": size, "kind": "box"}},
        "clip": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": file}},
        "plain": {"class_type": "CLIPVisionEncode", "inputs": encode | {"image": ["image", 0]}},
        "before": {"class_type": "TestOutput", "inputs": {"output": ["plain", 0], "image": ["image", 0]}},
        "inversion": {"class_type": "MaskInversion", "inputs": inputs},
        "report": {
            "class_type": "TestReport",
            "inputs": {"tokens": ["inversion", 0], "output": ["inversion", 1], "maps": ["inversion", 2]},
        },
        "output": {"class_type": "TestOutput", "inputs": {"output": ["inversion", 1], "image": ["image", 0]}},
        "later": {"class_type": "TestAfter", "inputs": {"image": ["image", 0], "after": ["inversion", 2]}},
        "plain again": {"class_type": "CLIPVisionEncode", "inputs": encode | {"image": ["later", 0]}},
        "after": {"class_type": "TestOutput", "inputs": {"output": ["plain again", 0], "image": ["image", 0]}},
    }


FADED, PATCHES = "faded by the map", "patches of the region only"
WAYS = {FADED: ["inversion", 2], PATCHES: ["mask", 0]}


def with_regions(graph):
    """The same with the hidden states of the regions in two ways, compared with those of the pictures."""
    graph = dict(graph)
    for way, seen in WAYS.items():
        inputs = graph["inversion"]["inputs"] | {"region_hidden_states": way}
        compared = {"whole": ["inversion", 1], "region": [way, 1], "seen": seen, "choice": way}
        graph[way] = {"class_type": "MaskInversion", "inputs": inputs}
        graph[f"{way}, compared"] = {"class_type": "TestRegion", "inputs": compared}
        graph[f"{way}, output"] = {"class_type": "TestOutput", "inputs": {"output": [way, 1], "image": ["image", 0]}}
    return graph | {
        "kept": {"class_type": "TestEncodings", "inputs": {"clip_vision": ["clip", 0], "after": ["inversion", 2]}},
        "kept again": {"class_type": "TestEncodings", "inputs": {"clip_vision": ["clip", 0], "after": [PATCHES, 2]}},
    }


def with_conditioning(graph):
    """The same with unCLIPConditioning as a consumer."""
    inputs = {"strength": 1.0, "noise_augmentation": 0.0, "conditioning": ["empty", 0], "clip_vision_output": ["inversion", 1]}
    return graph | {
        "empty": {"class_type": "TestConditioning", "inputs": {}},
        "conditioning": {"class_type": "unCLIPConditioning", "inputs": inputs},
        "conditioned": {"class_type": "TestConditioned", "inputs": {"conditioning": ["conditioning", 0]}},
    }


@pytest.fixture(scope="module", params=EVERY)
def model(request, server):
    """The name of an architecture, and of its file; only one file is there at a time."""
    file = server.base / "models" / "clip_vision" / f"{request.param}.safetensors"
    write_model(file, **ARCHITECTURES[request.param])
    yield request.param, file.name
    file.unlink()
    server.forget()


@pytest.mark.slow
def test_a_native_model_in_the_server(server, defaults, model):
    name, file = model
    shape = ARCHITECTURES[name]
    size = int((shape["positions"] - shape["class_token"]) ** 0.5) * shape["patch"]
    run = server.submit(with_regions(with_conditioning(inversion(defaults, file, size, masks=2, iterations=2))))
    assert not run.error, run.error
    read = {node: json.loads(run.text(node)) for node in ("before", "output", "after", "report")}
    before, output, report = read["before"], read["output"], read["report"]

    assert before == read["after"]  # other users of the model get the same bits
    width = shape["projection"] or shape["width"]
    assert report["tokens"] == [[2, width]] and report["same"] and output["image_embeds"] == [2, width]
    assert report["maps"] == [2, size, size] and 0 <= report["range"][0] < report["range"][1] <= 1
    assert json.loads(run.text("conditioned")) == [[2, width]]

    assert output["finite"] and set(output) == set(before)  # complete, and of the shape of a plain encoding of two pictures
    states = [field for field in before["digest"] if field.endswith(("hidden_state", "hidden_states"))]
    for way in WAYS:
        compared, region = (json.loads(run.text(f"{way}, {what}")) for what in ("compared", "output"))
        assert len(compared["errors"]) == len(states) and max(compared["errors"]) < 1e-6, way
        assert output["digest"]["image_embeds"] == region["digest"]["image_embeds"]
        for field in set(before["digest"]) - {"image_embeds"}:
            assert output[field] == [2, *before[field][1:]] and output["digest"][field] != region["digest"][field], field
            assert way != FADED or region[field] == output[field], field
    assert output["image_sizes"] == [[3, size, size]] * 2
    assert run.text("kept") == run.text("kept again") and len(json.loads(run.text("kept"))) == 1  # the picture was encoded once


@pytest.fixture
def dino(server):
    """A file that is recognised as DINOv2: one key is enough."""
    file = server.base / "models" / "clip_vision" / "dinov2-large.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({"encoder.layer.23.layer_scale2.lambda1": torch.ones(1024)}, file)
    yield file.name
    file.unlink()


def test_dino_is_refused_with_what_to_use(server, defaults, dino):
    graph = inversion(defaults, dino, 56)
    graph = {node: graph[node] for node in ("image", "mask", "clip", "inversion", "report")}
    graph["inversion"]["inputs"]["image"] = ["image", 0]
    error = server.submit(graph).error
    assert "dinov2" in error and "no image-text space" in error and "ViT-L-14" in error


def test_classify_does_not_take_a_model_that_cannot_read_text(server, defaults, dino):
    graph = inversion(defaults, dino, 56)
    graph = {node: graph[node] for node in ("image", "mask", "clip", "inversion")}
    graph["inversion"]["inputs"]["image"] = ["image", 0]
    graph["classify"] = {
        "class_type": "MaskInversionClassify",
        "inputs": {"tokens": ["inversion", 0], "clip": ["clip", 0], "phrases": "cat", "template": "a {}"},
    }
    with pytest.raises(ValueError, match="CLIP_VISION"):
        server.queue(graph)
