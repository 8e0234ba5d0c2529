"""Regions in words: prompts for models that read text only.

Phrases of several lists are put together greedily, as CLIP-Interrogator (github.com/pharmapsychotic/clip-interrogator) does for
whole pictures: the next phrase is the one with which the whole sentence is nearest to the token.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..models.clip import Clip
from .classify import compare, stripped
from .phrases import PROMPT_TEMPLATE, REGION_TEMPLATE
from .texts import unit_embeddings

CANDIDATES = 10  # phrases of a list that are tried in the sentence: those that are nearest alone
COMMA = ", "
SEPARATOR = "; "
THIRDS = (1 / 3, 2 / 3)
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("on the left", "in the middle", "on the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)
EVERYWHERE = "all over the picture"
WIDE = 0.9  # of both sides of the picture

Callback = Callable[[int, int], None]  # (lists read and regions described, of how many); it may raise to stop


@dataclass(frozen=True)
class Prompt:
    """text: of one region. phrases: what it is made of, in its order: (list, phrase). similarity: cosine of text and token."""

    text: str
    phrases: list[tuple[str, str]]
    similarity: float


def describe(
    embeddings: Tensor,
    clip: Clip,
    lists: Mapping[str, Sequence[str]],
    template: str = PROMPT_TEMPLATE,
    each: int = 1,
    rise: float = 0.0,
    callback: Callback | None = None,
) -> list[Prompt]:
    """A prompt for each of embeddings [M, D], such as `LocalizedTokens.embeddings`.

    lists: phrases by the name of their list. A prompt begins with the best phrase of the first list, and goes on with whichever of
        any list raises the cosine of the whole sentence most, as long as one raises it by more than `rise`.
    template: what the phrases, with commas between, are written into in place of {}; it is compared as a part of the sentence.
    each: most phrases of a list in a prompt.

    A sentence that is longer than the model reads is not made. Raises InputError as `classify`, and for each below 1.
    """
    if each < 1:
        raise InputError(f"each is {each}; it must be at least 1")
    lists = {name: kept for name, phrases in lists.items() if (kept := stripped(phrases))}
    if not lists:
        raise InputError("there is no phrase to make a prompt of: choose a list, or write phrases")
    steps = len(lists) + len(embeddings)
    nearest: dict[str, list[list[str]]] = {}
    for name, phrases in lists.items():
        nearest[name] = best_of(embeddings, clip, phrases, template)
        if callback is not None:
            callback(len(nearest), steps)
    prompts: list[Prompt] = []
    for region, embedding in enumerate(F.normalize(embeddings.to(clip.device, torch.float32), dim=-1)):
        left = {name: list(best[region]) for name, best in nearest.items()}
        prompts.append(put_together(embedding, clip, left, template, each, rise))
        if callback is not None:
            callback(len(nearest) + len(prompts), steps)
    return prompts


def best_of(embeddings: Tensor, clip: Clip, phrases: Sequence[str], template: str) -> list[list[str]]:
    """Of each of embeddings [M, D], the nearest phrases, best first."""
    found = compare(embeddings, clip, list(dict.fromkeys(phrases)), template)
    indices = found.similarities.topk(min(CANDIDATES, len(found.phrases))).indices
    return [[found.phrases[index] for index in row] for row in indices.tolist()]


def put_together(
    token: Tensor, clip: Clip, left: dict[str, list[str]], template: str, each: int, rise: float
) -> Prompt:
    """A prompt for the unit token [D]. left: the phrases of every list that may be taken."""
    first = next(iter(left))
    chosen = [(first, left[first].pop(0))]
    best = float(unit_embeddings(clip, [written(chosen, template)])[0] @ token)
    while True:
        open_lists = [name for name in left if sum(taken == name for taken, _ in chosen) < each]
        more = [(name, phrase) for name in open_lists for phrase in left[name] if all(phrase != taken for _, taken in chosen)]
        sentences = {pair: written([*chosen, pair], template) for pair in more}
        cut = set(clip.cut_texts(list(sentences.values())))
        fitting = [pair for pair, sentence in sentences.items() if sentence not in cut]
        if not fitting:
            break
        cosines = unit_embeddings(clip, [sentences[pair] for pair in fitting]) @ token
        value, index = (found.item() for found in cosines.max(0))
        if not value > best + rise:
            break
        chosen.append(fitting[int(index)])
        best = value
    return Prompt(written(chosen, template), chosen, best)


def written(chosen: Sequence[tuple[str, str]], template: str) -> str:
    return template.replace("{}", COMMA.join(phrase for _, phrase in chosen))


def place_of(mask: Tensor) -> str:
    """Where the region of a mask [h, w] in 0..1 is in its picture, in words: of nine places that of its middle; or all over.

    Raises InputError for an empty mask.
    """
    solid = mask >= 0.5 * mask.max()
    if not mask.max() > 0:
        raise InputError("a mask is empty (all black), or a map without contrast, so its region is nowhere: give a mask of it")
    weights = mask.float() * solid
    spans, middles = [], []
    for axis, side in enumerate(mask.shape):
        along = weights.sum(1 - axis)
        there = along.nonzero()[:, 0]
        spans.append(float(there[-1] - there[0] + 1) / side)
        positions = (torch.arange(side, device=mask.device) + 0.5) / side
        middles.append(float((along * positions).sum() / along.sum()))
    if min(spans) >= WIDE:
        return EVERYWHERE
    row, column = (sum(middle > third for third in THIRDS) for middle in middles)
    return PLACES[row][column]


def join(
    prompts: Iterable[str], places: Iterable[str], template: str = REGION_TEMPLATE, separator: str = SEPARATOR
) -> str:
    """One prompt of those of several regions, each written into `template` with its place.

    Raises InputError for other numbers of prompts and places, and a template without {prompt}.
    """
    if "{prompt}" not in template:
        raise InputError(f"the template {template!r} has no {{prompt}} where each region's prompt goes: as in {REGION_TEMPLATE!r}")
    prompts, places = list(prompts), list(places)
    if len(prompts) != len(places):
        raise InputError(f"there are {len(prompts)} prompts and {len(places)} places: give one of each for every region")
    return separator.join(
        prompt.join(part.replace("{place}", place) for part in template.split("{prompt}"))
        for prompt, place in zip(prompts, places, strict=True)
    )
