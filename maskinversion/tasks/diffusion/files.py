"""The files of diffusers' pipelines. A folder is looked at before anything is built of it: numbers that no
pipeline has would take minutes and gigabytes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import torch
from torch import nn

from ...errors import MaskInversionError, ModelError, first_line
from ...files import check_file, read_json
from ...models.weights import check_counts, check_finite, check_size, numbers_in, shapes_in
from ...packages import require
from .variants import INDEX

ABOUT = "clip.json"  # which CLIP a pipeline was trained with
MODEL, SCHEDULER = "config.json", "scheduler_config.json"
LIBRARIES = ("diffusers", "transformers")
INSIDE = ("stable_diffusion", "kolors")  # parts of diffusers: where the parts of unCLIP, the safety checker and ChatGLM are
MOST_STEPS = 10**5  # of training; usually 1000
LARGEST = 10**6  # of a scheduler's other numbers


def check_folder(folder: Path) -> None:
    """Raises ModelError for a folder of a pipeline that is damaged, or asks for more than it has; and nearly anything for one that
    diffusers cannot read."""
    index = read_json(folder / INDEX, ModelError)
    for part, made_of in index.items():
        if part.startswith("_") or not isinstance(made_of, list) or made_of == [None, None]:
            continue
        if not part.isidentifier() or len(made_of) != 2 or not all(isinstance(word, str) for word in made_of):
            raise ModelError(f"{folder / INDEX} has {shown(made_of)} as {shown(part)}, which is no part of a pipeline")
        if made_of[0] not in (*LIBRARIES, *INSIDE):
            raise ModelError(f"{folder / INDEX} asks for {shown(made_of[0])}, which is no library of pipelines: it is not imported")
        if os.path.isdir(folder / part):
            check_part(folder / part, *made_of)


def check_part(folder: Path, library: str, kind: str) -> None:
    """One part of a pipeline: its files, its numbers, and that its weights are all there."""
    for file in folder.iterdir():
        if not file.is_dir():
            check_file(file, ModelError)
    if os.path.exists(folder / SCHEDULER):
        check_scheduler(read_json(folder / SCHEDULER, ModelError), str(folder / SCHEDULER))
    if not os.path.exists(folder / MODEL):
        return
    config = read_json(folder / MODEL, ModelError)
    check_counts(config, str(folder / MODEL))
    weights = sorted(folder.glob("*.safetensors"))
    made_of = getattr(require(library, "a picture of a token"), kind, None) if weights and library in LIBRARIES else None
    if not isinstance(made_of, type) or not issubclass(made_of, nn.Module):
        return
    with torch.device("meta"):
        if library == "diffusers":
            model = made_of.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            model = made_of(made_of.config_class.from_dict(config))  # pyright: ignore[reportAttributeAccessIssue]
    check_size(model, sum(map(numbers_in, weights)), str(folder / MODEL))
    there = {name for file in weights for name in shapes_in(file)}
    wanted = {name for name, _ in model.named_parameters()}
    if len(missing := wanted - there) > len(there - wanted):  # older files have other names for some, as many as are missing
        raise ModelError(f"{folder} is not complete: its weights have no {min(missing)}. Download it again")


def check_scheduler(config: dict, name: str) -> None:
    """Raises ModelError for numbers that no scheduler has. name: of its file."""
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= MOST_STEPS:
        raise ModelError(f"{name} has {shown(steps)} as num_train_timesteps; it must be a number of steps, usually 1000")
    for key, value in config.items():
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MOST_STEPS or any(isinstance(n, int | float) and not abs(n) <= LARGEST for n in numbers):
            raise ModelError(f"{name} has {shown(value)} as {key}, which no scheduler has: it is damaged")


def check_weights(pipeline: Any, name: str) -> None:
    """Raises ModelError for a pipeline that was loaded without some of its weights, or with some that are no numbers."""
    for part, module in pipeline.components.items():
        if isinstance(module, nn.Module):
            state = module.state_dict()
            for key, value in state.items():
                if value.is_meta:
                    raise ModelError(f"{name} is not complete: its {part} has no {key}. Download it again")
            check_finite(state, f"the {part} of {name}")


def trained_with(folder: Path) -> str | None:
    """The fingerprint of the CLIP that the pipeline in a folder was trained with, where it says so."""
    about = read_json(folder / ABOUT, ModelError) if os.path.exists(folder / ABOUT) else {}
    fingerprint = about.get("clip_fingerprint")
    if not isinstance(fingerprint, str | None):
        raise ModelError(f"{folder / ABOUT} has {shown(fingerprint)} as clip_fingerprint; it must be a text")
    return fingerprint


@contextmanager
def loading_advice(name: str) -> Iterator[None]:
    try:
        yield
    except (MaskInversionError, MemoryError):
        raise
    except Exception as error:  # damaged files make diffusers raise nearly everything
        advice = "a folder needs all its parts as .safetensors; a name needs internet the first time"
        raise ModelError(f"{name} could not be loaded ({first_line(error)}): {advice}") from error
