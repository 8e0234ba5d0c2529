"""Other ways to the same tokens, for comparison only. open_clip's plain vision transformers, float32, last block, alpha 0.

Each takes a visual [open_clip VisionTransformer], pixels [1, 3, H, W], masks [M, H, W], K and lr, and gives tokens [M, D].
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def shared_autograd(visual: Any, pixels: Tensor, masks: Tensor, iterations: int, lr: float) -> Tensor:
    """The image encoded once; the map and its gradient by autograd through the last block, at every step."""
    embedding, block, entering = encode(visual, pixels)

    def relevance(unit: Tensor) -> Tensor:
        rows = []
        for token in unit:  # the attention of every mask is a variable of its own, as in the published package
            attention, feature = last_block(visual, block, entering)
            (gradient,) = torch.autograd.grad(token @ feature, attention, create_graph=True)
            rows.append(gradient.clamp(min=0).mean((0, 1))[1:])
        return torch.stack(rows)

    return optimise(embedding, relevance, visual, masks, pixels, iterations, lr)


def explicit_decomposition(visual: Any, pixels: Tensor, masks: Tensor, iterations: int, lr: float) -> Tensor:
    """The paper's gradient decomposition (arXiv 2407.20034, section 3.3): the derivative of the feature with respect to the
    attention, [D, h, N, N], is formed once; every step is a product with it."""
    embedding, block, entering = encode(visual, pixels)
    attention, feature = last_block(visual, block, entering)
    axes = torch.eye(len(feature)).to(feature)
    (derivative,) = torch.autograd.grad(feature, attention, axes, is_grads_batched=True)

    def relevance(unit: Tensor) -> Tensor:
        gradient = (unit @ derivative.flatten(1)).unflatten(1, derivative.shape[1:])
        return gradient.clamp(min=0).mean((1, 2))[:, 1:]

    return optimise(embedding, relevance, visual, masks, pixels, iterations, lr)


BASELINES: dict[str, Callable] = {f.__name__: f for f in (shared_autograd, explicit_decomposition)}


def encode(visual: Any, pixels: Tensor) -> tuple[Tensor, Any, Tensor]:
    """The image embedding [D], the last block, and the tokens [N, d] that enter it."""
    *blocks, last = visual.transformer.resblocks
    with torch.no_grad():
        tokens = visual._embeds(pixels)
        for block in blocks:
            tokens = block(tokens)
        pooled, _ = visual._pool(last(tokens))
        return (pooled @ visual.proj)[0], last, tokens[0]


def last_block(visual: Any, block: Any, entering: Tensor) -> tuple[Tensor, Tensor]:
    """The attention [h, N, N] as a variable, and the unit feature [D] of the mean token."""
    q, k, v = F.linear(block.ln_1(entering), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
    q, k, v = (t.unflatten(-1, (block.attn.num_heads, -1)).transpose(0, 1) for t in (q, k, v))
    attention = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).detach().requires_grad_()
    y = entering + block.attn.out_proj((attention @ v).transpose(0, 1).flatten(1))
    z = y + block.mlp(block.ln_2(y))
    return attention, F.normalize(visual.ln_post(z.mean(0)) @ visual.proj, dim=-1)


def optimise(
    embedding: Tensor, relevance: Callable, visual: Any, masks: Tensor, pixels: Tensor, iterations: int, lr: float
) -> Tensor:
    grid = [side // patch for side, patch in zip(pixels.shape[-2:], visual.patch_size, strict=True)]
    tokens = embedding.repeat(len(masks), 1).requires_grad_()
    optimizer = torch.optim.AdamW([tokens], lr=lr, weight_decay=0)
    for _ in range(iterations):
        found = relevance(F.normalize(tokens, dim=-1)).unflatten(1, grid)[:, None]
        heat = F.interpolate(found, size=masks.shape[1:], mode="bilinear")[:, 0].flatten(1)
        low, high = heat.amin(1, keepdim=True), heat.amax(1, keepdim=True)
        heat, wanted = (heat - low) / (high - low), masks.flatten(1)
        dice = 1 - (2 * (heat * wanted).sum(1) + 1) / (heat.sum(1) + wanted.sum(1) + 1)
        optimizer.zero_grad()
        dice.sum().backward()
        optimizer.step()
    return tokens.detach()
