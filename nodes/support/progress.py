"""What a node shows while it runs, and after. None of it can cost the node's result."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import comfy.model_management
from comfy_api.latest import ComfyAPISync, io, ui
from PIL import Image
from server import PromptServer

from ...maskinversion import InputWarning

if TYPE_CHECKING:
    from comfy_api.latest.generated.ComfyAPISyncStub import ComfyAPISyncStub  # pyright: ignore[reportMissingModuleSource]  # a stub only

PREVIEW_SECONDS = 0.2

Shown = TypeVar("Shown")


class ProgressBar:
    """With a picture of what is there so far; and the place to stop at an interrupt."""

    def __init__(self, node: str):
        self.node = node
        self.shown = 0.0
        self.api = ComfyAPISync()

    def show(self, done: int, total: int, preview: Callable[[], Image.Image], surely: bool = False) -> None:
        """preview: made a few times a second at most, or now if `surely`. Raises what stops a node when the user has cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        picture = None
        if surely or time.monotonic() - self.shown > PREVIEW_SECONDS:
            self.shown = time.monotonic()
            picture = attempt("draw a preview", preview)
        move_bar(self.api, self.node, done, total, picture)


def counter(node: str) -> Callable[[int, int], None]:
    """A callback (done, of how many) that moves the bar, without a picture, and raises what stops a node as above."""
    api = ComfyAPISync()

    def step(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        move_bar(api, node, done, total)

    return step


def with_text(text: str, node: str, *values: object) -> io.NodeOutput:
    """A node's outputs, with a text shown on it."""
    # The page shows `ui` text on its own nodes only.
    attempt("show a text", lambda: PromptServer.instance.send_progress_text(text, node))
    return io.NodeOutput(*values, ui=ui.PreviewText(text))


@contextmanager
def warnings_on(node: str) -> Iterator[None]:
    """What the library warns of, shown on the node when it is done."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        yield
    words = list(dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, InputWarning)))
    for warning in caught:
        if not issubclass(warning.category, InputWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if words:
        logging.warning("MaskInversion: %s", "; ".join(words))
        attempt("show a warning", lambda: PromptServer.instance.send_progress_text("\n".join(words), node))


def move_bar(api: "ComfyAPISyncStub", node: str, done: int, total: int, picture: Image.Image | None = None) -> None:
    attempt("show progress", lambda: api.execution.set_progress(done, total, node_id=node, preview_image=picture))


def attempt(what: str, show: Callable[[], Shown]) -> Shown | None:
    """What show() gives; or None, with the reason in ComfyUI's log. An interrupt passes."""
    try:
        return show()
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception:
        logging.warning("MaskInversion could not %s", what, exc_info=True)
        return None
