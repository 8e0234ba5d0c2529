"""How embeddings of regions are scored (arXiv 2407.20034, section 4), and the intervals of the scores. Plain functions of numbers.

Scores that are equal to within TIE share the hit: the global embedding is the same for every region of a picture, and would
otherwise be right or wrong by the order in which the regions are listed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..tasks.refer import assign

TIE = 1e-6  # of cosines in float32
NORMAL_95 = 1.96  # standard deviations on either side that hold 95% of a normal distribution


def best_is_right(similarities: Tensor, right: Tensor) -> Tensor:
    """For each row of similarities [R, C], the chance that the best column is among its `right` [R, C] ones, ties drawn: [R]."""
    best = similarities >= similarities.amax(1, keepdim=True) - TIE
    return (best & right).sum(1) / best.sum(1)


def among_best(similarities: Tensor, right: Tensor, count: int) -> Tensor:
    """For each row of similarities [R, C], 1 where a `right` [R, C] column is among the `count` best: [R]."""
    own = similarities.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    return ((similarities > own + TIE).sum(1) < count).float()


def class_hits(similarities: Tensor, labels: Sequence[int] | Tensor) -> dict[str, list[float | None]]:
    """Class retrieval for one picture: similarities [M, C] of its regions and all classes, labels: the right one of each region.

    acc1, acc5: its class is the best, among the five best, of the data set's. own: it is the best of the classes of the same
    picture; None where the picture has no other.
    """
    chosen = torch.as_tensor(labels)
    right = torch.nn.functional.one_hot(chosen, similarities.shape[1]).bool()
    present = right.any(0)
    own: list[float | None] = [None] * len(chosen)
    if present.sum() > 1:
        own = best_is_right(similarities[:, present], right[:, present]).tolist()
    return {
        "acc1": best_is_right(similarities, right).tolist(),
        "acc5": among_best(similarities, right, 5).tolist(),
        "own": own,
    }


def expression_hits(similarities: Tensor, texts: Sequence[Sequence[str]], one_to_one: bool = False) -> dict[str, list[float]]:
    """Referring expressions for one picture: similarities [M, T] of its regions and its T different expressions, in the order of
    `different(texts)`; texts: those that mean each region.

    phrase: for each region, the best of the picture's expressions is one of its own. region: for each expression, the best region
    is one that it means. assigned, with `one_to_one`: for each pair of a region and one of its expressions, whether they are put
    together when one expression of every region is assigned at a time, one to one, for the largest sum of similarities.
    A picture with one region only has nothing to choose between, and gives no hits.
    """
    if len(texts) < 2:
        return {"phrase": [], "region": []} | ({"assigned": []} if one_to_one else {})
    known = different(texts)
    right = torch.tensor([[text in own for text in known] for own in texts])
    hits = {
        "phrase": best_is_right(similarities, right).tolist(),
        "region": best_is_right(similarities.T, right.T).tolist(),
    }
    if one_to_one:
        hits["assigned"] = []
        for turn in range(max(map(len, texts))):
            regions = [index for index, own in enumerate(texts) if turn < len(own)]
            columns = [known.index(texts[index][turn]) for index in regions]
            rows, chosen = assign(similarities[regions][:, columns])
            hits["assigned"] += [float(right[regions[row], columns[column]]) for row, column in zip(rows, chosen, strict=True)]
    return hits


def different(texts: Sequence[Sequence[str]]) -> list[str]:
    """All the expressions of a picture, each once."""
    return list(dict.fromkeys(text for own in texts for text in own))


def wilson(hits: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float, float]:
    """Share of hits [n], in 0..1, and its 95% Wilson interval.

    groups [n]: which hits belong together, such as those of one picture, since they are not independent. Then the interval is
    that of as many independent hits as have the variance of the share that the groups show (Kish's design effect; Korn and
    Graubard 1998), never more than n; as many as there are groups where all hits are the same.
    """
    hits = np.asarray(hits, float)
    n, p = float(len(hits)), float(hits.mean())
    if groups is not None:
        _, index = np.unique(groups, return_inverse=True)
        count = float(index.max()) + 1
        variance = (np.bincount(index, hits - p) ** 2).sum() / n**2 * count / max(count - 1, 1)
        if variance > 0:
            n = min(n, p * (1 - p) / variance)
        elif p in (0, 1):
            n = count
    z = NORMAL_95
    middle, half = (p + z * z / (2 * n)), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((middle + way * half) / (1 + z * z / n) for way in (-1, 1))
    return p, max(float(low), 0.0), min(float(high), 1.0)
