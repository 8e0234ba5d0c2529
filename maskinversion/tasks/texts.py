"""Embeddings of texts, as everything that compares regions with phrases reads them: each is computed once.

They are remembered for as long as a CLIP is in use, and on disk (`text_cache`) from one run to the next.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError
from ..models.clip import Clip
from .text_cache import TextCache

BATCH = 256  # texts at a time
KEPT = 20_000  # phrases of a CLIP whose embeddings are remembered

remembered: WeakKeyDictionary[Clip, OrderedDict[tuple, Tensor]] = WeakKeyDictionary()

Callback = Callable[[int, int], None]  # (texts done, of how many); it may raise to stop


@settled()
def text_embeddings(clip: Clip, phrases: Sequence[str], templates: Sequence[str], callback: Callback | None = None) -> Tensor:
    """Unit embeddings [T, D] on the CLIP's device: of every phrase, in all templates, their unit embeddings averaged.

    Phrases go through the model one by one, since how many go together decides how products are rounded: so an embedding depends on
    nothing but its phrase and the templates. Raises InputError for no phrase, or a template without {}.
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
    if missing:
        cache = TextCache(clip, kind)
        found |= cache.read(missing)
        missing = [phrase for phrase in missing if phrase not in found]
        cut = set()  # not kept on disk, so that the next run warns of them too
        at_once = max(1, BATCH // len(templates))
        for i in range(0, len(missing), at_once):
            some = missing[i : i + at_once]
            texts = [template.replace("{}", phrase) for phrase in some for template in templates]
            encoded = clip.encode_text(texts, together=len(templates)).split(len(templates))
            for phrase, each in zip(some, encoded, strict=True):
                found[phrase] = F.normalize(F.normalize(each, dim=-1).mean(0), dim=-1).cpu()
            too_long = set(clip.cut_texts(texts))
            cut.update(phrase for phrase in some for template in templates if template.replace("{}", phrase) in too_long)
            if callback is not None:
                callback(i + len(some), len(missing))
        cache.add({phrase: found[phrase] for phrase in missing if phrase not in cut})
        known.update(((kind, phrase), embedding) for phrase, embedding in found.items())
    while len(known) > KEPT:
        with suppress(KeyError):  # another thread may have been quicker
            known.popitem(last=False)
    return torch.stack([found[phrase] for phrase in phrases]).to(clip.device)


def unit_embeddings(clip: Clip, texts: Sequence[str]) -> Tensor:
    """[T, D] on the CLIP's device, of texts as they are; nothing is remembered."""
    return torch.cat([F.normalize(clip.encode_text(texts[i : i + BATCH]), dim=-1) for i in range(0, len(texts), BATCH)])
