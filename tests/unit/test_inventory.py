"""What is on disk and what it can be used for, beside what the loaders themselves say of the same files."""

import json
import shutil

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from maskinversion.bundled import BUNDLED
from maskinversion.cli.main import main
from maskinversion.errors import ModelError
from maskinversion.inverter import MaskInverter
from maskinversion.models.loading import load_clip
from maskinversion.tasks.classifier import train
from maskinversion.tasks.classifier_files import save_classifier
from maskinversion.tasks.classifier_settings import TrainingSettings
from maskinversion.tasks.inventory import downloaded, inventory, look, of_weights

LAYER = "vision_model.encoder.layers.{}.layer_norm1.weight"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
# Names and shapes of the first dimensions, by which ComfyUI tells them apart; what the list says.
NATIVE = {
    "(ViT-bigG-14)": {LAYER.format(47): (1,), LAYER.format(30): (1,), LAYER.format(22): (1,)},
    "(ViT-H-14)": {LAYER.format(30): (1,), LAYER.format(22): (1,)},
    "(ViT-L-14)": {LAYER.format(22): (1,), LAYER.format(0): (1024,), POSITIONS: (257, 1)},
    "(ViT-L-14-336)": {LAYER.format(22): (1,), LAYER.format(0): (1024,), POSITIONS: (577, 1)},
    "(SigLIP so400m 384)": {LAYER.format(22): (1,), LAYER.format(0): (1152,), POSITIONS: (729, 1)},
    "(SigLIP so400m 512)": {LAYER.format(22): (1,), LAYER.format(0): (1152,), POSITIONS: (1024, 1)},
}
OTHERS = {
    "a checkpoint of a diffusion model": {"model.diffusion_model.input_blocks.0.0.weight": (1,)},
    "a LoRA": {"lora_unet_down.weight": (1,)},
    "a text encoder": {"text_model.encoder.layers.0.layer_norm1.weight": (1,)},
    "a DINO": {"encoder.layer.0.norm1.weight": (1,)},
}


def written(path, shapes):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


@pytest.mark.parametrize("name", NATIVE)
def test_comfyuis_own_files(name, tmp_path):
    found = look(written(tmp_path / "anything.safetensors", NATIVE[name]))
    assert found.what == f"an image side of a CLIP {name}" and found.use == "Load CLIP Vision, for MaskInversion"


@pytest.mark.parametrize("what", OTHERS)
def test_of_what_is_no_clip_the_list_says_what_the_loader_says(what, tmp_path):
    path = written(tmp_path / "anything.safetensors", OTHERS[what])
    found = look(path)
    assert what in found.what and not found.use
    with pytest.raises(ModelError) as raised:
        load_clip(path, device="cpu")
    assert str(raised.value) == f"{path} {found.what}"


def test_damaged_files_are_listed_with_the_loaders_words(tmp_path):
    for name, content in {"empty.safetensors": b"", "page.bin": b"<html>404", "half.safetensors": b"\x40" + 20 * b"\0"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError) as raised:
            load_clip(tmp_path / name, device="cpu")
        assert str(raised.value).endswith(look(tmp_path / name).what) and not look(tmp_path / name).use


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "ViT-H-14"])
def test_whole_clips_by_their_architecture(name, tmp_path):
    with torch.device("meta"):
        state = open_clip.create_model(name, load_weights=False, device="meta").state_dict()
    found = of_weights(tmp_path / "clip.safetensors", {key: tuple(value.shape) for key, value in state.items()})
    assert name in found.what and found.use.startswith("Load CLIP for MaskInversion, file")


