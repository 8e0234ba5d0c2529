"""A CLIP in a folder: open_clip_config.json, its weights, and its tokenizer where that is not CLIP's own."""

import os
from collections.abc import Callable, Mapping
from copy import copy
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import MaskInversionError, ModelError
from ..files import read_json
from .catalogue import open_clip_module
from .content import is_weights
from .fitting import NATIVE, described, fit
from .plain import PlainClip, is_plain
from .towers.base import CLIP_PIXELS
from .weights import check_counts, check_size, read_weights

CONFIG = "open_clip_config.json"
FILTERS = ("bicubic", "bilinear")


def check_folder(folder: Path) -> None:
    """Raises ModelError for what is not a model's folder, and says what it is."""
    if os.path.isfile(folder / CONFIG):
        return
    if os.path.isfile(folder):
        raise ModelError(f"{folder} is a file: give it without 'local-dir:', and its architecture as model=")
    if os.path.isfile(folder / "model_index.json"):
        raise ModelError(f"{folder} is a pipeline of diffusers, not a CLIP: it may have one in its folder image_encoder, {NATIVE}")
    if os.path.isfile(folder / "config.json"):
        raise ModelError(f"{folder} is a folder of transformers (it has a config.json and no {CONFIG}): {NATIVE}")
    found = sorted(file.name for file in folder.iterdir() if is_weights(file)) if os.path.isdir(folder) else []
    more = f". For its {found[0]} alone give that file, and its architecture as model=" if found else ""
    raise ModelError(f"{folder} is not a model folder: it has no {CONFIG}{more}")


def weights_in(folder: Path) -> Path:
    """The weights of a model's folder: open_clip's own names before others, and then safetensors.

    Raises ModelError when there are none, or several that could be meant.
    """

    def rank(file: Path) -> tuple[bool, bool]:
        return not file.stem.lower().startswith("open_clip"), file.suffix.lower() != ".safetensors"

    found = sorted(filter(is_weights, folder.iterdir()), key=lambda file: (rank(file), file.name))
    if not found:
        raise ModelError(f"{folder} has no weights: put an open_clip_model.safetensors into it")
    best = [file.name for file in found if rank(file) == rank(found[0])]
    if len(best) > 1:
        raise ModelError(
            f"{folder} has several files of weights ({', '.join(best)}): keep the one that is meant, or call it "
            f"open_clip_model{found[0].suffix.lower()} and the others something else"
        )
    return found[0]


def from_folder(folder: Path) -> tuple[nn.Module, Callable[[], Callable]]:
    """A model of a folder's own configuration, and what makes its tokenizer: as open_clip 3 reads `local-dir:`, which older ones
    do not know."""
    weights = read_weights(weights_in(folder))
    config = read_json(folder / CONFIG, ModelError)
    check_counts(config, str(folder / CONFIG))
    try:
        model_config, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
        text = model_config["text_cfg"]
        kind = kind_of_model(model_config)
        model: Any = None
        if not text.get("hf_model_name") and not model_config["vision_cfg"].get("timm_model_name"):
            there = sum(weight.numel() for weight in weights.values())
            with torch.device("meta"):  # the others know their sizes by name
                model = kind(**model_config)
            check_size(model, there, str(folder / CONFIG))
        model = without_values(model) if kind is PlainClip else kind(**model_config)  # or with random ones
        check_preprocess(preprocess)
    except MaskInversionError as error:
        if what := described(weights):
            raise ModelError(f"{folder} {what}") from error
        raise
    except Exception as error:  # numbers that cannot be make open_clip raise nearly everything
        raise ModelError(f"{folder / CONFIG} does not describe a model of open_clip ({error!r})") from error
    fit(model, weights, str(folder), CONFIG)
    model.visual.preprocess_cfg = {"mean": CLIP_PIXELS[0], "std": CLIP_PIXELS[1], **preprocess}

    def tokenizer() -> Callable:
        options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
        with open_clip_module("tokenizer") as tokenizers:
            if not text.get("hf_tokenizer_name"):
                return simple_tokenizer(tokenizers, options)
            if "tokenizer_mode" in text:
                options["tokenizer_mode"] = text["tokenizer_mode"]
            return tokenizers.HFTokenizer(str(folder), **options)

    return model, tokenizer


def without_values(model: nn.Module) -> nn.Module:
    """A model of the device `meta` on the CPU, as its `to_empty` makes it, which imports PyTorch's compiler for that."""
    return model._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))


def simple_tokenizer(tokenizers: Any, options: Mapping[str, Any]) -> Callable:
    """open_clip's SimpleTokenizer: the one that its module makes when it is imported, where that differs in its length only,
    since each one reads the vocabulary for half a second."""
    made = vars(tokenizers).get("_tokenizer")
    if type(made) is not tokenizers.SimpleTokenizer or options.keys() != {"context_length"}:
        return tokenizers.SimpleTokenizer(**options)
    found = copy(made)
    found.context_length, found.cache = options["context_length"], dict(made.cache)
    return found


def kind_of_model(config: dict) -> Callable[..., nn.Module]:
    """What makes a model of this `model_cfg`, from which it takes out what is not for that."""
    if is_plain(config):
        return PlainClip
    import open_clip

    text = config["text_cfg"]
    text["hf_model_pretrained"] = config["vision_cfg"]["timm_model_pretrained"] = False  # all weights are in the folder
    if config.pop("custom_text", False) or "hf_model_name" in text:
        return open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    return open_clip.CLIP


def check_preprocess(preprocess: dict) -> None:
    """Raises ValueError for colours and filters that no model has seen."""
    for what, least in (("mean", -1e6), ("std", 1e-6)):
        colour = preprocess.get(what) or [1.0, 1.0, 1.0]
        if len(colour) != 3 or not all(isinstance(value, int | float) and isfinite(value) and value >= least for value in colour):
            raise ValueError(f"{what} is {colour!r}")
    if preprocess.get("interpolation") not in (None, *FILTERS):
        raise ValueError(f"interpolation is {preprocess['interpolation']!r}")
