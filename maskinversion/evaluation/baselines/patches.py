"""Regions by the patches of the picture as a whole, which the model sees once. Each in our own words from its paper.

They differ in what is looked at in the last block or blocks, since in a CLIP what a patch ends as says little of its own place.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ModelError
from ...models.towers import Tower
from ...models.towers.open_clip_vit import PLAIN, OpenClipViT, pass_through
from ...models.towers.reading import at_least_float32, is_a
from ...starts import BATCH, coverage, mean_by, through_region

GLOBAL = 0.07  # TextRegion: how much more alike to its own regions than to others a patch must be
SURGERY = 6  # CLIPSurgery: blocks from the last on that have a path beside
MASKED = 3  # RIS: blocks from the last on that do not see what is outside of the mask


def textregion(tower: Tower, entering: Tensor, leaving: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: what the class token, or the pooler's query, would become if it looked at nothing but the patches of the mask.

    Xiao et al., "TextRegion" (arXiv 2505.23769), at one scale: equally at all of them, without those that say more of the picture
    than of their place, and for class tokens without the residual of the last attention. A mask of nothing but such patches keeps
    them.
    """
    weights = coverage(masks, tower)
    if len(weights) > 1:
        values = tower.mixed_values(entering[tower.prefix :], leaving[tower.prefix :])
        local = weights * (belonging(values, weights) >= GLOBAL)
        weights = torch.where(local.sum(1, keepdim=True) > 0, local, weights)
    return through_region(tower, entering, leaving, weights)


def belonging(features: Tensor, weights: Tensor) -> Tensor:
    """For patches of features [P, d], how much more alike they are to the regions that have them than to those that do not: [P].

    weights [M, P]: above 0 where a region has a patch. Alike: the mean cosine to the patches of a region; of several regions, the
    mean, and of none 0.
    """
    units = F.normalize(features, dim=1)
    inside = (weights > 0).to(units)
    alike = mean_by(inside) @ units @ units.T  # [M, P]
    within, without = ((alike * part).sum(0) / part.sum(0).clamp(min=1) for part in (inside, 1 - inside))
    return within - without


def sclip(tower: Tower, entering: Tensor, leaving: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: the mean over the mask of patches that, in the last block, looked at those like themselves.

    Wang, Mei, Yuille, "SCLIP" (arXiv 2312.01597): by the sum of two attentions, of queries to queries and of keys to keys.
    Raises ModelError as `plain_blocks`.
    """
    block = plain_blocks(tower, "sclip")[-1]
    tokens = entering[None].to(tower.dtype)
    query, key, value = heads(block, tokens)
    tokens = tokens + attended(block, alike(query) + alike(key), value)
    tokens = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return pooled(tower, tokens[0], masks)


def clip_surgery(tower: Tower, canvas: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: the mean over the mask of patches that gathered what is like them along the last blocks.

    Li et al., "CLIP Surgery" (arXiv 2304.05653), of which this is the architecture: beside the last blocks runs a second path, to
    which each adds an attention of its values to themselves, and no MLP. canvas [3, H, W]: what the model sees.
    Raises ModelError as `plain_blocks`.
    """
    blocks = plain_blocks(tower, "clip-surgery")
    pixels = canvas[None].to(tower.device, tower.dtype)
    tokens = tower.enter(pixels, tower.grid_of(pixels))
    first = max(0, len(blocks) - SURGERY)
    for block in blocks[:first]:
        tokens = pass_through(block, tokens)
    beside = tokens
    for block in blocks[first:]:
        value = heads(block, tokens)[2]
        beside = beside + attended(block, alike(value), value)
        tokens = pass_through(block, tokens)
    return pooled(tower, beside[0], masks)


def masked_in_last_blocks(tower: Tower, canvas: Tensor, masks: Tensor) -> Tensor:
    """[M, D]: the model's embedding of a canvas [3, H, W] when its last blocks get nothing of the patches outside of each mask.

    The global half of Yu, Seo, Son, "Zero-shot Referring Image Segmentation with Global-Local Context Features" (arXiv 2303.17811):
    before each of these blocks the patches are multiplied with the mask, by how much of them it covers.
    """
    pixels = canvas[None].to(tower.device, tower.dtype)
    grid = tower.grid_of(pixels)
    tokens = tower.enter(pixels, grid)
    first = max(0, tower.depth - MASKED)
    for block in tower.blocks[:first]:
        tokens, _ = tower.run_block(block, tokens, grid, wanted=False)
    found = []
    for some in coverage(masks, tower).to(tokens).split(BATCH):
        kept = torch.cat([some.new_ones(len(some), tower.prefix), some], 1)[..., None]
        each = tokens
        for block in tower.blocks[first:]:
            each, _ = tower.run_block(block, each * kept, grid, wanted=False)
        found.append(at_least_float32(tower.embed(each)))
    return torch.cat(found)


def plain_blocks(tower: Tower, method: str) -> list[Any]:
    """The blocks of an open_clip ViT, whose attention can be taken apart. Raises ModelError for another model."""
    if isinstance(tower, OpenClipViT) and tower.visual.attn_pool is None and all(is_a(block, *PLAIN) for block in tower.blocks):
        return list(tower.blocks)
    raise ModelError(f"{method} is for the plain ViTs of open_clip, such as ViT-B-16, and not for this model")


def heads(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values [1, h, N, d_h] of tokens [1, N, d] that enter a block."""
    attention = block.attn
    both = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in both.chunk(3, -1))
    return query, key, value


def alike(vectors: Tensor) -> Tensor:
    """The attention [1, h, N, N] of vectors [1, h, N, d_h] to themselves."""
    return (vectors @ vectors.mT * vectors.shape[-1] ** -0.5).softmax(-1)


def attended(block: Any, attention: Tensor, value: Tensor) -> Tensor:
    """What a block adds to its tokens [1, N, d] when its attention is this one."""
    return block.ls_1(block.attn.out_proj((attention @ value).transpose(1, 2).flatten(2)))


def pooled(tower: Any, tokens: Tensor, masks: Tensor) -> Tensor:
    """The mean over each mask of the unit embeddings [P, D] of patches, of the tokens [N, d] that leave the last block."""
    dense = at_least_float32(tower.visual.ln_post(tokens[tower.prefix :]) @ tower.visual.proj)
    weights = coverage(masks, tower).to(dense)
    return mean_by(weights) @ F.normalize(dense, dim=-1)
