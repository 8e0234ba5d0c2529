"""Packages that one task needs: the others work without them, and the task says in one sentence what to install."""

import importlib.metadata
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from maskinversion import packages
from maskinversion.errors import PackageError
from maskinversion.tasks.diffusion import load_decoder
from maskinversion.tasks.refer import assign

ROOT = Path(__file__).parents[2]


@pytest.fixture
def versions(monkeypatch):
    """What seems to be installed."""
    there = {"transformers": "4.57.1", "huggingface-hub": "0.36.0", "safetensors": "0.6.2", "diffusers": "0.35.2"}

    def version(package):
        if package not in there:
            raise importlib.metadata.PackageNotFoundError(package)
        return there[package]

    monkeypatch.setattr(packages, "version", version)
    return there


KEPT = "huggingface-hub==0.36.0 safetensors==0.6.2 transformers==4.57.1"


def test_a_package_that_is_missing(versions):
    del versions["diffusers"]
    with pytest.raises(PackageError) as caught:
        load_decoder("bundled")
    assert str(caught.value) == f"a picture of a token needs the package diffusers: python -m pip install diffusers {KEPT}"
    with pytest.raises(PackageError, match="a one-to-one assignment needs the package scipy: python -m pip install scipy"):
        assign([[1.0]])


def test_a_package_that_is_not_called_as_its_module(versions):
    with pytest.raises(PackageError, match="a map needs the package scikit-learn: python -m pip install scikit-learn"):
        packages.require("sklearn.manifold", "a map")


def test_a_package_that_is_too_old(versions):
    versions["diffusers"] = "0.9.0"
    with pytest.raises(PackageError) as caught:
        load_decoder("bundled")
    assert str(caught.value) == (
        f"a picture of a token needs diffusers 0.31 or newer, and this is 0.9.0: python -m pip install --upgrade diffusers {KEPT}"
    )


@pytest.mark.parametrize("error", [ImportError("no such name\nin it"), OSError("no such name"), TypeError("no such name")])
def test_a_package_that_does_not_fit_those_beside_it(versions, monkeypatch, error):
    def fail(name):
        if name == "diffusers":
            raise error

    monkeypatch.setattr(packages, "import_module", fail)
    with pytest.raises(PackageError) as caught:
        load_decoder("bundled")
    assert str(caught.value) == (
        f"a picture of a token needs the package diffusers, and diffusers 0.35.2 does not work with what is installed beside it "
        f"(no such name): python -m pip install --upgrade diffusers {KEPT}"
    )


def test_a_pipeline_that_diffusers_cannot_import(versions, monkeypatch):
    """diffusers imports its parts when they are asked for, and fails with RuntimeError then."""

    class Broken:
        __version__ = "0.35.2"

        class DiffusionPipeline:
            load_config = staticmethod(lambda source: {"_class_name": "KandinskyV22Pipeline"})

        def __getattr__(self, name):
            raise RuntimeError("Failed to import diffusers.pipelines.kandinsky2_2")

    monkeypatch.setattr(packages, "import_module", lambda name: Broken())
    with pytest.raises(PackageError, match=r"does not work with what is installed beside it \(Failed to import .*--upgrade"):
        load_decoder("bundled")


@pytest.mark.slow
def test_everything_else_works_without_them(tmp_path):
    """All modules of the library are imported, a region is found and named, while none of these can be."""
    blocked = ("accelerate", "diffusers", "matplotlib", "pycocotools", "scipy", "transformers")
    script = f"""
        import importlib, pkgutil, sys

        class Blocked:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {blocked}:
                    raise ImportError(name + " is blocked")

        sys.meta_path.insert(0, Blocked())
        import maskinversion as mi
        from maskinversion.cli.main import main

        for module in pkgutil.walk_packages(mi.__path__, "maskinversion."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        found = main(["demo", "--out", sys.argv[1]])
        assert not {set(blocked)} & {{name.partition(".")[0] for name in sys.modules}}
        sys.exit(found)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "What the tokens say" in done.stdout and len(list(tmp_path.glob("*.png"))) > 1
