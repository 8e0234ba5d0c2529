"""Installing changes nothing that is there: pip resolves what this project asks for in environments of the last two years.

The environments and the index are made of releases.json, see releases.py: real versions with what they really ask for.
"""

import json
import shutil
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pip
import pytest

import start
from tests.helpers import releases

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
LIBRARY = json.loads(next(line for line in PROJECT if line.startswith("dependencies = ")).partition("=")[2])
KNOWN = releases.known()
MISSING = {
    "all is there": (),
    "no diffusers": ("diffusers",),
    "no open_clip": ("open-clip-torch",),
    "a plain ComfyUI": ("accelerate", "diffusers", "open-clip-torch", "timm"),
}


class Environment:
    """A virtual environment with these packages; nothing is ever really installed. shared: with the index, and pip."""

    def __init__(self, folder: Path, packages: dict[str, str], shared: Path):
        self.packages, self.shared, self.folder = packages, shared, folder
        venv.create(folder, symlinks=sys.platform != "win32")
        self.python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        releases.install(next(folder.rglob("site-packages")), packages, KNOWN["releases"])

    def pip(self, *arguments: object) -> str:
        return releases.pip(*arguments, python=self.python, path=self.shared)

    def changed_by(self, *arguments: object) -> dict[str, tuple[str, str]]:
        """What is there and would be another version after `pip install`."""
        index = ("--no-index", "--find-links", self.shared / "index")
        found = releases.would_install(*index, *arguments, python=self.python, path=self.shared)
        return {name: (self.packages[name], one["version"]) for name, one in found.items() if name in self.packages}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared")
    (shared / "index").mkdir()
    releases.make_wheels(shared / "index", KNOWN["releases"])
    shutil.copytree(Path(pip.__file__).parent, shared / "pip")

    def make(name: str, missing: tuple[str, ...] = ()) -> Environment:
        there = {package: version for package, version in KNOWN["sets"][name].items() if package not in missing}
        return Environment(tmp_path_factory.mktemp("environment"), there, shared)

    return make


def listed(packages: dict[str, str]) -> str:
    """What `pip list --format=freeze` prints."""
    return "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))


def changes(environment: Environment) -> dict[str, dict]:
    """By README's way to install, and by the file alone."""
    installed = environment.folder / "installed.txt"
    installed.write_text(listed(environment.packages))
    return {
        "README": environment.changed_by("-c", installed, "-r", ROOT / "requirements.txt", "diffusers"),
        "file": environment.changed_by("-r", ROOT / "requirements.txt"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN["sets"])
def test_nothing_that_is_there_is_changed(name, environment):
    with ThreadPoolExecutor() as pool:
        found = dict(zip(MISSING, pool.map(lambda missing: changes(environment(name, missing)), MISSING.values()), strict=True))
    # The one exception: a plain pip takes the newest open_clip where there is none, and that asks for timm 1.0.17.
    timm = KNOWN["sets"][name]["timm"]
    newer = {"timm": (timm, list(KNOWN["releases"]["timm"])[-1])} if timm in ("1.0.11", "1.0.14", "1.0.16") else {}
    expected = {variant: {"README": {}, "file": {}} for variant in MISSING}
    expected["no open_clip"]["file"] = newer
    assert found == expected


@pytest.mark.parametrize("name", KNOWN["sets"])
def test_each_line_alone_changes_nothing(name, environment):
    """ComfyUI-Manager installs line by line; what is there already needs no check."""
    there = environment(name, MISSING["a plain ComfyUI"])
    for line in LINES:
        if releases.name_of(line) not in there.packages:
            assert there.changed_by(line) == {}


@pytest.mark.parametrize("name", KNOWN["sets"])
def test_the_sets_go_together_and_have_all_that_the_library_asks_for(name, environment):
    there = environment(name)
    assert "No broken requirements" in there.pip("check")
    assert there.pip("list", "--format=freeze") == listed(there.packages)
    assert there.changed_by(*LIBRARY) == {}


def test_a_floor_above_what_is_there_is_seen(environment):
    """What stopped ComfyUI: transformers 4.57 cannot be imported beside huggingface-hub 2."""
    changed = environment("late 2025").changed_by("diffusers>=0.42")
    assert changed["huggingface-hub"] == ("0.36.0", "2.4.0") and changed["diffusers"] == ("0.35.2", "0.42.1")


def test_the_pack_asks_for_nothing_that_the_library_does_not():
    assert set(LINES) == {one for one in LIBRARY if not one.startswith("diffusers")}


def test_the_oldest_set_is_at_the_floors_and_goes_together(environment):
    """What `python start.py test --oldest` installs."""
    oldest = dict(pin.split("==") for pin in start.OLDEST)
    floors = dict(one.split(">=") for one in LIBRARY if ">=" in one)
    assert floors and all(oldest[name].startswith(floor) for name, floor in floors.items())
    found = environment("late 2024").changed_by("--ignore-installed", *start.OLDEST)
    assert {name: new for name, (_, new) in found.items() if name in ("torch", "diffusers", "transformers")} == {
        "torch": "2.4.1",
        "diffusers": "0.31.0",
        "transformers": "4.46.3",
    }
