"""Files of weights: what is in them decides, and each that is something else is named, with the way out."""

import io
import json
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.models import torchscript
from maskinversion.models.fitting import hint
from maskinversion.models.weights import read_weights

CONFIG = "open_clip_config.json"
OWN = BUNDLED / "open_clip_model.safetensors"
TINY = "tiny-for-tests"
pytestmark = pytest.mark.usefixtures("own_pickles")


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory):
    """The bundled CLIP as one of open_clip's architectures, so that a file of its weights can be given with `model`."""
    file = tmp_path_factory.mktemp("configs") / f"{TINY}.json"
    file.write_text(json.dumps(json.loads((BUNDLED / CONFIG).read_text())["model_cfg"]))
    open_clip.add_model_config(file)
    yield
    open_clip.factory._MODEL_CONFIG_PATHS.remove(file)
    del open_clip.factory._MODEL_CONFIGS[TINY]


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return load_file(OWN)


def load(file: Path, entrance: str) -> mi.Clip:
    """The same weights through each entrance of the library."""
    if entrance == "a file":
        return mi.load_clip(file, model=TINY, device="cpu")
    folder = file.parent / "folder"
    folder.mkdir(exist_ok=True)
    shutil.copy(BUNDLED / CONFIG, folder)
    shutil.copy(file, folder)
    return mi.load_clip(f"local-dir:{folder}" if entrance == "local-dir:" else folder, device="cpu")


ENTRANCES = ("a file", "local-dir:", "a folder")


def torch_saved(file: Path, weights: dict, **options) -> None:
    torch.save(weights, file, **options)


def trained(file: Path, weights: dict) -> None:
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 32, "name": "a run", "state_dict": wrapped, "optimizer": {"state": {}, "param_groups": []}}, file)


def halved(weights: dict) -> dict:
    return {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}


READ = {
    "weights.safetensors": lambda file, weights: save_file(weights, file),
    "WEIGHTS.SAFETENSORS": lambda file, weights: save_file(weights, file),
    "half.safetensors": lambda file, weights: save_file(halved(weights), file),
    "weights.pt": torch_saved,
    "weights.bin": torch_saved,
    "weights.pth": torch_saved,
    "weights.ckpt": torch_saved,
    "Weights.PT": torch_saved,
    "old.pt": lambda file, weights: torch_saved(file, weights, _use_new_zipfile_serialization=False),
    "safetensors-inside.pt": lambda file, weights: save_file(weights, file),
    "pickle-inside.safetensors": torch_saved,
    "epoch_32.pt": trained,
    "compiled.pt": lambda file, weights: torch_saved(file, {f"_orig_mod.{key}": value for key, value in weights.items()}),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", READ)
def test_weights_are_read_whatever_their_file_is_called(name, entrance, tmp_path, weights, bundled):
    READ[name](tmp_path / name, weights)
    clip = load(tmp_path / name, entrance)
    assert clip.fingerprint == bundled.fingerprint
    limit = 1e-3 if name == "half.safetensors" else 0
    for key, value in clip.model.state_dict().items():
        torch.testing.assert_close(value, bundled.model.state_dict()[key], rtol=limit, atol=limit)


def archived(value: object, name: str = "archive/data.pkl") -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, value)
    return data.getvalue()


SAFE = OWN.read_bytes()
HEADER = struct.pack("<Q", 10) + b'{"a": nope'
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 3456\n"


def saved(value: object) -> bytes:
    data = io.BytesIO()
    torch.save(value, data)
    return data.getvalue()


