"""Weights into a model of open_clip: all of them, into the places they were made for, or a sentence that says what they are."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from .catalogue import configurations

NATIVE = (
    "in ComfyUI load it with Load CLIP Vision, whose output MaskInversion takes; in Python load it with transformers' "
    "CLIPVisionModelWithProjection or SiglipVisionModel, and give that to load_clip"
)
OPENAI = ("input_resolution", "context_length", "vocab_size")  # numbers among the weights of OpenAI's archives

# How the names of weights begin that are often taken for a CLIP of open_clip, and what to say of them.
OTHERS = {
    "vision_model.": f"holds an image side as ComfyUI and transformers have it (vision_model...): {NATIVE}",
    "model.vision_model.": f"holds an image side as transformers has it (vision_model...): {NATIVE}",
    "model.diffusion_model.": "is a checkpoint of a diffusion model, not a CLIP: load that with Load Checkpoint, and a CLIP here",
    "diffusion_model.": "is a diffusion model, not a CLIP: take a CLIP, such as 'ViT-L-14/openai'",
    "image_proj.": "is an IP-Adapter, not a CLIP: give it to Load Pipeline for Tokens, and the CLIP that it was trained with here",
    "ip_adapter.": "is an IP-Adapter, not a CLIP: give it to Load Pipeline for Tokens, and the CLIP that it was trained with here",
    "lora_": "is a LoRA, not a whole model: merge it into its CLIP, and save that",
    "base_model.model.": "is an adapter of PEFT, not a whole model: merge it (merge_and_unload), and save the model",
    "encoder.layer.": "is a DINO or another model that never saw text: take a CLIP, such as 'ViT-L-14/openai'",
    "blocks.": "is an image model of timm, which has no image-text space: take a CLIP, such as 'ViT-L-14/openai'",
    "text_model.": "is a text encoder without an image side: take a whole CLIP, such as 'ViT-L-14/openai'",
    "clip_project.": "is a captioner (ClipCap), not a CLIP: give it to Load Captioner",
}


def fit(model: Any, weights: Mapping[str, Tensor], name: str, made_for: str) -> None:
    """Puts weights into a model of open_clip. name: of the file. made_for: of the architecture, or what describes it.

    Raises ModelError unless every weight of the model is there, with its shape, as floating point numbers.
    """
    own = model.state_dict()
    given = adjusted(dict(weights), model, own)
    missing, more = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if (missing or more) and (what := described(weights)):
        raise ModelError(f"{name} {what}")
    wrong = next((key for key in own if key in given and given[key].shape != own[key].shape), None)
    if wrong is not None:
        why = f"{wrong} is {list(given[wrong].shape)}, and {made_for} has {list(own[wrong].shape)}"
    elif missing:
        why = f"{missing[0]} is missing"
    elif more:
        why = f"{made_for} has no {more[0]}"
    else:
        for key, value in given.items():
            if own[key].is_floating_point() and not value.is_floating_point():
                raise ModelError(f"{name} is quantised ({key} is {value.dtype}): take the weights in float32 or float16")
        model.load_state_dict(given)
        return
    raise ModelError(
        f"the weights of {name} do not fit {made_for} ({why}): choose the model that they were made for{hint(weights)}"
    )


def adjusted(weights: dict[str, Tensor], model: Any, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the names and forms of open_clip's newest models, as it does itself."""
    if "positional_embedding" in weights and "positional_embedding" not in own:
        from open_clip.model import convert_to_custom_text_state_dict

        weights = dict(convert_to_custom_text_state_dict(weights))
    for key in ("logit_scale", "logit_bias"):
        if key in weights and key in own and weights[key].numel() == 1:
            weights[key] = weights[key].reshape(own[key].shape)
    if "logit_bias" in own and "logit_scale" in weights:  # of a model trained before it had one
        weights.setdefault("logit_bias", torch.zeros_like(weights["logit_scale"]))
    for key in (*OPENAI, "text.transformer.embeddings.position_ids"):
        if key not in own:
            weights.pop(key, None)
    return weights


def described(weights: Iterable[str]) -> str | None:
    """What weights are that are not of an open_clip model."""
    for begin, what in OTHERS.items():
        if any(key.startswith(begin) for key in weights):
            return what
    texts = any(key.endswith(("token_embedding.weight", "word_embeddings.weight")) for key in weights)
    if any(key.startswith("visual.") for key in weights) and not texts:
        return f"holds the image side of a CLIP alone: {NATIVE}"
    return None


def is_openai(weights: Mapping[str, Tensor]) -> bool:
    """Whether they are of OpenAI's own archives, whose models have another activation than open_clip's of the same name."""
    return all(key in weights for key in OPENAI)


def hint(weights: Mapping[str, Tensor]) -> str:
    """The architectures that weights have the shapes of, for the end of a message."""
    found = architectures_of({key: value.shape for key, value in weights.items()})
    return f". They have the shapes of {' or '.join(found)}" if found else ""


def architectures_of(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """The names of open_clip's architectures that weights of these shapes are of."""
    given = {key: list(shape) for key, shape in shapes.items()}
    return [name for name in configurations() if all(given.get(key) == shape for key, shape in shapes_of(name).items())]


def shapes_of(name: str) -> dict[str, list[int]]:
    """Some that tell open_clip's own architectures apart; none of timm's have these names."""
    config = configurations()[name]
    vision, text, width_out = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    if not isinstance(vision.get("layers"), int) or "hf_model_name" in text or vision.get("timm_model_name"):
        return {"": []}
    width, patch, layers = vision.get("width", 768), vision.get("patch_size", 16), vision["layers"]
    before = "text." if config.get("custom_text") or "multimodal_cfg" in config else ""
    size = vision.get("image_size", 224)
    last = f"{before}transformer.resblocks.{text.get('layers', 12) - 1}.ln_2.weight"
    return {
        "visual.conv1.weight": [width, 3, patch, patch],
        "visual.positional_embedding": [(size // patch) ** 2 + 1, width] if isinstance(size, int) else [],
        "visual.proj": [width, width_out],
        f"visual.transformer.resblocks.{layers - 1}.ln_2.weight": [width],
        f"{before}token_embedding.weight": [text.get("vocab_size", 49408), text.get("width", 512)],
        f"{before}positional_embedding": [text.get("context_length", 77), text.get("width", 512)],
        last: [text.get("width", 512)],
    }
