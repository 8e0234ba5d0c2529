"""Files from the Hugging Face hub, into its own cache: with progress, resumed where they were, and only when asked for."""

import json
import os
import queue
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

from ..errors import ModelError

PROCESS = Path(__file__).with_name("hub_process.py")
EVERY = 0.2  # seconds
NAME = re.compile(r"[\w.-]+/[\w.-]+")
UNREACHABLE = ("ConnectError", "ConnectionError", "Timeout", "OfflineMode", "LocalEntryNotFound", "NameResolution", "MaxRetry")
ABSENT = re.compile(r"RepositoryNotFound|RevisionNotFound|GatedRepo|\b(401|403|404)\b")

# (bytes that are here, of how many), several times a second. It may raise to stop.
Progress = Callable[[int, int], None]


def fetch(repository: str, choose: Callable[[Sequence[str]], Sequence[str]], progress: Progress | None = None) -> Path:
    """The folder with files of a model on the hub, those that `choose` chooses of its names. What is there is not fetched again.

    Raises ModelError where that cannot be, and whatever `progress` raises, with what was fetched until then kept.
    """
    if not NAME.fullmatch(repository):
        raise ModelError(f"there is no folder {repository!r} here, and it is no name on the hub, which has the form OWNER/NAME")
    process = subprocess.Popen(
        [sys.executable, str(PROCESS), repository],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip
    try:
        return follow(process, choose, progress)
    except EOFError:
        process.wait()
        said = process.stderr.read().strip().splitlines() if process.stderr else []
        raise ModelError(explained(repository, said[-1] if said else f"it ended with {process.returncode}")) from None
    finally:
        with suppress(OSError):
            process.kill()
        process.wait()


def follow(process: subprocess.Popen, choose: Callable, progress: Progress | None) -> Path:
    """What the process says, until it has the folder. Raises EOFError when it ends before."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line)
        lines.put("")

    Thread(target=read, daemon=True).start()
    sizes: dict[str, int] = {}
    blobs, partial, done, total = Path(), "", 0, 0
    while True:
        try:
            line = lines.get(timeout=EVERY)
        except queue.Empty:
            line = "{}"
        if not line:
            raise EOFError
        said = json.loads(line)
        if "sizes" in said:
            blobs, wanted = Path(said["blobs"]), list(choose(list(said["sizes"])))
            sizes = {name: said["sizes"][name] for name in wanted}
            total = sum(sizes.values())
            assert process.stdin
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(wanted) + "\n")
                process.stdin.flush()
        elif "folder" in said:
            return Path(said["folder"])
        elif "done" in said:
            done, partial = done + sizes.get(said["done"], 0), ""
        partial = said.get("partial", partial)
        if progress:
            here = done
            with suppress(OSError):
                here += (blobs / partial).stat().st_size if partial else 0
            progress(min(here, total), max(total, 1))


def explained(repository: str, said: str) -> str:
    host = os.environ.get("HF_ENDPOINT") or "the Hugging Face hub"
    if ABSENT.search(said):
        return f"{repository} could not be downloaded: there is no such model on {host}, or it wants you to log in ({said})"
    if any(word in said for word in UNREACHABLE):
        return f"{repository} could not be downloaded: {host} cannot be reached: connect, or take 'bundled' or a file that is here"
    return f"{repository} could not be downloaded ({said}): what is here of it is kept, so try again"


def cached(repository: str, names: Sequence[str]) -> Path | None:
    """The first of these files of a model that is in the hub's cache; None for what is no name on the hub."""
    from huggingface_hub import try_to_load_from_cache

    if not NAME.fullmatch(repository):
        return None
    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None
