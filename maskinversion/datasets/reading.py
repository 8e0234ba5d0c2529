"""Reading annotations that may be damaged, and saying which entry of which file is."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shown

from ..errors import InputError, first_line
from ..files import check_file


@contextmanager
def named(what: str) -> Iterator[str]:
    """Turns what damaged annotations raise into an InputError about `what`, which it gives."""
    try:
        yield what
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{what} has no {shown(error.args[0])}: the file is damaged, or of another format") from error
    except (TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{what} is damaged, or of another format ({first_line(error)})") from error


def id_of(entry: object, key: str = "id") -> str:
    return shown(entry.get(key)) if isinstance(entry, dict) else shown(entry)


def words(text: object, what: str, empty: bool = False) -> str:
    """A text of the annotations, without blanks around it."""
    if not isinstance(text, str) or not (empty or text.strip()):
        raise InputError(f"{what} is {shown(text)}; it must be a text")
    return text.strip()


def class_of(annotation: dict, names: dict, what: str) -> str:
    if annotation["category_id"] not in names:
        raise InputError(f"{what} is of category {shown(annotation['category_id'])}, which is not among the categories")
    return names[annotation["category_id"]]


def is_crowd(annotation: dict, what: str) -> bool:
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise InputError(f"the iscrowd of {what} is {shown(crowd)}; it must be 0 or 1")
    return bool(crowd)


def picture_of(image: dict, folder: Path, what: str, other: str | None = None) -> Path:
    """The file of a picture. other: a name that it may have too. In names that were written on Windows, \\ is between folders."""
    if "file_name" not in image and "coco_url" in image:  # LVIS: .../train2017/000000391895.jpg
        url = words(image["coco_url"], f"the coco_url of {what}").split("/")
        return first_existing(folder, "/".join(url[-2:]), url[-1])
    name = words(image["file_name"], f"the file_name of {what}")
    return first_existing(folder, name, name.replace("\\", "/"), *([other] if other else []))


def read_text(path: Path) -> str:
    """Of UTF-8, with a byte order mark or without."""
    check_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} could not be read as text ({first_line(error)})") from error


def read_json(path: Path) -> object:
    check_file(path)
    try:
        return json.loads(path.read_bytes())  # of UTF-8, UTF-16 or UTF-32, with a byte order mark or without
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} could not be read as JSON ({first_line(error)})") from error


def read_instances(path: Path) -> dict:
    content = read_json(path)
    if not isinstance(content, dict):
        content = {}
    missing = {"images", "annotations", "categories"} - {name for name, value in content.items() if isinstance(value, list)}
    if missing:
        raise InputError(f"{path} is not COCO's instances: it has no list of {', '.join(sorted(missing))}")
    return content


def titled(path: Path) -> str:
    """How to call a data set: by its file and the folder that this is in, since the file's name is often the same."""
    return f"{path.resolve().parent.name}/{path.stem}"


def first_existing(folder: Path, *names: str) -> Path:
    """The first of these files that is there, else the first of them all."""
    return next((folder / name for name in names if os.path.isfile(folder / name)), folder / names[0])


def digest(*paths: str | os.PathLike) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(Path(path).read_bytes())
    return found.hexdigest()[:16]