def test_adapters_captioners_and_unclip(tmp_path):
    basic = {"image_proj.proj.weight": (8, 768), "image_proj.norm.weight": (2,), "ip_adapter.1.to_k_ip.weight": (1,)}
    assert look(written(tmp_path / "a.safetensors", basic)).what == "a basic IP-Adapter for embeddings of 768 numbers"
    face = look(written(tmp_path / "b.safetensors", {"image_proj.proj.0.weight": (4, 2), "ip_adapter.1.to_k_ip.weight": (1,)}))
    assert "reads something else" in face.what and not face.use
    shapes = {"image_proj.latents": (1, 4, 2), "image_proj.proj_in.weight": (2, 1280), "ip_adapter.1.to_k_ip.weight": (1,)}
    plus = look(written(tmp_path / "plus.safetensors", shapes))
    assert plus.what == "an IP-Adapter Plus for hidden states of 1280 numbers" and "SD 1.5, XL or Kolors" in plus.use
    timed = look(written(tmp_path / "timed.safetensors", shapes | {"image_proj.time_embedding.linear_1.weight": (2, 320)}))
    assert timed.what == "an IP-Adapter for hidden states of 1280 numbers" and "SD 3.5" in timed.use
    xlabs = look(written(tmp_path / "x.safetensors", {"ip_adapter_proj_model.proj.weight": (8, 768)}))
    assert "768 numbers" in xlabs.what and "FLUX or Chroma" in xlabs.use
    unclip = {"embedder.model.visual.proj": (1,), "model.diffusion_model.x": (1,)}
    assert look(written(tmp_path / "c.safetensors", unclip)).use.startswith("unCLIPCheckpointLoader")
    assert look(BUNDLED / "captioner" / "captioner.safetensors").use == "Load Captioner"


def test_what_the_pack_itself_has_written(tmp_path, bundled, scene):
    inverter = MaskInverter(bundled, iterations=1)
    tokens = inverter.invert(inverter.encode(scene[0]), [*scene[1], *scene[1]])
    tokens.save(tmp_path / "tokens.safetensors")
    assert str(look(tmp_path / "tokens.safetensors")) == "tokens.safetensors: tokens of regions -> Load Tokens"
    classifier = train([tokens], ["a", "b"] * (len(tokens) // 2), bundled, TrainingSettings("probe", steps=1))
    save_classifier(classifier, tmp_path / "classifier.safetensors")
    assert look(tmp_path / "classifier.safetensors").use == "Load Region Classifier"


def test_folders_count_once_and_say_what_they_are_for(tmp_path):
    shutil.copytree(BUNDLED / "decoder", tmp_path / "diffusers" / "kandinsky")
    shutil.copytree(BUNDLED / "decoder-inpaint", tmp_path / "diffusers" / "inpaint")
    half = shutil.copytree(BUNDLED / "decoder", tmp_path / "diffusers" / "half")
    (next(half.glob("unet/*.safetensors"))).unlink()
    for file in (tmp_path / "diffusers" / "inpaint").glob("*/*.safetensors"):
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    (tmp_path / "open_clip").mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(BUNDLED / name, tmp_path / "open_clip" / name)
    found = {one.path.name: one for one in inventory([tmp_path])}
    assert set(found) == {"kandinsky", "inpaint", "half", "open_clip"}
    assert found["kandinsky"].use == "Load Pipeline for Tokens, for new pictures"
    assert found["inpaint"].use.endswith("painting into a picture") and "as fp16" in found["inpaint"].what
    assert not found["half"].use and "not complete" in found["half"].what
    assert "local-dir:" in found["open_clip"].use
    load_clip(found["open_clip"].use.partition("; ")[2], device="cpu")


def test_doctor_prints_the_list(tmp_path, capsys):
    written(tmp_path / "clip_vision" / "h.safetensors", NATIVE["(ViT-H-14)"])
    written(tmp_path / "loras" / "other.safetensors", OTHERS["a LoRA"])
    assert main(["doctor", "--models", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "h.safetensors: an image side of a CLIP (ViT-H-14) -> Load CLIP Vision, for MaskInversion" in printed
    assert "other.safetensors" not in printed  # no node here looks into that folder
    assert main(["doctor", "--models", str(tmp_path / "nowhere")]) == 1


def test_downloads_are_listed_by_the_name_that_loads_them(tmp_path):
    folder = tmp_path / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K" / "snapshots" / "0123"
    written(folder / "open_clip_model.safetensors", {"visual.proj": (1,), "token_embedding.weight": (1,)})
    (folder / "notes.json").write_text(json.dumps({}))
    ((repository, found),) = downloaded(tmp_path)
    assert repository == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K" and "ViT-B-32/laion2b_s34b_b79k" in found.use
