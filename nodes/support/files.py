"""What is in ComfyUI's model folders: where it is, and whether it has changed."""

import os
from pathlib import Path

import folder_paths

from ...maskinversion import ModelError

NOTHING_FOUND = "(nothing found)"


def bases(*kinds: str) -> list[Path]:
    """ComfyUI's folders of these kinds of models, whether or not any pack has registered them."""
    registered = [
        path for kind in kinds if kind in folder_paths.folder_names_and_paths for path in folder_paths.get_folder_paths(kind)
    ]
    return list(dict.fromkeys(map(Path, [*registered, *(Path(folder_paths.models_dir, kind) for kind in kinds)])))


def every_file(*kinds: str) -> list[tuple[Path, Path]]:
    """(base, file) of all files, links followed, as ComfyUI itself looks for models."""
    return [
        (base, Path(folder, file))
        for base in bases(*kinds)
        for folder, _, files in sorted(os.walk(base, followlinks=True))
        for file in sorted(files)
    ]


def relative(found: list[tuple[Path, Path]]) -> list[str]:
    """(base, path) as the page shows them: each once, relative to its base."""
    return list(dict.fromkeys(path.relative_to(base).as_posix() for base, path in found))


def located(name: str, kinds: tuple[str, ...], what: str) -> Path:
    """The path of what `relative` gave. Raises ModelError when it is gone, or there was nothing to choose."""
    for base in bases(*kinds):
        if name != NOTHING_FOUND and (base / name).exists():
            return base / name
    missing = "nothing was found" if name == NOTHING_FOUND else f"{name} is no longer there"
    raise ModelError(f"{missing}: put {what} into {bases(*kinds)[0]} and press R to refresh the list")


def stamp(path: Path) -> tuple:
    """Of a file, or of all files in a folder: changes when they do."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
