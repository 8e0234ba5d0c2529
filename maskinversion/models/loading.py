"""Get a frozen CLIP from the pack itself, from open_clip's names, from a folder or from a weights file."""

import difflib
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..bundled import BUNDLED
from ..errors import ModelError, first_line
from .clip import Clip
from .towers import tower_of

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
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

    Raises ModelError when the source is unknown (with the closest names), unreadable, or not a ViT.
    """
    if not isinstance(source, (str, Path)):
        return live_clip(source)
    import open_clip

    source = str(source)
    device = torch.device(device) if device is not None else best_device()
    name, architecture, weights = resolve(source, model)
    quick_gelu = (open_clip.get_pretrained_cfg(architecture, weights) or {}).get("quick_gelu", False) if weights else False
    try:
        loaded = open_clip.create_model(architecture, pretrained=weights, force_quick_gelu=quick_gelu)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{source} was refused: it is not plain weights and could run code. Use a safetensors file") from error
    except RuntimeError as error:
        raise ModelError(explain(error, source, architecture, weights)) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{source} could not be loaded: {error}") from error
    loaded = loaded.eval().requires_grad_(False).to(device, dtype)
    return Clip(name, tower_of(loaded), loaded, LazyTokenizer(architecture))


class LazyTokenizer:
    """The tokenizer of an open_clip architecture, made when it is first needed: some are files to download (SigLIP)."""

    def __init__(self, architecture: str):
        self.architecture = architecture

    @cached_property
    def tokenizer(self) -> Callable[[list[str]], Tensor]:
        import open_clip

        try:
            return open_clip.get_tokenizer(self.architecture)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"{self.architecture} reads text with a tokenizer that is not on this machine, and could not be fetched "
                f"({first_line(error)}). Load it once with internet; regions can be inverted without it"
            ) from error

    def __call__(self, texts: list[str]) -> Tensor:
        return self.tokenizer(texts)


def live_clip(model: object) -> Clip:
    """A Clip of a model that somebody else loaded. It reads text only when the model has open_clip's usual vocabulary, since a
    model does not say which other tokenizer it was trained with (SigLIP's, say)."""
    text = getattr(model, "text", model)
    usual = hasattr(model, "encode_text") and getattr(text, "vocab_size", None) == USUAL_VOCABULARY
    tokenizer = None
    if usual:
        from open_clip import SimpleTokenizer

        tokenizer = SimpleTokenizer(context_length=text.context_length)
    return Clip(type(model).__name__, tower_of(model), model, tokenizer)


def resolve(source: str, model: str | None) -> tuple[str, str, str | None]:
    """The name to show, open_clip's architecture name, and its tag or weights file."""
    if source == "bundled":
        return "bundled", f"local-dir:{BUNDLED}", None
    if source.startswith("local-dir:"):
        folder = Path(source.removeprefix("local-dir:"))
        if not (folder / "open_clip_config.json").is_file():
            raise ModelError(f"{folder} is not a model folder: it has no open_clip_config.json")
        if not any(file.suffix in WEIGHT_SUFFIXES for file in folder.iterdir()):
            raise ModelError(f"{folder} has no weights: put an open_clip_model.safetensors into it")
        return folder.name, f"local-dir:{folder}", None
    if Path(source).suffix in WEIGHT_SUFFIXES:
        path = Path(source)
        if not path.is_file():
            raise ModelError(f"there is no file {path}")
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


def check_weights_file(path: Path) -> None:
    """Refuse a file that is not what its name says, before anything is built."""
    if path.suffix != ".safetensors":
        return  # open_clip reads these with weights_only=True
    try:
        with safe_open(path, framework="pt") as file:
            file.keys()
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file, or it is not complete ({error}). Download it again") from error


def explain(error: RuntimeError, source: str, architecture: str, weights: str | None) -> str:
    first = first_line(error)
    if "state_dict" in first or "size mismatch" in str(error):
        return f"the weights of {source} do not fit {architecture}: choose the model that they were made for"
    if weights and not Path(weights).is_file():
        return (
            f"the weights of {source} could not be downloaded ({first}). Without internet use 'bundled', or a file that you "
            f"already have, with model={architecture!r}"
        )
    return f"{source} could not be loaded: {first}"


def best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
