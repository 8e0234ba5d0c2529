"""Where CLIPs come from, and what people are told when one cannot be used."""

import json
import pickle
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.torch_version import TorchVersion

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.models.weights import pickles_are_unsafe
from maskinversion.tasks.caption import load_captioner


class Evil:
    def __reduce__(self):
        return (eval, ("1/0",))


def test_random_weights_by_name():
    clip = mi.load_clip("ViT-B-32/random", device="cpu")
    assert clip.encode_text(["a cat", "two dogs"]).shape == (2, 512) and clip.name == "ViT-B-32/random"


@pytest.mark.slow
def test_a_weights_file_with_its_architecture(tmp_path, own_pickles):
    torch.manual_seed(1)
    model = open_clip.create_model("ViT-B-32")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "weights.safetensors")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    clips = [mi.load_clip(str(tmp_path / f"weights.{kind}"), model="ViT-B-32", device="cpu") for kind in ("safetensors", "pt")]
    for clip in clips:
        assert torch.equal(clip.model.visual.proj, model.visual.proj)
    assert clips[0].fingerprint == clips[1].fingerprint
    with pytest.raises(mi.ModelError, match="do not fit ViT-B-16"):
        mi.load_clip(str(tmp_path / "weights.safetensors"), model="ViT-B-16")
    with pytest.raises(mi.ModelError, match="model='ViT-L-14'"):
        mi.load_clip(str(tmp_path / "weights.safetensors"))


def test_a_local_folder(tmp_path, bundled):
    vision = dict(image_size=32, patch_size=8, width=32, layers=2, head_width=16)
    text = dict(context_length=8, vocab_size=49408, width=32, heads=2, layers=1)
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(mi.ModelError, match="no weights"):
        mi.load_clip(f"local-dir:{tmp_path}")
    model = open_clip.CLIP(**config["model_cfg"])
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors")
    clip = mi.load_clip(f"local-dir:{tmp_path}", device="cpu")
    assert torch.equal(clip.model.visual.proj, model.visual.proj) and clip.fingerprint != bundled.fingerprint
    with pytest.raises(mi.ModelError, match=r"no open_clip_config\.json"):
        mi.load_clip(f"local-dir:{tmp_path / 'nowhere'}")


def test_openai_weights_get_the_activation_they_were_trained_with(monkeypatch, own_pickles):
    asked = {}

    def create_model(name, **options):
        asked.update(options, name=name)
        raise RuntimeError("Failed to download weights for tag 'openai': offline")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    with pytest.raises(mi.ModelError, match=r"could not be downloaded.*'bundled'"):
        mi.load_clip("ViT-B-16/openai")
    assert asked == {"name": "ViT-B-16", "pretrained": "openai", "force_quick_gelu": True}
    with pytest.raises(mi.ModelError):
        mi.load_clip("ViT-B-16/laion2b_s34b_b88k")
    assert asked["force_quick_gelu"] is False


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ViT-B16", "Did you mean .*ViT-B-16"),
        ("ViT-B-16/opnai", "Did you mean openai"),
        ("nothing-like-it-at-all", "there is no model called"),
        ("RN50", "vision transformer"),
        ("convnext_base", "vision transformer"),
        ("missing.safetensors", "there is no file"),
    ],
)
def test_unusable_names_are_explained(source, message):
    with pytest.raises(mi.ModelError, match=message):
        mi.load_clip(source, device="cpu")


def test_files_that_are_not_weights_are_refused(tmp_path, own_pickles):
    (tmp_path / "text.safetensors").write_bytes(b"not a model at all")
    with pytest.raises(mi.ModelError, match="not a safetensors file"):
        mi.load_clip(str(tmp_path / "text.safetensors"), model="ViT-B-32")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(mi.ModelError, match="could run code"):
        mi.load_clip(str(tmp_path / "evil.pt"), model="ViT-B-32")


