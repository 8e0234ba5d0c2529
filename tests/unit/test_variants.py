"""Folders of diffusers whose weights are there in other precisions, or are something else."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

import maskinversion as mi
from maskinversion.tasks.diffusion import load_decoder
from maskinversion.tasks.diffusion.variants import variant_in
from tests.helpers import small_pipelines


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    base = tmp_path_factory.mktemp("pipelines")
    return {name: small_pipelines.write(name, base) for name in ("kandinsky", "unclip")}


def weights_in(folder):
    return sorted(folder.glob("*/*.safetensors"))


def renamed(folder, variant, parts=None):
    """The weights of some parts, or all, under the name of a variant."""
    for file in weights_in(folder):
        if parts is None or file.parent.name in parts:
            file.rename(file.with_name(f"{file.stem}.{variant}.safetensors"))


@pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
@pytest.mark.parametrize("name", ["kandinsky", "unclip"])
def test_a_variant_is_loaded_where_there_is_nothing_else(name, variant, pipelines, tmp_path):
    folder = shutil.copytree(pipelines[name], tmp_path / name)
    assert variant_in(folder) is None
    renamed(folder, variant)
    assert variant_in(folder) == variant
    (unet,) = (file for file in weights_in(folder) if file.parent.name == "unet")
    found = load_decoder(folder).pipeline.unet.state_dict()
    for key, value in load_file(unet).items():
        assert torch.equal(found[key], value), key


def test_full_precision_comes_before_variants(pipelines, tmp_path):
    folder = shutil.copytree(pipelines["kandinsky"], tmp_path / "both")
    for file in weights_in(folder):
        file.with_name(f"{file.stem}.fp16.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(mi.ModelError, match="Git LFS pointer"):
        load_decoder(folder)
    for file in folder.glob("*/*.fp16.safetensors"):
        shutil.copy(file.with_name(file.name.replace(".fp16", "")), file)
    assert variant_in(folder) is None
    load_decoder(folder)


def test_parts_of_several_variants(pipelines, tmp_path):
    folder = shutil.copytree(pipelines["kandinsky"], tmp_path / "some")
    renamed(folder, "fp16", ["unet"])
    assert variant_in(folder) == "fp16"
    load_decoder(folder)
    renamed(folder, "bf16", ["movq"])
    with pytest.raises(mi.ModelError, match=r"variants that do not go together \(movq as bf16; unet as fp16\)"):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"<html>", "web page"), (b"", "is empty")],
)
def test_a_part_that_is_no_weights_is_named(content, message, pipelines, tmp_path):
    folder = shutil.copytree(pipelines["kandinsky"], tmp_path / "pointers")
    (file,) = (file for file in weights_in(folder) if file.parent.name == "unet")
    file.write_bytes(content)
    with pytest.raises(mi.ModelError, match=rf"diffusion_pytorch_model\.safetensors .*{message}"):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("name", "variant"),
    [("model.fp16-00001-of-00002", "fp16"), ("model-00001-of-00002.fp16", "fp16"), ("model-00001-of-00002", None)],
)
def test_weights_in_several_files(name, variant, tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / f"{name}.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    assert variant_in(tmp_path) == variant
