"""A frozen vision-language model: the image side as a tower, the text side, and who it is."""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .errors import InputError
from .towers import Tower


class Clip:
    """What `load_clip` returns. Nothing in this library ever changes the model inside.

    name: where it came from, such as "ViT-B-16/openai". tower: its image side. fingerprint: of its image projection, the
    same for the same weights at any precision down to float16.
    """

    def __init__(self, name: str, tower: Tower, model: nn.Module, tokenizer: Callable[[list[str]], Tensor]):
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

        Raises InputError when `texts` is one string or empty.
        """
        if isinstance(texts, str) or not texts:
            raise InputError("texts must be a list with at least one phrase, such as ['a photo of a cat']")
        return self.model.encode_text(self.tokenizer(list(texts)).to(self.device)).float()
