"""Zero-shot classification of regions: which phrase is nearest to the token (arXiv 2407.20034, section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from reprlib import repr as shown

import torch.nn.functional as F
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError
from ..models.clip import Clip, check_text
from ..pictures import warn
from .phrases import CLASS_TEMPLATE
from .texts import Callback, text_embeddings

COMMAS = ",;\uff0c\uff1b\u3001"  # also those of Chinese and Japanese


@dataclass(frozen=True)
class Classification:
    """similarities, probabilities [M, T]: of M regions and the T `phrases`; cosines, and their softmax over the phrases."""

    phrases: list[str]
    similarities: Tensor
    probabilities: Tensor

    @property
    def best(self) -> list[tuple[str, float]]:
        """The most likely phrase of each region, and its probability."""
        values, indices = self.probabilities.max(1)
        return [(self.phrases[i], p) for i, p in zip(indices.tolist(), values.tolist(), strict=True)]


def classify(
    embeddings: Tensor,
    clip: Clip,
    phrases: Sequence[str],
    template: str | Sequence[str] = CLASS_TEMPLATE,
    callback: Callback | None = None,
) -> Classification:
    """Compare embeddings [M, D], such as `LocalizedTokens.embeddings`, with phrases put into `template` in place of {}.

    template: one, or several whose embeddings are averaged, such as `phrases.TEMPLATES["imagenet-80"]`.
    A phrase that is there twice counts once. Raises InputError for embeddings of another width than the CLIP's, no phrase, or a
    template without {}; warns of a single phrase that is probably a list.
    """
    found = compare(embeddings, clip, list(dict.fromkeys(stripped(phrases))), template, callback)
    if len(found.phrases) == 1 and any(mark in found.phrases[0] for mark in COMMAS):
        warn(f"there is one phrase, {shown(found.phrases[0])}, so that it gets 100%: if it is a list, give its phrases one a line")
    return found


@settled()
def compare(
    embeddings: Tensor,
    clip: Clip,
    phrases: Sequence[str],
    template: str | Sequence[str],
    callback: Callback | None = None,
) -> Classification:
    """As `classify`, also where one phrase is all there should be, or one is there twice."""
    phrases = stripped(phrases)
    if embeddings.shape[-1] != clip.tower.width_out:
        raise InputError(
            f"the tokens have {embeddings.shape[-1]} numbers each, {clip.name} makes {clip.tower.width_out}: "
            f"classify with the CLIP that made the tokens"
        )
    texts = text_embeddings(clip, phrases, [template] if isinstance(template, str) else template, callback)
    similarities = F.normalize(embeddings.to(texts), dim=-1) @ texts.T
    return Classification(phrases, similarities, (clip.logit_scale * similarities).softmax(-1))


def stripped(phrases: Sequence[str]) -> list[str]:
    """Those that are not blank, without blanks around them. Raises InputError for what is no list of texts."""
    if isinstance(phrases, str):
        raise InputError(f"the phrases are one text, {shown(phrases)}: give a list, such as ['cat', 'dog']")
    for phrase in phrases:
        check_text(phrase)
    return [phrase.strip() for phrase in phrases if phrase.strip()]
