"""Files on disk: which can be read at all, the JSON in them, and files that appear whole or not at all."""

import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError, MaskInversionError, first_line

NAME = 40  # letters of a file's name that its unfinished copy has too
LEFT_BEHIND = 3600  # seconds after which an unfinished copy is that of a run that was killed
LARGEST_JSON = 2**24  # bytes; also of the header of a safetensors file
CACHE = "MASKINVERSION_CACHE"  # in the environment: another folder for what is kept from run to run, or "off"


def check_file(path: str | os.PathLike, kind: type[MaskInversionError] = InputError) -> os.stat_result:
    """Raises `kind` for what is no ordinary file: nothing, a folder, or a pipe, at which a reader would wait for ever."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        raise kind(f"there is no file {path}{because(error)}") from error
    if stat.S_ISDIR(found.st_mode):
        raise kind(f"there is no file {path}: it is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise kind(f"there is no file {path}: it is a pipe or a device")
    return found


def check_safetensors(path: str | os.PathLike, kind: type[MaskInversionError] = InputError) -> None:
    """Raises `kind` for what cannot be a safetensors file, or would take much memory before anything is known of it."""
    check_file(path, kind)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise kind(f"{path} could not be read ({first_line(error)})") from error
    if length > LARGEST_JSON:
        raise kind(f"{path} is not a complete safetensors file: it begins with {length}, where the size of its header should be")


def read_json(path: str | os.PathLike, kind: type[MaskInversionError] = InputError) -> dict:
    """The JSON object in a small file. Raises `kind` for anything else."""
    if check_file(path, kind).st_size > LARGEST_JSON:
        raise kind(f"{path} is not read: it has more than {LARGEST_JSON} bytes, and should be a short description")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise kind(f"{path} could not be read ({first_line(error)})") from error
    return json_object(text, str(path), kind)


def read_lines(path: str | os.PathLike) -> list[str]:
    """Of a text file in UTF-8, with a byte order mark or without. Raises InputError for anything else."""
    check_file(path)
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text in UTF-8 ({first_line(error)}): save it as one") from error
    except OSError as error:
        raise InputError(f"{path} could not be read ({first_line(error)})") from error


def json_object(text: str, what: str, kind: type[MaskInversionError] = InputError) -> dict:
    """The object that a text in JSON is. what: the beginning of the message, where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise kind(f"{what} is not JSON ({first_line(error)})") from error
    if not isinstance(found, dict):
        raise kind(f"{what} is not a JSON object")
    return found


@contextmanager
def written_whole(path: str | os.PathLike, within: Path | None = None) -> Iterator[Path]:
    """Gives the path to write a file to, which comes to `path` when the block ends, or is deleted when it ends with an error.

    within: another folder for the unfinished file, on the same disk, where programs read all that is in the folder of `path`.
    It has the suffix of `path` and the permissions of any new file. Missing folders are made, and what a killed run left of the
    same file is deleted. Raises InputError where there can be no file `path`.
    """
    path = Path(path)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(path).st_mode):
                raise InputError(f"{path} cannot be written: it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = within or path.parent
        folder.mkdir(exist_ok=True)
        begin, end = f".{path.stem[:NAME]}.", f".partial{path.suffix[:NAME]}"
        delete_left_behind(folder, begin, end)
        partial = folder / f"{begin}{secrets.token_hex(8)}{end}"
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except InputError:
        raise
    except (OSError, ValueError) as error:  # a ValueError for a name that no file can have
        raise InputError(f"{path} cannot be written{because(error)}: choose another name or folder") from error
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def delete_left_behind(folder: Path, begin: str, end: str) -> None:
    for old in folder.iterdir():
        if old.name.startswith(begin) and old.name.endswith(end):
            with suppress(OSError):  # another run may be deleting it too
                if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                    old.unlink()


def because(error: Exception) -> str:
    """Why a file is not there or cannot be; '' where the message says it already."""
    if isinstance(error, FileNotFoundError):
        return ""
    if isinstance(error, ValueError):
        return " (no file can have this name)"
    return f" ({getattr(error, 'strerror', None) or first_line(error)})"


def cache_folder() -> Path | None:
    """Where the system wants what can be made again at any time; None where that is not known, or it was switched off."""
    given = os.environ.get(CACHE)
    if given:
        return None if given == "off" else Path(given)
    try:
        if sys.platform == "win32":
            return Path(os.environ["LOCALAPPDATA"], "maskinversion", "cache")
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "maskinversion"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "maskinversion")
    except (KeyError, RuntimeError):  # nobody's account, as of some services
        return None
