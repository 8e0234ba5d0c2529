"""What a CLIP's text side says of every piece of a text, where `Clip.encode_text` says one thing of the whole."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..compute.ambient import settled
from ..errors import ModelError
from .clip import Clip

ROUNDING = 1e-2  # of an embedding's length, in half precision


@dataclass(frozen=True)
class TextStates:
    """Of one text of L pieces of words, its two ends among them.

    numbers: [L], as the tokenizer gives them. states [L, d]: after the last norm. projected [L, D]: the states as the embedding is
    made of the last one. embedding [D]: of the whole text, unnormalised.
    """

    numbers: list[int]
    states: Tensor
    projected: Tensor
    embedding: Tensor


@settled()
def text_states(clip: Clip, text: str) -> TextStates:
    """Float32, on the CLIP's device. Warns of a text that is longer than the model reads.

    Raises InputError and ModelError as `Clip.encode_text`, and ModelError for a CLIP that does not read from word to word into the
    last one, as OpenAI's does.
    """
    embedding = clip.encode_text([text])[0]
    assert clip.tokenizer is not None
    numbers = clip.tokenizer([text])
    end = int(numbers[0].argmax())
    try:
        states, projected = (found[0, : end + 1] for found in states_of(clip, numbers))
        agree = projected[-1].shape == embedding.shape and (projected[-1] - embedding).norm() < ROUNDING * embedding.norm()
    except (AttributeError, TypeError, RuntimeError):  # of a text side that is built in another way
        agree = False
    if not agree:
        raise ModelError(
            f"{clip.name} reads text in a way that gives no embedding of each word: use ViT-bigG-14, or the bundled CLIP"
        )
    return TextStates(numbers[0, : end + 1].tolist(), states, projected, embedding)


def states_of(clip: Clip, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The states [T, L, d] and the projected states [T, L, D] of T texts, of a text side as open_clip builds OpenAI's; nothing is
    checked."""
    side = getattr(clip.model, "text", clip.model)
    words = side.token_embedding(numbers.to(clip.device)).to(side.positional_embedding.dtype) + side.positional_embedding
    later = torch.full([words.shape[1]] * 2, -torch.inf, dtype=words.dtype, device=words.device).triu(1)
    states = side.ln_final(side.transformer(words, attn_mask=later)).float()
    project = side.text_projection
    return states, project(states) if isinstance(project, nn.Module) else states @ project.float()


def pieces_of(clip: Clip, word: str) -> list[int]:
    """The numbers of a word or of several, without the ends of the text. For a CLIP with a tokenizer."""
    assert clip.tokenizer is not None
    numbers = clip.tokenizer([word])[0]
    return numbers[1 : int(numbers.argmax())].tolist()


def places_of(numbers: list[int], pieces: list[int]) -> list[int]:
    """Where a word stands in a text, both by their numbers: the places of all its pieces, every time that it stands there."""
    size = len(pieces)
    starts = [start for start in range(len(numbers) - size + 1) if size and numbers[start : start + size] == pieces]
    return sorted({place for start in starts for place in range(start, start + size)})
