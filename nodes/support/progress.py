"""What a node shows while it runs, and after. None of it can cost the node's result."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import comfy.model_management
import torch
from comfy_api.latest import ComfyAPISync, io, ui
from PIL import Image

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

    def show(self, done: int, total: int, preview: Callable[[], Image.Image | None], surely: bool = False) -> None:
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


@contextmanager
def warnings_told() -> Iterator[list[str]]:
    """What the library warns of: a list that is filled when this is over, for `with_shown`; in ComfyUI's log, too."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        yield told
    for warning in caught:
        if not issubclass(warning.category, InputWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    told += dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, InputWarning))
    if told:
        logging.warning("MaskInversion: %s", "; ".join(told))


def with_shown(
    *values: object, text: str = "", told: Sequence[str] = (), picture: Callable[[], torch.Tensor] | None = None
) -> io.NodeOutput:
    """A node's outputs, and what is shown on it: a text after what was warned of, and a picture [h, w, 3].

    web/results.js shows the text, since the page does so for nodes of its own only.
    """
    shown: dict[str, Any] = {}
    if picture is not None:
        shown |= attempt("draw the result", lambda: ui.PreviewImage(picture()[None]).as_dict()) or {}
    words = [f"Note: {one}" for one in told] + ([text] if text else [])
    if words:
        shown |= ui.PreviewText("\n".join(words)).as_dict()
    return io.NodeOutput(*values, ui=shown) if shown else io.NodeOutput(*values)


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
