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
from ..compute.ambient import settled
from ..errors import InputError, MaskInversionError, ModelError, first_line
from .catalogue import configurations, readable_architectures
from .clip import Clip
from .content import is_weights
from .fitting import described, fit, hint, is_openai
from .folder import check_folder, from_folder
from .hub import Progress, cached, fetch
from .towers import tower_of, unwrapped
from .weights import check_finite, check_pickle, pickles_are_unsafe, read_weights

FOLDER, HUB = "local-dir:", "hf-hub:"
RANDOM = "random"
USUAL_VOCABULARY = 49408  # of CLIP's byte pair encoding


@settled()
def load_clip(
    source: object = "bundled",
    model: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> Clip:
    """Load a CLIP whose image side is a vision transformer, ready and frozen.

    source: "bundled", the miniature that comes with this package;
        "ViT-B-16/openai", an open_clip name and tag (downloaded once, then cached);
        "ViT-B-16/random", that architecture with random weights;
        "local-dir:FOLDER", a folder with open_clip_config.json and its weights;
        or a weights file, together with the architecture in `model`, such as "ViT-L-14": safetensors, a state dict of PyTorch, or
        one of OpenAI's archives, recognised by what is in them;
        or a live model, which is used as it is, on its own device and in its own dtype: an open_clip module, a transformers
        `CLIPVisionModelWithProjection` or `SiglipVisionModel`, or a ComfyUI `ClipVisionModel`.
    device: where it runs; None picks CUDA, then MPS, then the CPU. dtype: of the weights.
    progress: called with bytes that are here, of how many, while weights are downloaded; it may raise to stop, and the next time
        goes on from there. Without, open_clip downloads.

    Raises ModelError when the source is unknown (with the closest names), unreadable, or not a ViT, InputError for a device that is
    not here.
    """
    if not isinstance(source, (str, Path)):
        return live_clip(source)
    source = str(source)
    device = usable_device(device)
    if progress is not None:
        download(source, progress)
    try:
        name, loaded, tokenizer = find(source, model)
        loaded = loaded.eval().requires_grad_(False).to(device, dtype)
        check_finite(loaded.state_dict(), source)
        return Clip(name, tower_of(loaded), loaded, LazyTokenizer(name, tokenizer))
    except (MaskInversionError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        raise ModelError(f"{source} was refused: it is not plain weights and could run code. Use a safetensors file") from error
    except Exception as error:  # weights of another model make open_clip raise nearly everything
        raise ModelError(explain(error, source)) from error


def find(source: str, model: str | None) -> tuple[str, nn.Module, Callable[[], Callable]]:
    """The name to show, the model with its weights, and what makes its tokenizer."""
    path, (architecture, _, tag) = Path(source.removeprefix(FOLDER)), source.partition("/")
    if source == "bundled":
        check_folder(BUNDLED)
        return source, *from_folder(BUNDLED)
    if source.startswith(HUB):
        raise ModelError(f"{source} is a name on a hub: download its files into a folder, and give that as '{FOLDER}FOLDER'")
    if source.startswith(FOLDER) or (source and os.path.isdir(path) and architecture not in configurations()):
        check_folder(path)
        return path.name, *from_folder(path)
    if is_weights(path) or (source and os.path.exists(path) and not os.path.isdir(path)):
        return from_file(path, model)
    check_tag(check_architecture(architecture), tag)
    return source, *by_name(architecture, tag)


def from_file(path: Path, architecture: str | None) -> tuple[str, nn.Module, Callable[[], Callable]]:
    """A model with the weights of a file, all of which have to be read."""
    weights = read_weights(path)
    if architecture is None:
        if what := described(weights):
            raise ModelError(f"{path} {what}")
        raise ModelError(
            f"{path.name} does not say which architecture it is for: also give model=, such as model='ViT-L-14'{hint(weights)}"
        )
    check_architecture(architecture)
    model, tokenizer = by_name(architecture, RANDOM, **({"force_quick_gelu": True} if is_openai(weights) else {}))
    fit(model, weights, str(path), architecture)
    return f"{architecture}/{path.name}", model, tokenizer


def by_name(architecture: str, tag: str, **options: Any) -> tuple[nn.Module, Callable[[], Callable]]:
    """A model of open_clip's configurations with the weights of a tag, and what makes its tokenizer."""
    import open_clip

    def tokenizer() -> Callable:
        return open_clip.get_tokenizer(architecture)

    if tag == RANDOM:
        return open_clip.create_model(architecture, pretrained_hf=False, **options), tokenizer
    found = open_clip.get_pretrained_cfg(architecture, tag) or {}
    if pickles_are_unsafe():
        check_pickle(Path(open_clip.download_pretrained(found)))
    return open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=found.get("quick_gelu", False)), tokenizer


def download(source: str, progress: Progress) -> None:
    """The weights of a name and tag into the hub's cache, where open_clip looks for them; nothing for other sources.

    Raises ModelError where that cannot be, and what `progress` raises.
    """
    architecture, _, tag = source.partition("/")
    if architecture not in configurations():
        return
    import open_clip

    found = open_clip.get_pretrained_cfg(architecture, tag) or {}
    repository, _, file = str(found.get("hf_hub", "")).rpartition("/")
    if not repository:
        return
    file = file or "open_clip_pytorch_model.bin"
    safe = "open_clip_model.safetensors" if file == "open_clip_pytorch_model.bin" else f"{Path(file).stem}.safetensors"
    names = list(dict.fromkeys([safe, file]))  # in open_clip's order
    if cached(repository, names) is None:
        fetch(repository, lambda there: [name for name in names if name in there][:1], progress)


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
    if isinstance(model, Clip):
        raise ModelError("this CLIP is loaded already: use it as it is, or give its name, file or module to load another")
    model = unwrapped(model)
    text = getattr(model, "text", model)
    usual = hasattr(model, "encode_text") and getattr(text, "vocab_size", None) == USUAL_VOCABULARY
    tokenizer = None
    if usual:
        from open_clip import SimpleTokenizer

        tokenizer = SimpleTokenizer(context_length=text.context_length)
    return Clip(type(model).__name__, tower_of(model), model, tokenizer)


def check_tag(architecture: str, tag: str) -> None:
    """Raises ModelError unless the tag is one of released weights, or the word for random ones."""
    from open_clip import list_pretrained_models_by_tag, list_pretrained_tags_by_model

    tags = list_pretrained_tags_by_model(architecture)
    if architecture not in readable_architectures() and tag != RANDOM:
        raise ModelError(f"{architecture} has no vision transformer that is known here: use one such as ViT-B-16/openai")
    if tag == RANDOM or tag in tags:
        return
    names = [f"{architecture}/{one}" for one in tags]
    if not tag:
        some = f"choose some, such as {' or '.join(names[:3])}" if names else "give a file of weights with model="
        raise ModelError(
            f"{architecture} is an architecture, and does not say which weights: {some}. For random weights, which know nothing, "
            f"say {architecture}/{RANDOM}"
        )
    if names:
        raise ModelError(f"{architecture} has no weights called {tag!r}. {suggest(tag, tags)}")
    others = [name for name in list_pretrained_models_by_tag(tag) if name in readable_architectures()]
    more = f" Weights called {tag!r} are there for {', '.join(others[:4])}." if others else ""
    raise ModelError(
        f"{architecture} has no released weights, so none called {tag!r}.{more} Give a file of your own with model={architecture!r}"
    )


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


def explain(error: Exception, source: str) -> str:
    first, architecture = first_line(error), source.partition("/")[0]
    if "state_dict" in first or "size mismatch" in str(error):
        return f"the weights of {source} do not fit {architecture}: choose the model that they were made for"
    if "/" in source and not os.path.exists(source):
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
