"""Embeddings of regions without any optimisation: what a token can start from, and what MaskInversion is compared with.

All of them read the same frozen model as the inversion does, and only what its one pass over the picture left.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .models.towers import Tower

GREY = 0.5
MARGIN = 1 / 48  # of the shorter side
BLUR = 100 / 384  # standard deviation, of the shorter side: 100 px of 384 (arXiv 2306.04356)
SHARPNESS = 16.0  # chosen on the trained styles of the bundled CLIP, see docs/evaluation.md
BATCH = 32  # pictures that are embedded together


def coverage(masks: Tensor, tower: Tower) -> Tensor:
    """How much of each patch the masks [M, H, W] of the canvas cover: [M, P] in 0..1, on the tower's device."""
    return F.avg_pool2d(masks[:, None], tower.patch_size).flatten(1).to(tower.device)


def dense_embeddings(tower: Tower, entering: Tensor, leaving: Tensor) -> Tensor:
    """An embedding of each patch by itself, in the joint space: [P, D].

    entering, leaving [N, d]: the tokens before and after the last block. Zhou, Loy, Dai, "Extract Free Dense Labels from CLIP"
    (MaskCLIP, arXiv 2112.01071): in the last attention every token looks at itself only. In models that pool with attention
    (SigLIP, CoCa) the pooler is that attention.
    """
    entering, leaving = entering[tower.prefix :], leaving[tower.prefix :]
    return tower.embed_mixture(tower.mixed_values(entering, leaving), entering)


def maskclip(tower: Tower, entering: Tensor, leaving: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: the mean of the unit embeddings of the patches that each mask covers, by how much of them it covers."""
    return mean_by(coverage(masks, tower)) @ F.normalize(dense_embeddings(tower, entering, leaving), dim=-1)


def from_patches(tower: Tower, entering: Tensor, leaving: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: what the class token, or the pooler's query, would become if it looked at nothing but the patches of the mask.

    It looks more at those that are unlike what is outside, so that a careless mask, which covers some of the background, says the
    same as an exact one: as TextRegion (arXiv 2505.23769) but for that. A patch counts by its coverage times
    exp(SHARPNESS * (cosine to the mean of the mask - cosine to the mean of the rest)), cosines of `dense_embeddings`.
    """
    inside = coverage(masks, tower)
    dense = F.normalize(dense_embeddings(tower, entering, leaving), dim=-1)
    unlike = F.normalize(mean_by(inside) @ dense, dim=-1) - F.normalize(mean_by(1 - inside) @ dense, dim=-1)
    return through_region(tower, entering, leaving, inside * (SHARPNESS * unlike @ dense.T).exp())


def through_region(tower: Tower, entering: Tensor, leaving: Tensor, weights: Tensor) -> Tensor:
    """The embeddings [M, D] that the model would have if it looked at the patches by these weights [M, P]."""
    values = tower.mixed_values(entering[tower.prefix :], leaving[tower.prefix :])
    return tower.embed_mixture(mean_by(weights) @ values, None)


def from_cutouts(tower: Tower, canvas: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: the mean of the model's unit embeddings of two pictures, which show little but the mask [M, H, W].

    The canvas [3, H, W] with all outside of the mask grey, which is best for exact masks; and blurred (Yang et al., "Fine-Grained
    Visual Prompting", arXiv 2306.04356) outside of the mask and a margin, which forgives a mask that is too small or too large.
    """
    masks = masks.to(canvas)
    mean, std = (torch.tensor(values).to(canvas)[:, None, None] for values in (tower.mean, tower.std))
    rows, columns = (gaussian(side, BLUR * min(canvas.shape[1:])).to(canvas) for side in canvas.shape[1:])
    margin = max(1, round(MARGIN * min(canvas.shape[1:])))
    wider = F.max_pool2d(masks[:, None], 2 * margin + 1, stride=1, padding=margin)[:, 0]
    found = []
    for rest, kept in (((GREY - mean) / std, masks), (rows @ canvas @ columns.T, wider)):
        cutouts = (rest + some[:, None] * (canvas - rest) for some in kept.split(BATCH))
        found.append(torch.cat([F.normalize(tower.embed_canvases(canvases), dim=1) for canvases in cutouts]))
    return (found[0] + found[1]) / 2


def gaussian(side: int, deviation: float) -> Tensor:
    """A blur of so many pixels in a row, as a matrix; at the ends it takes what is there."""
    places = torch.arange(side, dtype=torch.float64)
    return mean_by((-0.5 * ((places[:, None] - places) / deviation).square()).exp())


def mean_by(weights: Tensor) -> Tensor:
    """Weights [M, P] that sum to one; of a row of zeros, zeros."""
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
