"""The pack as people have it: the published archive, twice, in folders with spaces and foreign letters that are only to be read."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.graphs import WORKFLOW
from tools.comfyui_server import ROOT, Server


def tracked(*options: str) -> set[str]:
    done = subprocess.run(["git", "ls-files", "-z", *options], capture_output=True, cwd=ROOT)
    if done.returncode:
        pytest.skip("this is not a checkout of git")
    return set(done.stdout.decode().split("\0")) - {""}


def published() -> set[str]:
    """What `comfy node pack` packs."""
    return tracked() - tracked("--cached", "--ignored", "--exclude-from=.comfyignore")


def everything_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A server with two copies of the archive, and the first of them."""
    folder = tmp_path_factory.mktemp("Bilder und Überraschungen 图片")
    first, second = folder / "MaskInversion für alle 区域", folder / "maskinversion, again"
    for name in published():
        (first / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, first / name)
    shutil.copytree(first, second)
    before = everything_in(first)
    folders = [first, *(path for path in first.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with Server(folder / "Basis 一", packs=[first, second]) as server:
        yield server, first, before
    for path in folders:
        path.chmod(stat.S_IRWXU)


def test_the_archive_has_what_a_user_needs_and_no_more():
    names = published()
    assert {"__init__.py", "requirements.txt", "README.md", "LICENSE", "maskinversion/bundled/NOTICE"} <= names
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders <= {"maskinversion", "nodes", "web", "workflows", "locales", "subgraphs", "example_workflows"}
    assert not any(name.startswith(("maskinversion/bench/", "maskinversion/evaluation/")) for name in names)
    assert sum((ROOT / name).stat().st_size for name in names) < 60e6


def test_no_part_of_it_needs_what_is_left_out(installed):
    _, folder, _ = installed
    program = (
        "import importlib, pkgutil, maskinversion as mi\n"
        "for part in pkgutil.walk_packages(mi.__path__, 'maskinversion.'):\n"
        "    part.name.endswith('__main__') or importlib.import_module(part.name)"
    )
    subprocess.run([sys.executable, "-B", "-c", program], cwd=folder, check=True)


def test_its_first_template_runs(installed):
    server, _, _ = installed
    run = server.submit(server.read(WORKFLOW))
    assert not run.error and any("images" in output for output in run.outputs.values())


def test_nothing_is_written_into_its_folder(installed):
    server, first, before = installed
    server.submit(server.read(WORKFLOW))
    assert everything_in(first) == before


def test_a_second_copy_says_that_there_are_two(installed):
    server, first, _ = installed
    said = server.log.read_text(encoding="utf-8")
    lines = [line for line in said.splitlines() if "MaskInversion is here twice" in line]
    assert len(lines) == 1 and "delete one of the two, then restart ComfyUI" in lines[0]
    assert any(name in lines[0].partition("was loaded from")[2] for name in (first.name, "maskinversion, again"))
