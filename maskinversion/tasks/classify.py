"""Zero-shot classification of regions: which phrase is nearest to the token (arXiv 2407.20034, section 4.2)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from reprlib import repr as shown
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError
from ..models.clip import Clip, check_text
from ..pictures import warn
from .phrases import CLASS_TEMPLATE

BATCH = 256  # texts between two calls of the callback
KEPT = 20_000  # phrases of a CLIP whose embeddings are remembered

COMMAS = ",;\uff0c\uff1b\u3001"  # also those of Chinese and Japanese

remembered: WeakKeyDictionary[Clip, OrderedDict[tuple, Tensor]] = WeakKeyDictionary()

Callback = Callable[[int, int], None]  # (phrases read, of how many that were not remembered); it may raise to stop


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
    Raises InputError for embeddings of another width than the CLIP's, no phrase, or a template without {}; warns of a single phrase
    that is probably a list.
    """
    found = compare(embeddings, clip, phrases, template, callback)
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
    """As `classify`, also where one phrase is all there should be."""
    for phrase in phrases:
        check_text(phrase)
    phrases = [phrase.strip() for phrase in phrases if phrase.strip()]
    if embeddings.shape[-1] != clip.tower.width_out:
        raise InputError(
            f"the tokens have {embeddings.shape[-1]} numbers each, {clip.name} makes {clip.tower.width_out}: "
            f"classify with the CLIP that made the tokens"
        )
    texts = text_embeddings(clip, phrases, [template] if isinstance(template, str) else template, callback)
    similarities = F.normalize(embeddings.to(texts), dim=-1) @ texts.T
    return Classification(phrases, similarities, (clip.logit_scale * similarities).softmax(-1))


@settled()
def text_embeddings(clip: Clip, phrases: Sequence[str], templates: Sequence[str], callback: Callback | None = None) -> Tensor:
    """Unit embeddings [T, D] on the CLIP's device: of every phrase, in all templates, their unit embeddings averaged.

    They are remembered for as long as the CLIP is in use. Phrases go through the model one by one, since how many go together
    decides how products are rounded: so an embedding depends on nothing but its phrase and the templates. Raises InputError for no
    phrase, or a template without {}.
    """
    if not phrases:
        raise InputError("there is no phrase to choose from: write at least one")
    if not templates:
        raise InputError("there is no template: write one, such as 'a photo of a {}'")
    for template in templates:
        if "{}" not in template:
            raise InputError(f"the template {template!r} has no {{}} where the phrase goes, as in 'a photo of a {{}}'")
    known = remembered.setdefault(clip, OrderedDict())
    kind = tuple(templates)
    found = {phrase: embedding for phrase in phrases if (embedding := known.get((kind, phrase))) is not None}
    missing = [phrase for phrase in dict.fromkeys(phrases) if phrase not in found]
    at_once = max(1, BATCH // len(templates))
    for i in range(0, len(missing), at_once):
        some = missing[i : i + at_once]
        texts = [template.replace("{}", phrase) for phrase in some for template in templates]
        encoded = clip.encode_text(texts, together=len(templates))
        for phrase, each in zip(some, encoded.split(len(templates)), strict=True):
            found[phrase] = known[kind, phrase] = F.normalize(F.normalize(each, dim=-1).mean(0), dim=-1).cpu()
        if callback is not None:
            callback(i + len(some), len(missing))
    while len(known) > KEPT:
        with suppress(KeyError):  # another thread may have been quicker
            known.popitem(last=False)
    return torch.stack([found[phrase] for phrase in phrases]).to(clip.device)
