"""Embeddings of texts, as everything that compares regions with phrases reads them: each is computed once.

They are remembered for as long as a CLIP is in use, and on disk (`text_cache`) from one run to the next.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..models.clip import Clip
from .text_cache import TextCache

BATCH = 256  # texts at a time
KEPT = 20_000  # phrases of a CLIP whose embeddings are remembered

remembered: WeakKeyDictionary[Clip, OrderedDict[tuple, Tensor]] = WeakKeyDictionary()

Callback = Callable[[int, int], None]  # (texts done, of how many); it may raise to stop


def text_embeddings(clip: Clip, phrases: Sequence[str], templates: Sequence[str], callback: Callback | None = None) -> Tensor:
    """Unit embeddings [T, D] on the CLIP's device: of every phrase, in all templates, their unit embeddings averaged.

    Raises InputError for no phrase, or a template without {}.
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
    missing = [phrase for phrase in dict.fromkeys(phrases) if (kind, phrase) not in known]
    if missing:
        cache = TextCache(clip, kind)
        known.update(((kind, phrase), embedding) for phrase, embedding in cache.read(missing).items())
        missing = [phrase for phrase in missing if (kind, phrase) not in known]
        cut = set()  # not kept on disk, so that the next run warns of them too
        per_batch = max(1, BATCH // len(templates))
        for i in range(0, len(missing), per_batch):
            some = missing[i : i + per_batch]
            texts = [template.replace("{}", phrase) for phrase in some for template in templates]
            each = unit_embeddings(clip, texts)
            too_long = set(clip.cut_texts(texts))
            cut.update(phrase for phrase in some for template in templates if template.replace("{}", phrase) in too_long)
            means = F.normalize(each.unflatten(0, (len(some), -1)).mean(1), dim=-1).cpu()
            known.update(((kind, phrase), mean) for phrase, mean in zip(some, means, strict=True))
            if callback is not None:
                callback(i + len(some), len(missing))
        cache.add({phrase: known[kind, phrase] for phrase in missing if phrase not in cut})
    found = torch.stack([known[kind, phrase] for phrase in phrases]).to(clip.device)
    while len(known) > KEPT:
        known.popitem(last=False)
    return found


def unit_embeddings(clip: Clip, texts: Sequence[str]) -> Tensor:
    """[T, D] on the CLIP's device, of texts as they are; nothing is remembered."""
    return torch.cat([F.normalize(clip.encode_text(texts[i : i + BATCH]), dim=-1) for i in range(0, len(texts), BATCH)])
