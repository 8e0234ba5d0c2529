"""Where CLIPs come from, and what people are told when one cannot be used."""

import json
import pickle

import open_clip
import pytest
import torch
from safetensors.torch import save_file

import maskinversion as mi


class Evil:
    def __reduce__(self):
        return (eval, ("1/0",))


def test_random_weights_by_name():
    clip = mi.load_clip("ViT-B-32", device="cpu")
    assert clip.encode_text(["a cat", "two dogs"]).shape == (2, 512) and clip.name == "ViT-B-32"


@pytest.mark.slow
def test_a_weights_file_with_its_architecture(tmp_path):
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


def test_openai_weights_get_the_activation_they_were_trained_with(monkeypatch):
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


def test_files_that_are_not_weights_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_bytes(b"not a model at all")
    with pytest.raises(mi.ModelError, match="not a safetensors file"):
        mi.load_clip(str(tmp_path / "text.safetensors"), model="ViT-B-32")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(mi.ModelError, match="could run code"):
        mi.load_clip(str(tmp_path / "evil.pt"), model="ViT-B-32")
