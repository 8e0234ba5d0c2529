"""MaskInversion by autograd, line by line as the paper and the published package have it: slow, plain, and independent.

It shares no code with the product. The map is the gradient of the score with respect to the attention weights, taken with
`create_graph=True`, so that the loss can be differentiated through it.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed


def entering_tokens(visual, pixels, layers):
    """Tokens [N, d] entering each of the last `layers` blocks, and the model's image embedding [D]."""
    grid = [side // patch for side, patch in zip(pixels.shape[-2:], visual.patch_size)]
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.reshape(1, 1, -1), x], dim=1)
    position = visual.positional_embedding
    if grid != list(visual.grid_size):
        position = resample_abs_pos_embed(
            position[None], new_size=grid, num_prefix_tokens=1, interpolation="bicubic", antialias=True
        )[0]
    x = visual.ln_pre(x + position)
    inputs = []
    for block in visual.transformer.resblocks:
        inputs.append(x[0])
        x = block(x)
    if visual.final_ln_after_pool:
        embedding = visual.ln_post(x[:, 0] if visual.pool_type == "tok" else x[:, 1:].mean(1)) @ visual.proj
    else:
        x = visual.ln_post(x)
        embedding = (x[:, 0] if visual.pool_type == "tok" else x[:, 1:].mean(1)) @ visual.proj
    return inputs[-layers:], embedding[0], grid


def block_with_attention(block, x):
    """The block written out: attention weights [h, N, N] as a node of the graph, and the tokens that leave."""
    heads = block.attn.num_heads
    q, k, v = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(0, 1) for t in (q, k, v))
    attention = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1).requires_grad_()
    mixed = block.attn.out_proj((attention @ v).transpose(0, 1).flatten(1))
    y = x + block.ls_1(mixed)
    return attention, y + block.ls_2(block.mlp(block.ln_2(y)))


def legrad_map(visual, entering, token, grid, size):
    """The normalised map [H, W] of one unit token."""
    total = 0
    for block, x in zip(visual.transformer.resblocks[-len(entering) :], entering):
        attention, z = block_with_attention(block, x)
        feature = F.normalize(visual.ln_post(z.mean(0)) @ visual.proj, dim=-1)
        (gradient,) = torch.autograd.grad(token @ feature, attention, create_graph=True)
        relevance = gradient.clamp(min=0).mean(0).mean(0)[1:].reshape(1, 1, *grid)
        total = total + F.interpolate(relevance, size=size, mode="bilinear")[0, 0]
    return (total - total.min()) / (total.max() - total.min())


def invert(visual, pixels, masks, iterations, lr, alpha, layers, starts=None):
    """Tokens [M, D], last maps [M, H, W], losses [iterations, M]. pixels [1, 3, H, W] normalised, masks [M, H, W].

    starts [M, D]: where the tokens start, if not at the image's embedding.
    """
    with torch.no_grad():
        entering, embedding, grid = entering_tokens(visual, pixels, layers)

    def heat_of(token, size):
        return legrad_map(visual, entering, token, grid, size)

    return optimise(embedding, heat_of, masks, iterations, lr, alpha, starts)


def optimise(embedding, heat_of, masks, iterations, lr, alpha, starts=None):
    """What `invert` returns, for an image's embedding [D] and heat_of(unit token, size), its normalised map."""
    tokens, maps, losses = [], [], []
    for mask, start in zip(masks, embedding.expand(len(masks), -1) if starts is None else starts):
        token = start.clone().requires_grad_()
        optimizer = torch.optim.AdamW([token], lr=lr, weight_decay=0)
        history = []
        for _ in range(iterations):
            unit = F.normalize(token, dim=-1)
            heat = heat_of(unit, mask.shape)
            dice = 1 - (2 * (heat * mask).sum() + 1) / (heat.sum() + mask.sum() + 1)
            loss = dice + alpha * (1 - unit @ F.normalize(embedding, dim=-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.detach())
        tokens.append(token.detach())
        maps.append(heat.detach())
        losses.append(torch.stack(history))
    return torch.stack(tokens), torch.stack(maps), torch.stack(losses, 1)


def attended(q, k, v, heads):
    """Attention weights [h, n, N] as a node of the graph, and what they make of the values [n, d]."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(0, 1) for t in (q, k, v))
    weights = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1).requires_grad_()
    return weights, (weights @ v).transpose(0, 1).flatten(1)


@contextmanager
def attention_nodes():
    """Every attention that runs inside becomes a node of the graph: yields a list of [B, h, queries, keys], in order."""
    nodes = []

    def explicit(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
        assert attn_mask is None and not is_causal and not dropout_p
        scores = query @ key.transpose(-2, -1) * (scale or query.shape[-1] ** -0.5)
        nodes.append(scores.softmax(-1).requires_grad_())
        return nodes[-1] @ value

    fused, F.scaled_dot_product_attention = F.scaled_dot_product_attention, explicit
    try:
        yield nodes
    finally:
        F.scaled_dot_product_attention = fused


def heat_of_nodes(layers, grid, cosine=True):
    """heat_of for `optimise`. layers(): the feature [D] and the attention that it came from, of each layer. cosine:
    whether the score is the cosine of the two or their product."""

    def heat_of(token, size):
        total = 0
        for feature, attention in layers():
            score = token @ (F.normalize(feature, dim=-1) if cosine else feature)
            (gradient,) = torch.autograd.grad(score, attention, create_graph=True)
            relevance = gradient.clamp(min=0).mean((0, 1, 2))[-grid[0] * grid[1] :].reshape(1, 1, *grid)
            total = total + F.interpolate(relevance, size=size, mode="bilinear")[0, 0]
        return (total - total.min()) / (total.max() - total.min())

    return heat_of