BAD = {
    "pointer.safetensors": (POINTER, "Git LFS pointer.*git lfs pull"),
    "pointer.pt": (POINTER, "Git LFS pointer.*git lfs pull"),
    "page.safetensors": (b"\n<!DOCTYPE html><html><head><title>Sign in", "web page.*download it again"),
    "page.bin": (b"<html>\n<body>404", "web page.*download it again"),
    "message.pt": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "message of a server"),
    "error.pt": (b'{"error": "Invalid credentials"}', r"text \(JSON\)"),
    "index.json": (b'{"weight_map": {}}', r"text \(JSON\)"),
    "empty.safetensors": (b"", "is empty: download"),
    "empty.pt": (b"", "is empty: download"),
    "half-downloaded.safetensors": (SAFE[: len(SAFE) // 2], "not complete.*download it again"),
    "short.safetensors": (SAFE[:100], "not complete.*download it again"),
    "damaged.safetensors": (HEADER, "not a safetensors file"),
    "words.safetensors": (b"not a model at all", "not a safetensors file"),
    "words.pt": (b"not a model at all", "neither a safetensors file nor one of PyTorch"),
    "notes.txt": (b"not a model at all", "neither a safetensors file nor one of PyTorch"),
    "quantised.gguf": (b"GGUF\3\0\0\0", "GGUF.*take the safetensors"),
    "gguf.bin": (b"GGUF\3\0\0\0", "GGUF.*take the safetensors"),
    "array.bin": (b"\x93NUMPY\1\0", "NumPy"),
    "keras.ckpt": (b"\x89HDF\r\n", "HDF5"),
    "packed.pt": (b"\x1f\x8b\x08\0", "packed archive.*unpack it"),
    "packed.ckpt": (b"7z\xbc\xaf\x27\x1c", "packed archive.*unpack it"),
    "zipped.pt": (archived("weights", "weights.txt"), "zip archive of something else"),
    "cut.pt": (archived("x" * 10_000)[:5000], "not complete"),
    "nothing.pt": (saved({}), "no weights: use"),
    "list.pt": (saved([1, 2]), "other things than weights"),
    "cut-pickle.pt": (pickle.dumps({"a": list(range(1000))}, 2)[:50], "not a file of weights, or it is not complete"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_file_of_weights_is_named_at_every_entrance(name, tmp_path):
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    in_folders = Path(name).suffix not in (".txt", ".json", ".gguf")
    for entrance in ENTRANCES if in_folders else ENTRANCES[:1]:
        with pytest.raises(mi.ModelError, match=rf"{name} .*{message}") as caught:
            load(tmp_path / name, entrance)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


class Evil:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", ["evil.pt", "evil.safetensors", "evil.ckpt"])
def test_what_could_run_code_is_refused(name, entrance, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps({"state_dict": Evil()}, 2))
    with pytest.raises(mi.ModelError, match="could run code"):
        load(tmp_path / name, entrance)


CLASS_TOKEN, UNET = "vision_model.embeddings.class_embedding", "model.diffusion_model.out.2.weight"
ALIKE = {
    "ComfyUI's vision file": ({CLASS_TOKEN: 8, "visual_projection.weight": 8}, "Load CLIP Vision.*transformers"),
    "a whole CLIPModel": ({CLASS_TOKEN: 8, "text_model.final_layer_norm.weight": 8}, "Load CLIP Vision"),
    "a text encoder": ({"text_model.final_layer_norm.weight": 8}, "text encoder without an image side"),
    "a checkpoint": ({UNET: 8, "first_stage_model.a": 8}, "checkpoint of a diffusion model.*Load Checkpoint"),
    "an IP-Adapter": ({"image_proj.proj.weight": 8, "ip_adapter.1.to_k_ip.weight": 8}, "IP-Adapter, not a CLIP"),
    "a LoRA": ({"lora_te_text_model.alpha": 1}, "is a LoRA"),
    "an adapter of PEFT": ({"base_model.model.a.lora_A.weight": 8}, "adapter of PEFT.*merge_and_unload"),
    "DINOv2": ({"encoder.layer.0.layer_scale1.lambda1": 8}, "never saw text"),
    "timm's": ({"blocks.0.attn.qkv.weight": 8}, "image model of timm"),
    "a captioner": ({"clip_project.model.0.weight": 8}, "captioner"),
    "an image side alone": ({"visual.proj": 8, "visual.class_embedding": 8}, "image side of a CLIP alone.*Load CLIP Vision"),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_weights_of_other_models_are_named(kind, tmp_path):
    shapes, message = ALIKE[kind]
    save_file({key: torch.ones(size) for key, size in shapes.items()}, tmp_path / "model.safetensors")
    for entrance in ENTRANCES:
        with pytest.raises(mi.ModelError, match=message):
            load(tmp_path / "model.safetensors", entrance)
    with pytest.raises(mi.ModelError, match=message):
        mi.load_clip(tmp_path / "model.safetensors")  # without `model`


def test_weights_that_do_not_fit_say_where(tmp_path, weights):
    def refused(changed: dict, message: str) -> None:
        save_file(changed, tmp_path / "w.safetensors")
        with pytest.raises(mi.ModelError, match=message):
            load(tmp_path / "w.safetensors", "a file")

    key = "visual.transformer.resblocks.0.mlp.c_fc.weight"
    refused({k: v for k, v in weights.items() if k != key}, f"{key} is missing.*choose the model")
    refused(weights | {"more": torch.ones(2)}, "has no more")
    refused(weights | {key: torch.ones(3, 5)}, rf"{key} is \[3, 5\]")
    refused(weights | {key: torch.ones(weights[key].shape, dtype=torch.int8)}, f"is quantised .*{key}")


def test_weights_without_an_architecture_say_which_have_their_shapes(tmp_path, weights):
    assert "They have the shapes of ViT-B-32 or ViT-B-32-quickgelu" in hint(vit_b_32()) and hint(weights) == ""
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(mi.ModelError, match=r"does not say which architecture it is for.*model='ViT-L-14'"):
        mi.load_clip(tmp_path / "w.safetensors")


def vit_b_32() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return open_clip.CLIP(**open_clip.get_model_config("ViT-B-32")).state_dict()


# --- OpenAI's archives


class Inner(torch.nn.Module):
    """A model of the same tensors, which TorchScript can compile; and the numbers that OpenAI's archives have besides."""

    def __init__(self, weights: dict[str, torch.Tensor]):
        super().__init__()
        for key, value in weights.items():
            parent: torch.nn.Module = self
            *path, last = key.split(".")
            for name in path:
                if not hasattr(parent, name):
                    parent.add_module(name, torch.nn.Module())
                parent = getattr(parent, name)
            parent.register_buffer(last, value)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def archive(weights: dict[str, torch.Tensor], file: Path) -> None:
    torch.jit.script(Inner(weights)).save(str(file))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_an_archive_of_openai_is_read_without_running_it(entrance, tmp_path, weights, bundled, monkeypatch):
    archive(halved(weights), tmp_path / "ViT.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    clip = load(tmp_path / "ViT.pt", entrance)
    assert clip.fingerprint == bundled.fingerprint
    if entrance == "a file":  # OpenAI's models have another activation than those that are called the same
        assert type(clip.model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_an_archive_has_the_tensors_that_torch_finds_in_it(tmp_path, weights):
    shared = torch.arange(24.0).view(4, 6)
    tensors = weights | {"a.rows": shared[1:3], "a.turned": shared.T, "a.empty": torch.ones(0, 3), "b.number": torch.tensor(3)}
    archive(tensors, tmp_path / "w.pt")
    expected, found = torch.jit.load(tmp_path / "w.pt").state_dict(), read_weights(tmp_path / "w.pt")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


def rewritten(file: Path, pickled: bytes) -> None:
    """The same archive with another list of weights."""
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in members.items():
            new.writestr(name, pickled if name.endswith("/data.pkl") else content)


DEEP = b"\x80\x02" + b")" + b"\x85" * 200_000
PICKLES = {
    "calls eval": b"\x80\x02c__builtin__\neval\nX\x03\x00\x00\x001/0\x85R.",
    "asks for a class": b"\x80\x02cos\nsystem\n)\x81.",
    "another instruction": pickle.dumps({1, 2}, 4),
    "deeply nested": DEEP + b"X\x01\x00\x00\x00a\x86.",
    "deeply nested as a name": b"\x80\x02}" + DEEP[2:] + b"K\x01s.",
    "no module": pickle.dumps({"a": 1}, 2),
    "cut": b"\x80\x02c__torch__.A\nA\n)",
    "a mark that is not there": b"\x80\x02u.",
    "nothing": b"\x80\x02.",
    "an index far away": b"\x80\x02}r\xff\xff\xff\x7f.",
    "beyond its numbers": None,
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("case", PICKLES)
def test_a_hostile_archive_is_refused(case, tmp_path, weights):
    file = tmp_path / "w.pt"
    archive({"a": torch.ones(4, 4)}, file)
    pickled = PICKLES[case]
    if pickled is None:
        with zipfile.ZipFile(file) as opened:
            (name,) = (name for name in opened.namelist() if name.endswith("/data.pkl"))
            pickled = opened.read(name).replace(b"(K\x04K\x04t", b"(K\x09K\x04t")
    rewritten(file, pickled)
    with pytest.raises(mi.ModelError, match="TorchScript archive whose weights cannot be read"):
        torchscript.read_torchscript(file)


# --- folders and names


def test_a_folder_with_several_files_of_weights(tmp_path, bundled, weights):
    shutil.copy(BUNDLED / CONFIG, tmp_path)
    for epoch in (1, 32):
        torch.save(weights, tmp_path / f"epoch_{epoch}.pt")
    with pytest.raises(mi.ModelError, match=r"several files of weights \(epoch_1\.pt, epoch_32\.pt\): keep the one"):
        mi.load_clip(tmp_path, device="cpu")
    (tmp_path / "epoch_1.pt").unlink()
    assert mi.load_clip(tmp_path, device="cpu").fingerprint == bundled.fingerprint
    (tmp_path / "model.safetensors").write_bytes(b"of transformers, beside it")
    torch.save(weights, tmp_path / "open_clip_pytorch_model.bin")
    assert mi.load_clip(tmp_path, device="cpu").fingerprint == bundled.fingerprint


def test_other_folders_are_named(tmp_path):
    with pytest.raises(mi.ModelError, match="no open_clip_config"):
        mi.load_clip(tmp_path)
    shutil.copy(OWN, tmp_path / "w.safetensors")
    with pytest.raises(mi.ModelError, match=r"For its w\.safetensors alone give that file"):
        mi.load_clip(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(mi.ModelError, match=r"folder of transformers.*Load CLIP Vision"):
        mi.load_clip(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(mi.ModelError, match="pipeline of diffusers"):
        mi.load_clip(tmp_path)
    with pytest.raises(mi.ModelError, match="give it without 'local-dir:'"):
        mi.load_clip(f"local-dir:{tmp_path / 'w.safetensors'}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ViT-B-16", r"does not say which weights: choose some, such as ViT-B-16/openai.*ViT-B-16/random"),
        ("ViT-S-32", r"does not say which weights: give a file.*ViT-S-32/random"),
        ("ViT-S-32/openai", r"ViT-S-32 has no released weights.*'openai' are there for .*ViT-B-32"),
        ("ViT-S-32/nothing", r"ViT-S-32 has no released weights.*model='ViT-S-32'"),
        ("ViT-B-16/", "does not say which weights"),
        ("w.SAFETENSORS", "there is no file"),
        ("w.ckpt", "there is no file"),
        ("hf-hub:timm/vit", "download its files into a folder"),
        ("RN50/openai", "no vision transformer"),
    ],
)
def test_names_are_explained(source, message):
    with pytest.raises(mi.ModelError, match=message):
        mi.load_clip(source, device="cpu")


def test_the_command_line_takes_no_random_weights_unasked(tmp_path):
    given = ["invert", "p.png", "--mask", "m.png", "--out", str(tmp_path), "--clip", "ViT-B-16"]
    command = [sys.executable, "-m", "maskinversion", *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode and "does not say which weights" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(not hasattr(__import__("os"), "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "w.safetensors")
    with pytest.raises(mi.ModelError, match="pipe or a device"):
        mi.load_clip(tmp_path / "w.safetensors", model=TINY)
