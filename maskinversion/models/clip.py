"""A frozen vision-language model: the image side as a tower, the text side, and who it is."""

import hashlib
from collections.abc import Callable, Sequence
from reprlib import repr as shown
from typing import Any

import torch
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError, ModelError
from ..pictures import warn
from .towers import Tower


class Clip:
    """What `load_clip` returns. Nothing in this library ever changes the model inside.

    name: where it came from, such as "ViT-B-16/openai". tower: its image side. model, tokenizer: the whole of it; a model
    with an image side only, or with texts of an unknown vocabulary, comes without a tokenizer. fingerprint: of its image
    projection, the same for the same weights at any precision down to float16.

    tokenizer: as open_clip's, texts to numbers [T, L], of which L is the model's context or a given `context_length`.
    """

    def __init__(self, name: str, tower: Tower, model: Any, tokenizer: Callable[..., Tensor] | None = None):
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

    @settled()
    def encode_text(self, texts: Sequence[str], together: int | None = None) -> Tensor:
        """Unnormalised embeddings [T, D], float32, of T texts. Warns of those that are longer than the model reads.

        together: how many go through the model at a time, which decides how products are rounded; None is all.
        Raises InputError when `texts` is one string or empty, or one of them is no text, ModelError without a tokenizer.
        """
        if self.tokenizer is None:
            raise ModelError(f"{self.name} came without a tokenizer, so it cannot read text: load it by its open_clip name instead")
        if isinstance(texts, str) or not texts:
            raise InputError("texts must be a list with at least one phrase, such as ['a photo of a cat']")
        for text in texts:
            check_text(text)
        numbers = self.tokenizer(list(texts))
        self.warn_of_cut(texts, numbers, self.tokenizer)
        parts = numbers.to(self.device).split(together or len(numbers))
        return torch.cat([self.model.encode_text(part).float() for part in parts])

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Those that are longer than the model reads."""
        assert self.tokenizer is not None
        return self.found_cut(texts, self.tokenizer(list(texts)), self.tokenizer) if texts else []

    def warn_of_cut(self, texts: Sequence[str], numbers: Tensor, tokenizer: Callable[..., Tensor]) -> None:
        """Warns where the numbers [T, L] of texts have their beginnings only, which every tokenizer does without a word."""
        cut = self.found_cut(texts, numbers, tokenizer)
        if cut:
            many = f"{len(cut)} of {len(texts)} texts are" if len(cut) > 1 else "a text is"
            length = numbers.shape[1]
            warn(f"{many} longer than {self.name} reads, and what is beyond {length} tokens is left out: {shown(cut[0])}")

    def found_cut(self, texts: Sequence[str], numbers: Tensor, tokenizer: Callable[..., Tensor]) -> list[str]:
        length = numbers.shape[1]
        # A number stands for a byte or more, beside one or two for the ends.
        long = [index for index, text in enumerate(texts) if len(text.encode()) + 2 > length]
        if not long:
            return []
        whole = tokenizer([texts[index] for index in long] + [""], context_length=2 * length)[:, :length]
        *differ, always = (whole != torch.cat([numbers[long], tokenizer([""])])).any(1).tolist()
        if always:  # a tokenizer that writes at the end of every row cannot be compared
            return []
        return [texts[index] for index, differs in zip(long, differ) if differs]


def check_text(text: object) -> None:
    """Raises InputError for what is not a text in Unicode, such as bytes of another encoding given on the command line."""
    refused = f"{shown(text)} is not a text, or not in Unicode: give phrases in UTF-8"
    if not isinstance(text, str):
        raise InputError(refused)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(refused) from error
