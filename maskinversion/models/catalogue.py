"""What open_clip can load by name, read from its files: importing it takes seconds, and a list of names needs none of that."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from types import ModuleType

from .towers import FAMILIES

ALONE = "_maskinversion_open_clip"
IMPORTING = Lock()  # since it is under one name for a moment


def readable_architectures() -> tuple[str, ...]:
    """The names of open_clip's architectures whose image side can be read, by their configurations; none without open_clip."""
    images = {name: configuration["vision_cfg"] for name, configuration in configurations().items()}
    return tuple(name for name, vision in images.items() if any(family.reads_config(vision) for family in FAMILIES))


@cache
def pretrained_names() -> tuple[str, ...]:
    """ARCHITECTURE/TAG of all released weights of these architectures."""
    if open_clip_folder() is None:
        return ()
    readable = set(readable_architectures())
    with open_clip_module("pretrained") as released:
        return tuple(f"{name}/{tag}" for name, tag in released.list_pretrained() if name in readable)


@cache
def names_on_the_hub() -> dict[str, list[str]]:
    """The ARCHITECTURE/TAG of `pretrained_names` by the OWNER/NAME of their weights on the hub."""
    names, found = pretrained_names(), {}
    if names:
        with open_clip_module("pretrained") as released:
            for name in names:
                configuration = released.get_pretrained_cfg(*name.split("/", 1))
                found.setdefault(str(configuration.get("hf_hub", "")).rpartition("/")[0], []).append(name)
    return found


@cache
def configurations() -> dict[str, dict]:
    """Of all architectures by name, in open_clip's order, where 9 comes before 10."""
    folder = open_clip_folder()
    files = [] if folder is None else (folder / "model_configs").glob("*.json")
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    complete = [name for name, read in found.items() if read.keys() >= {"embed_dim", "vision_cfg", "text_cfg"}]
    by_number = sorted(complete, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name.lower())])
    return {name: found[name] for name in by_number}


@contextmanager
def open_clip_module(name: str) -> Iterator[ModuleType]:
    """A module of open_clip that needs only its neighbours, without the package's own `__init__`, which imports all of it."""
    if "open_clip" in sys.modules:
        yield importlib.import_module(f"open_clip.{name}")
        return
    with IMPORTING:
        package = ModuleType(ALONE)
        package.__path__ = [str(open_clip_folder())]
        sys.modules[ALONE] = package
        try:
            yield importlib.import_module(f"{ALONE}.{name}")
        finally:
            for module in [module for module in sys.modules if module.partition(".")[0] == ALONE]:
                del sys.modules[module]


def open_clip_folder() -> Path | None:
    """Where open_clip is installed; finding it does not import it."""
    spec = find_spec("open_clip")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
