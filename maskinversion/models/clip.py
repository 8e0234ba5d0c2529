"""A frozen vision-language model: the image side as a tower, the text side, and who it is."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, ModelError
from .towers import Tower


class Clip:
    """What `load_clip` returns. Nothing in this library ever changes the model inside.

    name: where it came from, such as "ViT-B-16/openai". tower: its image side. model, tokenizer: the whole of it; a model
    with an image side only, or with texts of an unknown vocabulary, comes without a tokenizer. fingerprint: of its image
    projection, the same for the same weights at any precision down to float16.
    """

    def __init__(self, name: str, tower: Tower, model: Any, tokenizer: Callable[[list[str]], Tensor] | None = None):
        self.name = name
        self.tower = tower
        self.model = model
        self.tokenizer = tokenizer
        weights = tower.projection.detach().to("cpu", torch.float16).contiguous()
        self.fingerprint = hashlib.sha256(weights.view(torch.uint8).numpy().tobytes()).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Clip({self.name!r}, {self.tower.image_size[0]} px, embedding {self.tower.width_out}, {self.device})"

    @property
    def device(self) -> torch.device:
        return self.tower.device

    @property
    def logit_scale(self) -> float:
        """What cosine similarities are multiplied with before a softmax, as learnt in training."""
        return float(self.model.logit_scale.detach().exp())

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unnormalised embeddings [T, D], float32, of T texts.

        Raises InputError when `texts` is one string or empty, ModelError without a tokenizer.
        """
        if self.tokenizer is None:
            raise ModelError(f"{self.name} came without a tokenizer, so it cannot read text: load it by its open_clip name instead")
        if isinstance(texts, str) or not texts:
            raise InputError("texts must be a list with at least one phrase, such as ['a photo of a cat']")
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device)).float()
