"""Zero-shot classification of regions: which phrase is nearest to the token (arXiv 2407.20034, section 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..clip import Clip
from ..errors import InputError


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


def classify(embeddings: Tensor, clip: Clip, phrases: Sequence[str], template: str = "a photo of a {}") -> Classification:
    """Compare embeddings [M, D], such as `LocalizedTokens.embeddings`, with phrases put into `template` in place of {}.

    Raises InputError for embeddings of another width than the CLIP's, no phrase, or a template without {}.
    """
    phrases = [phrase.strip() for phrase in phrases if phrase.strip()]
    if not phrases:
        raise InputError("there is no phrase to choose from: write at least one")
    if "{}" not in template:
        raise InputError(f"the template {template!r} has no {{}} where the phrase goes, as in 'a photo of a {{}}'")
    if embeddings.shape[-1] != clip.tower.width_out:
        raise InputError(
            f"the tokens have {embeddings.shape[-1]} numbers each, {clip.name} makes {clip.tower.width_out}: "
            f"classify with the CLIP that made the tokens"
        )
    texts = F.normalize(clip.encode_text([template.replace("{}", phrase) for phrase in phrases]), dim=-1)
    similarities = F.normalize(embeddings.to(texts), dim=-1) @ texts.T
    return Classification(phrases, similarities, (clip.logit_scale * similarities).softmax(-1))
