"""Get a frozen CLIP from the pack itself, from open_clip's names, from a folder or from a weights file."""

import difflib
import os
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..bundled import BUNDLED
from ..errors import InputError, MaskInversionError, ModelError, first_line
from ..files import check_file
from .clip import Clip
from .folder import CONFIG, from_folder, weights_in
from .towers import tower_of
from .weights import WEIGHT_SUFFIXES, check_finite, check_pickle, check_weights_file, pickles_are_unsafe

FOLDER = "local-dir:"
USUAL_VOCABULARY = 49408  # of CLIP's byte pair encoding


def load_clip(
    source: object = "bundled",
    model: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Clip:
    """Load a CLIP whose image side is a vision transformer, ready and frozen.

    source: "bundled", the miniature that comes with this package;
        "ViT-B-16/openai", an open_clip name and tag (downloaded once, then cached);
        "ViT-B-16", that architecture with random weights;
        "local-dir:FOLDER", a folder with open_clip_config.json and its weights;
        or a weights file, together with the architecture in `model`, such as "ViT-L-14";
        or a live model, which is used as it is, on its own device and in its own dtype: an open_clip module, a transformers
        `CLIPVisionModelWithProjection` or `SiglipVisionModel`, or a ComfyUI `ClipVisionModel`.
    device: where it runs; None picks CUDA, then MPS, then the CPU. dtype: of the weights.

    Raises ModelError when the source is unknown (with the closest names), unreadable, or not a ViT, InputError for a device that is
    not here.
    """
    if not isinstance(source, (str, Path)):
        return live_clip(source)
    source = str(source)
    device = usable_device(device)
    name, architecture, weights = resolve(source, model)
    try:
        if isinstance(architecture, Path):
            loaded, tokenizer = from_folder(architecture, str(weights))
        else:
            loaded, tokenizer = by_name(architecture, weights)
        loaded = loaded.eval().requires_grad_(False).to(device, dtype)
        check_finite(loaded.state_dict(), source)
        return Clip(name, tower_of(loaded), loaded, LazyTokenizer(name, tokenizer))
    except (MaskInversionError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(f"{source} was refused: it is not plain weights and could run code. Use a safetensors file") from error
    except Exception as error:  # weights of another model make open_clip raise nearly everything
        raise ModelError(explain(error, source, architecture, weights)) from error


def by_name(architecture: str, weights: str | None) -> tuple[nn.Module, Callable[[], Callable]]:
    """A model of open_clip's configurations with the weights of a tag or a file, and what makes its tokenizer."""
    import open_clip

    found = (open_clip.get_pretrained_cfg(architecture, weights) or {}) if weights else {}
    if found and pickles_are_unsafe():
        check_pickle(Path(open_clip.download_pretrained(found)))
    model = open_clip.create_model(architecture, pretrained=weights, force_quick_gelu=found.get("quick_gelu", False))
    return model, lambda: open_clip.get_tokenizer(architecture)


class LazyTokenizer:
    """The tokenizer of a model, made when it is first needed: some are files to download (SigLIP)."""

    def __init__(self, name: str, make: Callable[[], Callable[[list[str]], Tensor]]):
        self.name, self.make = name, make

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        try:
            return self.make()
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"{self.name} reads text with a tokenizer that is not on this machine, and could not be fetched "
                f"({first_line(error)}). Load it once with internet; regions can be inverted without it"
            ) from error

    def __call__(self, texts: list[str], **options: int) -> Tensor:
        return self.tokenizer(texts, **options)


def live_clip(model: Any) -> Clip:
    """A Clip of a model that somebody else loaded. It reads text only when the model has open_clip's usual vocabulary, since a
    model does not say which other tokenizer it was trained with (SigLIP's, say)."""
    text = getattr(model, "text", model)
    usual = hasattr(model, "encode_text") and getattr(text, "vocab_size", None) == USUAL_VOCABULARY
    tokenizer = None
    if usual:
        from open_clip import SimpleTokenizer

        tokenizer = SimpleTokenizer(context_length=text.context_length)
    return Clip(type(model).__name__, tower_of(model), model, tokenizer)


def resolve(source: str, model: str | None) -> tuple[str, str | Path, str | None]:
    """The name to show; open_clip's architecture name and its tag or weights file, or a folder and its weights file."""
    if source == "bundled" or source.startswith(FOLDER):
        folder = BUNDLED if source == "bundled" else Path(source.removeprefix(FOLDER))
        if not os.path.isfile(folder / CONFIG):
            raise ModelError(f"{folder} is not a model folder: it has no {CONFIG}")
        weights = weights_in(folder)
        check_weights_file(weights)
        return "bundled" if source == "bundled" else folder.name, folder, str(weights)
    if Path(source).suffix in WEIGHT_SUFFIXES:
        path = Path(source)
        check_file(path, ModelError)
        if model is None:
            raise ModelError(f"{path.name} does not say which architecture it is for: also give model=, such as model='ViT-L-14'")
        check_weights_file(path)
        return f"{check_architecture(model)}/{path.name}", model, str(path)
    architecture, _, tag = source.partition("/")
    check_architecture(architecture)
    from open_clip import list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise ModelError(f"{architecture} has no weights called {tag!r}. {suggest(tag, tags)}")
    return source, architecture, tag or None


def check_architecture(name: str) -> str:
    from open_clip import list_models

    known = list_models()
    if name not in known:
        raise ModelError(f"there is no model called {name!r}. {suggest(name, known)}")
    return name


def suggest(name: str, known: list[str]) -> str:
    lower = {k.lower(): k for k in known}
    close = [lower[k] for k in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]
    return (
        f"Did you mean {' or '.join(close)}?"
        if close
        else f"There are {', '.join(known[:8])}{' and more' if len(known) > 8 else ''}."
    )


def explain(error: Exception, source: str, architecture: str | Path, weights: str | None) -> str:
    first = first_line(error)
    named = CONFIG if isinstance(architecture, Path) else architecture
    if "state_dict" in first or "size mismatch" in str(error):
        return f"the weights of {source} do not fit {named}: choose the model that they were made for"
    if weights and not os.path.isfile(weights):
        return (
            f"the weights of {source} could not be downloaded ({first}). Without internet use 'bundled', or a file that you "
            f"already have, with model={architecture!r}"
        )
    return f"{source} could not be loaded: {first}"


def usable_device(device: str | torch.device | None) -> torch.device:
    """A device, the best one where None is given. Raises InputError for one that is not here."""
    if device is None:
        return best_device()
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).tolist()
    except Exception as error:  # each kind of device has its own
        raise InputError(
            f"the device {str(device)!r} cannot be used here ({first_line(error)}): give cpu, or none for {best_device()}"
        ) from error
    return found


def best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
