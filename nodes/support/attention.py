"""More rows for a diffusion transformer that reads text and picture in one sequence, and who in it may look at them.

FLUX's sequence is text, then picture. ComfyUI keeps a bias of its attention beside the text, [B, text + picture, text + picture],
with a picture of any size, `attention_mask_img_shape`, that it enlarges to that of the latent; Apply Style Model does the same.
"""

from collections.abc import Sequence
from math import exp, log

import comfy.utils
import torch
from torch import Tensor

from .convert import mask_at

Conditioning = list[list]  # of [text [B, T, D], what else there is]

GRID = (32, 32)  # of the picture, for masks
NEVER = -14.0  # of attention's bias: finite, since enlarging would make NaN of infinity


def with_rows(
    conditioning: Conditioning, rows: Tensor, strength: float = 1.0, masks: Sequence[Tensor] | None = None
) -> Conditioning:
    """The conditioning with the rows [M, K, D] of M regions after its text.

    strength: what attention to them is multiplied by. masks: one [h, w] in 0..1 for each region, over the new picture: only what it
    covers looks at the region's rows, as much as it is covered; not the text, nor other regions.
    """
    new = rows.flatten(0, 1)[None]
    result = []
    for text, more in conditioning:
        more = more.copy()
        if masks is not None or strength != 1 or "attention_mask" in more:
            more |= widened(more, text.shape[:2], rows.shape[:2], log(max(strength, exp(NEVER))), masks)
        result.append([torch.cat([text, new.to(text).expand(len(text), -1, -1)], 1), more])
    return result


def widened(more: dict, text: Sequence[int], rows: Sequence[int], level: float, masks: Sequence[Tensor] | None) -> dict:
    """The bias of attention with room for rows. text: its batch and length. rows: how many regions, and rows of each."""
    (batch, length), (regions, count) = text, rows
    grid = more.get("attention_mask_img_shape", (1, 1))
    old = more.get("attention_mask")
    if old is None:
        old = torch.zeros(batch, length + grid[0] * grid[1], length + grid[0] * grid[1])
    old = old.float().log() if old.dtype == torch.bool else old.float()
    if masks is not None and grid[0] * grid[1] < GRID[0] * GRID[1]:
        old, grid = comfy.utils.upscale_dit_mask(old, grid, GRID), GRID
    end = length + regions * count
    size = old.shape[-1] + regions * count
    bias = old.new_zeros(len(old), size, size)
    kept = torch.tensor([*range(length), *range(end, size)], device=old.device)
    bias[:, kept[:, None], kept] = old.clamp(min=NEVER)
    # The new rows look at those of earlier regions where the text does.
    bias[:, length:end, :length] = torch.where(old[:, :1, :length] > NEVER, 0.0, NEVER)
    for index in range(regions):
        own = slice(length + index * count, length + (index + 1) * count)
        if masks is None:
            bias[:, :length, own] = bias[:, end:, own] = level
        else:
            bias[:, :end, own] = NEVER
            bias[:, own, own] = 0
            bias[:, end:, own] = (mask_at(masks[index], grid).flatten().to(bias).log() + level).clamp(min=NEVER)[:, None]
    return {"attention_mask": bias.half(), "attention_mask_img_shape": grid}
