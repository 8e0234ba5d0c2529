"""What is in ComfyUI's model folders: where it is, and whether it has changed."""

import os
import re
import reprlib
from pathlib import Path

import folder_paths

from ...maskinversion import InputError, ModelError
from ...maskinversion.errors import encodable

NOTHING_FOUND = "(nothing found)"
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]')  # in names, on some system
DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(1, 10))}  # on Windows
LONGEST = 200  # bytes of a name, to which a number and a suffix are added; systems have 255


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
    """(base, path) as the page shows them: each once, relative to its base. Names that are not in UTF-8 are left out, since the
    page, and the log, cannot have them."""
    names = (path.relative_to(base).as_posix() for base, path in found)
    return list(dict.fromkeys(name for name in names if encodable(name) == name))


def inside(base: str, name: str) -> Path | None:
    """The path of `name` in a folder; None where it would be outside, or no file can have this name."""
    try:
        path = Path(base, name).resolve()
        return path if path.is_relative_to(Path(base).resolve()) else None
    except (OSError, ValueError, RuntimeError):
        return None


def written_name(prefix: str, base: str, what: str = "filename_prefix") -> str:
    """A folder and a name to write files at in the folder `base`, without what some system cannot have in a name, on all of them.

    what: the input that it is from. Raises InputError for one that is outside of `base`, or too long.
    """
    parts = [FORBIDDEN.sub("_", part).rstrip(" .") or part for part in prefix.replace("\\", "/").split("/")]
    name = "/".join(f"{part}_" if part.partition(".")[0].upper() in DEVICES else part for part in parts)
    shown = reprlib.repr(prefix)
    if (path := inside(base, name)) is None or path == Path(base).resolve() or name.endswith("/"):
        raise InputError(f"{what} {shown} does not name a file in the output folder: write, say, tokens/region")
    if any(len(part.encode()) > LONGEST for part in parts):
        raise InputError(f"{what} {shown} is too long: each folder and the name may have {LONGEST} letters")
    return name


def located(name: str, kinds: tuple[str, ...], what: str) -> Path:
    """The path of what `relative` gave. Raises ModelError when it is gone, or there was nothing to choose."""
    for base in bases(*kinds):
        if name != NOTHING_FOUND and os.path.exists(base / name):
            return base / name
    missing = "nothing was found" if name == NOTHING_FOUND else f"{name} is no longer there"
    raise ModelError(f"{missing}: put {what} into {bases(*kinds)[0]} and press R to refresh the list")


def stamp(path: Path) -> tuple:
    """Of a file, or of all files in a folder: changes when they do."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
