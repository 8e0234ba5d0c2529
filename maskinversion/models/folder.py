"""A CLIP in a folder: open_clip_config.json, its weights, and its tokenizer where that is not CLIP's own."""

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import MaskInversionError, ModelError
from ..files import read_json
from .weights import WEIGHT_SUFFIXES, check_counts, check_size, numbers_in

CONFIG = "open_clip_config.json"
FILTERS = ("bicubic", "bilinear")


def weights_in(folder: Path) -> Path:
    """The weights of a model's folder: safetensors before others, open_clip's own names before others, then by the alphabet.

    Raises ModelError when there are none.
    """
    found = [file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES]
    if not found:
        raise ModelError(f"{folder} has no weights: put an open_clip_model.safetensors into it")
    return min(found, key=lambda file: (file.suffix != ".safetensors", not file.stem.startswith("open_clip"), file.name))


def from_folder(folder: Path, weights: str) -> tuple[nn.Module, Callable[[], Callable]]:
    """A model of a folder's own configuration, and what makes its tokenizer: as open_clip 3 reads `local-dir:`, which older ones
    do not know."""
    import open_clip

    try:
        config = read_json(folder / CONFIG, ModelError)
        check_counts(config, str(folder / CONFIG))
        model_config, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
        text = model_config["text_cfg"]
        text["hf_model_pretrained"] = model_config["vision_cfg"]["timm_model_pretrained"] = False  # all weights are in the folder
        if model_config.pop("custom_text", False) or "hf_model_name" in text:
            kind = open_clip.CoCa if "multimodal_cfg" in model_config else open_clip.CustomTextCLIP
        else:
            kind = open_clip.CLIP
        if not text.get("hf_model_name") and not model_config["vision_cfg"].get("timm_model_name"):
            with torch.device("meta"):  # the others know their sizes by name
                check_size(kind(**model_config), numbers_in(Path(weights)), str(folder / CONFIG))
        model: Any = kind(**model_config)
        check_preprocess(preprocess)
    except MaskInversionError:
        raise
    except Exception as error:  # numbers that cannot be make open_clip raise nearly everything
        raise ModelError(f"{folder / CONFIG} does not describe a model of open_clip ({error!r})") from error
    open_clip.load_checkpoint(model, weights)
    model.visual.preprocess_cfg = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, **preprocess}

    def tokenizer() -> Callable:
        options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
        if not text.get("hf_tokenizer_name"):
            return open_clip.SimpleTokenizer(**options)
        if "tokenizer_mode" in text:
            options["tokenizer_mode"] = text["tokenizer_mode"]
        return open_clip.tokenizer.HFTokenizer(str(folder), **options)

    return model, tokenizer


def check_preprocess(preprocess: dict) -> None:
    """Raises ValueError for colours and filters that no model has seen."""
    for what, least in (("mean", -1e6), ("std", 1e-6)):
        colour = preprocess.get(what) or [1.0, 1.0, 1.0]
        if len(colour) != 3 or not all(isinstance(value, int | float) and isfinite(value) and value >= least for value in colour):
            raise ValueError(f"{what} is {colour!r}")
    if preprocess.get("interpolation") not in (None, *FILTERS):
        raise ValueError(f"interpolation is {preprocess['interpolation']!r}")
