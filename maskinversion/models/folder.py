"""A CLIP in a folder: open_clip_config.json, its weights, and its tokenizer where that is not CLIP's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import ModelError
from ..files import read_json
from .fitting import NATIVE, fit
from .weights import is_weights, read_weights

CONFIG = "open_clip_config.json"


def check_folder(folder: Path) -> None:
    """Raises ModelError for what is not a model's folder, and says what it is."""
    if (folder / CONFIG).is_file():
        return
    if folder.is_file():
        raise ModelError(f"{folder} is a file: give it without 'local-dir:', and its architecture as model=")
    if (folder / "model_index.json").is_file():
        raise ModelError(f"{folder} is a pipeline of diffusers, not a CLIP: it may have one in its folder image_encoder, {NATIVE}")
    if (folder / "config.json").is_file():
        raise ModelError(f"{folder} is a folder of transformers (it has a config.json and no {CONFIG}): {NATIVE}")
    found = sorted(file.name for file in folder.iterdir() if is_weights(file)) if folder.is_dir() else []
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
    import open_clip

    weights = read_weights(weights_in(folder))
    config = read_json(folder / CONFIG, ModelError)
    try:
        model_config, preprocess = config["model_cfg"], config.get("preprocess_cfg", {})
        text = model_config["text_cfg"]
        text["hf_model_pretrained"] = model_config["vision_cfg"]["timm_model_pretrained"] = False  # all weights are in the folder
        if model_config.pop("custom_text", False) or "hf_model_name" in text:
            kind = open_clip.CoCa if "multimodal_cfg" in model_config else open_clip.CustomTextCLIP
        else:
            kind = open_clip.CLIP
        model: Any = kind(**model_config)
    except (KeyError, TypeError, AttributeError, AssertionError, ArithmeticError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder / CONFIG} does not describe a model of open_clip ({error!r})") from error
    fit(model, weights, str(folder), CONFIG)
    model.visual.preprocess_cfg = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD, **preprocess}

    def tokenizer() -> Callable:
        options = {"context_length": text.get("context_length", 77), **text.get("tokenizer_kwargs", {})}
        if not text.get("hf_tokenizer_name"):
            return open_clip.SimpleTokenizer(**options)
        if "tokenizer_mode" in text:
            options["tokenizer_mode"] = text["tokenizer_mode"]
        return open_clip.tokenizer.HFTokenizer(str(folder), **options)

    return model, tokenizer