@pytest.mark.parametrize(("version", "refused"), [("2.4.1", True), ("2.5.1+cu124", True), ("2.6.0", False), ("2.10.0", False)])
def test_pickles_are_refused_where_pytorch_reads_them_unsafely(version, refused, tmp_path, monkeypatch):
    """CVE-2025-32434: below 2.6 even weights_only=True can run code."""
    for module in ("weights", "loading"):
        monkeypatch.setattr(f"maskinversion.models.{module}.pickles_are_unsafe", pickles_are_unsafe)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    read = []
    monkeypatch.setattr(torch, "load", lambda *args, **options: read.append(args) or {})
    (tmp_path / "weights.pt").write_bytes(pickle.dumps({}, 2))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({}, 2))
    shutil.copy(BUNDLED / "open_clip_config.json", tmp_path / "folder")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda *args, **options: str(tmp_path / "weights.pt"))
    ways = {
        "a file": lambda: mi.load_clip(tmp_path / "weights.pt", model="ViT-B-32", device="cpu"),
        "a folder": lambda: mi.load_clip(f"local-dir:{tmp_path / 'folder'}", device="cpu"),
        "a captioner": lambda: load_captioner(tmp_path / "weights.pt", device="cpu"),
    }
    if refused:  # else it would be read from the hub
        ways["a tag"] = lambda: mi.load_clip("ViT-B-32/laion2b_s34b_b79k", device="cpu")
    for way, load in ways.items():
        with pytest.raises(Exception) as caught:
            load()
        message = "could run code (CVE-2025-32434). Use a safetensors file, or PyTorch 2.6 or newer"
        assert (isinstance(caught.value, mi.ModelError) and str(caught.value).endswith(message)) == refused, way
    assert len(read) == (0 if refused else len(ways))
    assert mi.load_clip("bundled", device="cpu").name == "bundled"


def test_a_folder_is_read_as_open_clip_reads_it(tmp_path, bundled):
    """Where that knows `local-dir:`; with several files of weights the safetensors one counts."""
    if not hasattr(open_clip.factory, "parse_model_name"):
        pytest.skip("open_clip before 3.0 does not read folders")
    theirs = open_clip.create_model(f"local-dir:{BUNDLED}").eval()
    words = open_clip.get_tokenizer(f"local-dir:{BUNDLED}")(texts := ["a cat", "two dogs"])
    with torch.no_grad():
        torch.testing.assert_close(bundled.encode_text(texts), theirs.encode_text(words), rtol=1e-4, atol=1e-5)
    shutil.copytree(BUNDLED, tmp_path / "folder", ignore=shutil.ignore_patterns("decoder*", "captioner"))
    (tmp_path / "folder" / "an_epoch.pt").write_bytes(b"not read")
    ours = mi.load_clip(f"local-dir:{tmp_path / 'folder'}", device="cpu")
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.model.state_dict().items())
    assert (ours.tower.mean, ours.tower.std) == (tuple(theirs.visual.preprocess_cfg["mean"]), (0.25, 0.25, 0.25))
    assert ours.tower.interpolation == theirs.visual.preprocess_cfg["interpolation"]


def test_a_folder_that_is_damaged(tmp_path):
    (tmp_path / "open_clip_config.json").write_text("{}")
    (tmp_path / "open_clip_model.safetensors").write_bytes((BUNDLED / "open_clip_model.safetensors").read_bytes()[:-9])
    with pytest.raises(mi.ModelError, match="not a safetensors file, or it is not complete"):
        mi.load_clip(f"local-dir:{tmp_path}")
    shutil.copy(BUNDLED / "open_clip_model.safetensors", tmp_path)
    with pytest.raises(mi.ModelError, match="does not describe a model of open_clip"):
        mi.load_clip(f"local-dir:{tmp_path}")
    config = json.loads((BUNDLED / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["width"] *= 2
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(mi.ModelError, match=r"do not fit open_clip_config\.json"):
        mi.load_clip(f"local-dir:{tmp_path}")


def test_a_clip_that_is_loaded_is_told_so(bundled):
    with pytest.raises(mi.ModelError, match="this CLIP is loaded already"):
        mi.load_clip(bundled)
