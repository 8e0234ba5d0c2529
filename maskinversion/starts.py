"""Embeddings of regions without any optimisation: what a token can start from, and what MaskInversion is compared with.

All of them read the same frozen model as the inversion does: what its one pass over the picture left, and `from_cutouts` two more
passes for every mask.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .models.towers import Tower
from .pictures import box_of

# WINDOW, MARGIN and SHARPNESS were chosen on the trained styles of the bundled CLIP; docs/evaluation.md has the trials of windows.
WINDOW = 2.0  # a side of what a cut-out shows, in sides of the region's box
CLOSEST = 4  # as many times a region is enlarged at most
MARGIN = 1 / 24  # of the shorter side
BLUR = 100 / 384  # standard deviation, of the shorter side: 100 px of 384 (arXiv 2306.04356)
SHARPNESS = 16.0
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


def from_cutouts(tower: Tower, detail: Tensor, masks: Tensor) -> list[Tensor]:
    """The model's unit embeddings [M, D] of two pictures that show little but the mask [M, H, W]; what to start from is their mean.

    Both are of a window around the region, see `enlarged`. In one, all outside of the mask is blurred (Yang et al., "Fine-Grained
    Visual Prompting", arXiv 2306.04356), which is best for exact masks; in the other, all outside of the mask and a margin, which
    forgives a mask that is too small or too large. detail [3, k * H, k * W]: the normalised picture.
    """
    shorter = min(masks.shape[1:])
    rows, columns = (gaussian(side, BLUR * shorter).to(detail) for side in masks.shape[1:])
    margin = max(1, round(MARGIN * shorter))
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for some in masks.to(detail).split(BATCH):
        views, kept = (torch.cat(parts) for parts in zip(*(enlarged(detail, mask, tower.interpolation) for mask in some)))
        rest = rows @ views @ columns.T
        wider = F.max_pool2d(kept, 2 * margin + 1, stride=1, padding=margin)
        for embedded, shown in zip(found, (kept, wider)):
            embedded.append(F.normalize(tower.embed_canvases(rest + shown * (views - rest)), dim=1))
    return [torch.cat(embedded) for embedded in found]


def enlarged(detail: Tensor, mask: Tensor, interpolation: str) -> tuple[Tensor, Tensor]:
    """A window of a picture [3, k * H, k * W] and of a mask [H, W] around the region, enlarged: [1, 3, H, W] and [1, 1, H, W].

    Its shape is the whole's, and its sides are WINDOW times those of the region's box in the direction in which that is the larger;
    it is inside of the picture, and not less than a CLOSEST-th of it.
    """
    size, box = mask.shape, box_of(mask)
    assert box is not None  # `MaskInverter.masks_for` refuses masks that are black all over
    finer = detail.shape[1] // size[0]
    share = min(1.0, max(1 / CLOSEST, WINDOW * max(box.height / size[0], box.width / size[1])))
    window = []
    for start, extent, side in ((box.y, box.height, size[0]), (box.x, box.width, size[1])):
        length = max(1, round(share * side))
        first = min(max(0, int(start + (extent - length) // 2)), side - length)
        window.append((first, first + length))
    (top, bottom), (left, right) = window
    view = detail[None, :, finer * top : finer * bottom, finer * left : finer * right]
    view = F.interpolate(view, size, mode=interpolation, align_corners=False, antialias=True)
    return view, F.interpolate(mask[None, None, top:bottom, left:right], size, mode="bilinear", align_corners=False)


def gaussian(side: int, deviation: float) -> Tensor:
    """A blur of so many pixels in a row, as a matrix; at the ends it takes what is there."""
    places = torch.arange(side, dtype=torch.float64)
    return mean_by((-0.5 * ((places[:, None] - places) / deviation).square()).exp())


def mean_by(weights: Tensor) -> Tensor:
    """Weights [M, P] that sum to one; of a row of zeros, zeros."""
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
