"""What is around one call of a pipeline: its steps, its masks and pictures, and what is said when it cannot paint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError, MaskInversionError, ModelError, first_line

if TYPE_CHECKING:
    from PIL import Image

# (picture, pictures, step, steps, latents [1, C, h, w]), step and picture from 1. It may raise to stop.
Callback = Callable[[int, int, int, int, Tensor], None]


class Steps:
    """Turns the callbacks of diffusers, old and new, into ours."""

    def __init__(self, picture: int, pictures: int, pipeline: Any, callback: Callback | None):
        self.picture, self.pictures, self.pipeline, self.callback = picture, pictures, pipeline, callback
        self.done = 0

    def on_step(self, index: int, time: object, latents: Tensor) -> None:
        self.done += 1
        if self.callback is not None:
            self.callback(self.picture, self.pictures, self.done, len(self.pipeline.scheduler.timesteps), latents)

    def on_step_end(self, pipeline: Any, index: int, time: object, tensors: dict) -> dict:
        self.on_step(index, time, tensors["latents"])
        return {}


def feathered(mask: Tensor, pixels: int) -> Tensor:
    """A mask [h, w] that fades in over so many pixels inside its edge; 0 stays 0, and its highest value stays as high."""
    total, inner = mask.clone(), mask[None, None]
    for _ in range(pixels):
        inner = -F.max_pool2d(-inner, 3, stride=1, padding=1)
        total += inner[0, 0]
    return total * (mask.max() / total.max())


def as_picture(pixels: Tensor) -> Image.Image:
    """[1, 3, h, w] in 0..1 as PIL."""
    from PIL import Image

    return Image.fromarray((pixels[0].permute(1, 2, 0).cpu() * 255).round().byte().numpy())


def check_steps(scheduler: Any, steps: int, name: str) -> None:
    """Raises InputError for more steps than a scheduler has; one of flow matching has any number."""
    if "FlowMatch" in type(scheduler).__name__:
        return
    trained = scheduler.config.num_train_timesteps
    try:
        scheduler.set_timesteps(steps)
        fits = scheduler.timesteps.max() < trained
    except Exception:  # each kind of scheduler has its own
        fits = False
    if not fits:
        most = trained - (scheduler.config.get("steps_offset") or 0)
        raise InputError(f"steps is {steps}; {name} has {most} at most" if steps > most else f"{name} cannot take {steps} steps")


@contextmanager
def painting_advice(name: str) -> Iterator[None]:
    try:
        yield
    except MaskInversionError:
        raise
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        advice = "its parts may not be of one model, or are damaged"
        raise ModelError(f"{name} could not paint ({first_line(error)}): {advice}") from error
