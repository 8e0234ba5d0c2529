"""What is imported when: a process that does little does not wait for libraries that it does not use."""

import subprocess
import sys
from pathlib import Path

import pytest

import maskinversion as mi
from maskinversion.cli.main import COMMANDS

ROOT = Path(mi.__file__).parents[1]
HEAVY = (
    *("open_clip", "timm", "torchvision", "transformers", "diffusers", "huggingface_hub", "PIL", "matplotlib", "scipy"),
    *("pyarrow", "ray"),
)
COMMAND_LINES = [*([command] for command in COMMANDS), *(["eval", form] for form in ("coco", "refcoco", "phrasecut"))]


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def packages_after(code: str) -> set[str]:
    """The packages that a new process has imported after this code."""
    done = python("-c", f"{code}\nimport sys\nprint()\nprint(*{{name.partition('.')[0] for name in sys.modules}})")
    assert not done.returncode, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_library_needs_torch_only():
    found = packages_after(f"import maskinversion as mi\nfor name in {mi.__all__}: getattr(mi, name)")
    assert "torch" in found and not found.intersection(HEAVY)


def test_the_bundled_clip_names_regions_without_other_libraries(tmp_path):
    found = packages_after(f"from maskinversion.cli.main import main\nassert not main(['demo', '--out', {str(tmp_path)!r}])")
    assert {"PIL", "ftfy"} < found and not found.intersection({*HEAVY, "sympy"} - {"PIL"})


@pytest.mark.parametrize(
    "module",
    [
        "operations",
        "collection.table",
        "collection.search",
        "identity",
        "models.towers",
        "drawing.overlay",
        "tasks.classify",
        "tasks.refer",
        "tasks.caption",
        "tasks.diffusion.loading",
        "bundled",
    ],
)
def test_a_part_of_it_brings_no_library_that_it_does_not_use(module):
    assert not packages_after(f"import maskinversion.{module}").intersection(HEAVY)


@pytest.mark.parametrize(
    "module",
    [
        "bundled",
        "errors",
        "settings",
        "tasks.phrases",
        "tasks.decoding",
        "tasks.diffusion.settings",
        "evaluation.settings",
        "bench.run",
    ],
)
def test_what_can_be_chosen_is_known_without_torch(module):
    assert not packages_after(f"import maskinversion.{module}").intersection(("torch", "numpy", *HEAVY))


def test_every_name_of_the_library_is_there():
    for name in mi.__all__:
        assert getattr(mi, name).__name__ == name and name in dir(mi)
    with pytest.raises(AttributeError, match="no attribute 'nothing_like_it'"):
        mi.nothing_like_it  # noqa: B018


@pytest.mark.parametrize("line", [[], *COMMAND_LINES], ids=" ".join)
def test_help_does_not_wait_for_torch(line):
    code = (
        f"from maskinversion.cli.main import main\ntry: main({[*line, '--help']})\nexcept SystemExit as left: assert not left.code"
    )
    assert not packages_after(code).intersection(("torch", "numpy", *HEAVY))


@pytest.mark.parametrize("line", [[], *COMMAND_LINES], ids=" ".join)
def test_every_command_has_help(line, capsys):
    from maskinversion.cli.main import main

    with pytest.raises(SystemExit) as left:
        main([*line, "--help"])
    printed = capsys.readouterr().out
    assert left.value.code == 0 and printed.startswith(f"usage: {' '.join(['maskinversion', *line])} ")
    if not line:
        assert all(f"    {command} " in printed for command in COMMANDS)


def test_the_module_is_the_command():
    done = python("-m", "maskinversion", "--help")
    assert not done.returncode and done.stdout.startswith("usage: maskinversion [-h] [--debug] COMMAND")
    assert python("-m", "maskinversion", "nonsense").returncode == 1
