"""Hidden states of a region, for models that read a CLIP's rows and not its embedding: FLUX Redux, USO, Wan, IP-Adapter Plus.

Hidden states [N, d] are what enters or leaves a block: a row for the class where the CLIP has one, then one for every patch, from
left to right and from the top down. Attention has mixed them inside of the CLIP, so a row of the region knows of the whole picture;
but a row that is left out has no influence on what reads the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError

# `whole`: all rows as they are. `map`, `mask`: every patch multiplied by how much of it the token's map or the mask covers.
# `map patches`, `patches`: of the map or the mask only, the others left out. `box`: all those of the box around the mask's.
WAYS = ("whole", "map", "mask", "map patches", "patches", "box")
BY_MAP = ("map", "map patches")
THRESHOLD = 0.5


@dataclass(frozen=True)
class Rows:
    """The rows that M regions of a picture have of its hidden states, all as many.

    places [M, K]: which, in the order of the picture; None is all. weights [M, N]: what each is multiplied by; None is nothing.
    grid: rows and columns of patches that they are, or None where they are no rectangle.
    """

    count: int
    places: Tensor | None
    weights: Tensor | None
    grid: tuple[int, int] | None

    def of(self, states: Tensor) -> Tensor:
        """States [..., N, d] of the picture as those of its regions [M, ..., K, d]."""
        if self.places is not None:
            return states[..., self.places.to(states.device), :].movedim(-3, 0)
        kept = states.expand(self.count, *states.shape)
        if self.weights is None:
            return kept
        return kept * self.weights.to(kept).reshape(self.count, *[1] * (states.ndim - 2), -1, 1)


def coverage(seen: Tensor, grid: tuple[int, int]) -> Tensor:
    """How much of every patch [M, h, w] maps or masks [M, H, W] in 0..1 on the model's canvas cover."""
    return F.adaptive_avg_pool2d(seen[None].float(), grid)[0]


def region_rows(way: str, covered: Sequence[Tensor], prefix: int, threshold: float = THRESHOLD) -> list[Rows]:
    """The rows of every picture's regions, as many for each region of all pictures.

    way: one of WAYS. covered: what `coverage` says of the regions of each picture, by their maps for those of BY_MAP and by their
    masks for the others, all on one grid. prefix: rows before the patches, which are always kept as they are.
    threshold: how much of a patch must be covered, of what is of the patch that is covered most, where the others are left out.

    Where regions have different numbers of patches, the smaller ones have some of their own twice or more, evenly; a smaller
    `box` grows around its middle to the height and width of the largest. Raises InputError for another way or threshold.
    """
    if way not in WAYS:
        raise InputError(f"there is no way {way!r} to hidden states; there are {', '.join(WAYS)}")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold is {threshold}; it must be in 0..1")
    shares = torch.cat(list(covered))
    grid = (shares.shape[1], shares.shape[2])
    counts = [len(one) for one in covered]
    if way == "whole":
        return [Rows(count, None, None, grid) for count in counts]
    if way in ("map", "mask"):
        faded = [torch.cat([one.new_ones(len(one), prefix), one.flatten(1)], 1) for one in covered]
        return [Rows(len(weights), None, weights, grid) for weights in faded]
    inside = (shares > 0) & (shares >= threshold * shares.amax((1, 2), keepdim=True))
    if way == "box":
        inside = boxes(inside)
        grid = (int(inside[0].any(1).sum()), int(inside[0].any(0).sum()))
    found = [one.flatten().nonzero()[:, 0] for one in inside]
    most = max(map(len, found))
    chosen = torch.stack([one[torch.arange(most, device=one.device) * len(one) // most] for one in found]) + prefix
    before = torch.arange(prefix, device=chosen.device).expand(len(chosen), prefix)
    places = torch.cat([before, chosen], 1).split(counts)
    return [Rows(len(one), one, None, grid if way == "box" else None) for one in places]


def boxes(inside: Tensor) -> Tensor:
    """Around each of [M, h, w] a box of one size for all: the least that is high and wide enough, and that stays on the grid."""
    spans = []  # of rows, then of columns: [M, h], [M, w]
    for along in (2, 1):
        there = inside.any(along).int()
        length = there.shape[1]
        first, last = there.argmax(1), length - 1 - there.flip(1).argmax(1)
        own = last - first + 1
        size = own.max()
        start = (first - (size - own) // 2).clamp(min=0).minimum(length - size)
        places = torch.arange(length, device=inside.device)
        spans.append((places >= start[:, None]) & (places < (start + size)[:, None]))
    return spans[0][:, :, None] & spans[1][:, None, :]
