"""Referring expressions: which of the regions a phrase means, and which phrase means a region (arXiv 2407.20034, section 4.1).

The paper inverts the masks with alpha 5 for this, so that the tokens keep what is around: "the dog on the left".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.clip import Clip
from ..packages import require
from .classify import compare
from .phrases import EXPRESSION_TEMPLATE


@dataclass(frozen=True)
class Reference:
    """similarities [M, T]: cosines of M regions and the T `phrases`. region_of[t]: the region that phrase t means, from 0.
    phrase_of[m]: the phrase that means region m. With a one-to-one assignment, None where there was none left."""

    phrases: list[str]
    similarities: Tensor
    region_of: list[int | None]
    phrase_of: list[int | None]


def refer(
    embeddings: Tensor, clip: Clip, phrases: Sequence[str], template: str = EXPRESSION_TEMPLATE, one_to_one: bool = False
) -> Reference:
    """Match phrases with the regions of embeddings [M, D].

    one_to_one: every region belongs to one phrase at most, and the sum of the similarities is the largest that there is;
        otherwise each phrase takes its nearest region, and each region its nearest phrase.
    Raises InputError as `classify`, and PackageError when a one-to-one assignment is asked for without scipy.
    """
    found = compare(embeddings, clip, phrases, template)
    similarities = found.similarities.cpu()
    if not one_to_one:
        return Reference(found.phrases, similarities, similarities.argmax(0).tolist(), similarities.argmax(1).tolist())
    regions, texts = assign(similarities)
    region_of: list[int | None] = [None] * similarities.shape[1]
    phrase_of: list[int | None] = [None] * similarities.shape[0]
    for region, text in zip(regions, texts, strict=True):
        region_of[text], phrase_of[region] = region, text
    return Reference(found.phrases, similarities, region_of, phrase_of)


def assign(similarities: Tensor) -> tuple[list[int], list[int]]:
    """Rows and columns of the one-to-one assignment with the largest sum, of a matrix [M, T]; min(M, T) of each."""
    optimize = require("scipy.optimize", "a one-to-one assignment")
    rows, columns = optimize.linear_sum_assignment(torch.as_tensor(similarities).cpu().numpy(), maximize=True)
    return rows.tolist(), columns.tolist()
