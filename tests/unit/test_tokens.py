"""Saving, loading, painting, and the command line."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import maskinversion as mi
from maskinversion.bundled import EXAMPLES, load_example
from maskinversion.cli.main import main
from maskinversion.drawing.overlay import overlay


@pytest.fixture
def tokens(bundled, scene):
    inverter = mi.MaskInverter(bundled, iterations=3, alpha=2.0)
    return inverter.invert(inverter.encode(scene[0]), scene[1])


def test_tokens_come_back_as_they_were(tokens, tmp_path):
    tokens.save(tmp_path / "new" / "x.safetensors")
    back = mi.LocalizedTokens.load(tmp_path / "new" / "x.safetensors")
    for name in ("embeddings", "maps", "losses", "iou", "global_embedding"):
        assert torch.equal(getattr(back, name), getattr(tokens, name))
    assert (back.model, back.fingerprint, back.geometry) == ("bundled", tokens.fingerprint, tokens.geometry)
    assert back.parameters["alpha"] == 2.0 and back.parameters["iterations"] == 3
    assert torch.equal(back.maps_for(), tokens.maps_for()) and back.maps_for((10, 20)).shape == (2, 10, 20)


def test_a_failed_save_leaves_what_was_there(tokens, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    tokens.save(path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("maskinversion.tokens.save_file", fail)
    with pytest.raises(OSError):
        tokens.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name, message in (("text", "not a complete safetensors"), ("other", "not one of localized tokens"), ("none", "no file")):
        with pytest.raises(mi.InputError, match=message):
            mi.LocalizedTokens.load(tmp_path / f"{name}.safetensors")


def test_overlay_is_bright_where_the_map_is():
    image, heat, mask = torch.full((60, 90, 3), 0.5), torch.zeros(60, 90), torch.zeros(60, 90)
    heat[20:40, 30:60] = mask[20:40, 30:60] = 1
    painted = overlay(image, heat, mask)
    assert painted[30, 45].mean() > 0.7 > 0.3 > painted[5, 5].mean()
    assert (painted[19, 45] == 1).all() and painted.min() >= 0 and painted.max() <= 1
    assert torch.equal(overlay(image, heat, strength=0.0), image)
    with pytest.raises(mi.InputError, match="same size"):
        overlay(image, heat[:10])


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_have_a_mask_for_every_name(name):
    example = load_example(name)
    assert example.masks.shape == (len(example.names), example.image.height, example.image.width)
    assert (example.masks.amax((1, 2)) == 1).all() and example.masks.sum(0).max() <= 1.02


@pytest.fixture
def files(tmp_path, scene):
    image, masks = scene
    Image.fromarray((image * 255).byte().numpy()).save(tmp_path / "picture.png")
    for i, mask in enumerate(masks):
        Image.fromarray((mask * 255).byte().numpy()).save(tmp_path / f"mask{i}.png")
    return tmp_path


def test_invert_then_classify_on_the_command_line(files, capsys):
    masks = ["--mask", str(files / "mask0.png"), "--mask", str(files / "mask1.png")]
    assert (
        main(["invert", str(files / "picture.png"), *masks, "--out", str(files / "out"), "--iterations", "3", "--device", "cpu"])
        == 0
    )
    assert sorted(p.name for p in (files / "out").iterdir()) == ["overlay-0.png", "overlay-1.png", "tokens.safetensors"]
    assert Image.open(files / "out" / "overlay-1.png").size == (128, 96)
    capsys.readouterr()
    phrases = ["--phrase", "cat", "--phrase", "bus", "--json", "--device", "cpu"]
    assert main(["classify", str(files / "out" / "tokens.safetensors"), *phrases]) == 0
    from_tokens = json.loads(capsys.readouterr().out)
    assert main(["classify", str(files / "picture.png"), *masks, "--iterations", "3", *phrases]) == 0
    assert json.loads(capsys.readouterr().out) == from_tokens
    assert (
        len(from_tokens) == 2
        and set(from_tokens[0]) == {"cat", "bus"}
        and sum(from_tokens[0].values()) == pytest.approx(1, abs=1e-3)
    )


def test_demo_and_doctor(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert "croissant" in capsys.readouterr().out and len(list(tmp_path.glob("overlay-*.png"))) == 3
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "open_clip_torch" in printed and "bundled model" in printed and "device" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invert", "none.png", "--mask", "mask0.png", "--out", "out"], "there is no file none.png"),
        (["invert", "picture.png", "--mask", "notes.txt", "--out", "out"], "not a picture"),
        (["invert", "picture.png", "--mask", "mask0.png", "--out", "out", "--clip", "ViT-B16"], "Did you mean"),
        (["classify", "picture.png"], "--mask"),
        (["classify", "picture.png", "--mask", "mask0.png", "--phrases", "none.txt"], "could not be read"),
    ],
)
def test_the_command_line_explains_in_one_line(files, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(files)
    (files / "notes.txt").write_text("hello")
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (files / "out").exists()
