"""Packages that one task needs and the rest does not: imported when it starts, and named in one sentence when they cannot be."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from torch.torch_version import TorchVersion

from .errors import PackageError, first_line

NAMED = {"sklearn": "scikit-learn"}  # packages that are not called as their modules are
KEPT = ("huggingface-hub", "safetensors", "transformers")  # replaced by what a package brings along, they can stop ComfyUI


def require(name: str, use: str, least: str = "0") -> ModuleType:
    """The module `name`, imported. use: what needs it. least: the oldest version of its package that will do.

    Raises PackageError, which says what to install, when it is missing, older, or does not work with what is installed beside it.
    """
    module = name.partition(".")[0]
    package = NAMED.get(module, module)
    here = installed(package)
    if here is None:
        raise PackageError(f"{use} needs the package {package}: {install(package)}")
    if TorchVersion(here) < least:
        raise PackageError(f"{use} needs {package} {least} or newer, and this is {here}: {install(package, '--upgrade')}")
    try:
        return import_module(name)
    except Exception as error:  # a package beside versions that it was not made for can fail with anything
        raise unfit(package, use, error) from error


def require_part(package: str, name: str, use: str) -> Any:
    """What a package imports when it is asked for. Raises PackageError as `require`, and when that fails."""
    try:
        return getattr(require(package, use), name)
    except (RuntimeError, ImportError, AttributeError) as error:
        raise unfit(package, use, error) from error


def unfit(package: str, use: str, error: Exception) -> PackageError:
    """What to say of a package that is installed and failed, on importing it or a part of it."""
    return PackageError(
        f"{use} needs the package {package}, and {package} {installed(package)} does not work with what is installed beside it "
        f"({first_line(error)}): {install(package, '--upgrade')}"
    )


def install(package: str, *options: str) -> str:
    """The command that installs a package and leaves what others stand on as it is."""
    kept = [f"{name}=={here}" for name in KEPT if name != package and (here := installed(name)) is not None]
    return " ".join(["python -m pip install", *options, package, *kept])


def installed(package: str) -> str | None:
    """The version of a package that is here."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
