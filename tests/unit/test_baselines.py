"""The ways to pool patches that MaskInversion is compared with, against each paper's steps written out in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import maskinversion as mi
from maskinversion.evaluation.baselines import Picture, cannot, embeddings, patches
from maskinversion.evaluation.baselines.pictures import masked_crop
from maskinversion.evaluation.run import usable
from maskinversion.evaluation.settings import METHODS, Settings
from tests.helpers.pictures import many_masks, picture
from tests.helpers.small_models import small_clip

VISIONS = [{}, {"pool_type": "avg"}, {"ls_init_value": 0.3}, {"layers": 8}, {"quick_gelu": True}]


def seen(**vision) -> tuple[mi.MaskInverter, torch.Tensor, Tensor, Tensor]:
    """A small model as an inverter, a picture, the tokens [N, d] that enter its first block, and three masks [3, 48, 48]."""
    clip = small_clip(**vision)
    image, _ = picture(48, 2)
    visual, encoded = clip.model.visual, mi.MaskInverter(clip).encode(image)
    rows = visual.conv1(encoded.canvas[None].double()).flatten(2)[0].T
    tokens = visual.ln_pre(torch.cat([visual.class_embedding[None], rows]) + visual.positional_embedding)
    return mi.MaskInverter(clip), image, tokens, many_masks(48, 3)


def covered(masks: Tensor) -> Tensor:
    return masks.double().unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4)).flatten(1)


def added(block, tokens: Tensor, attention) -> Tensor:
    """What a block's attention adds to tokens [N, d], head by head: attention(q, k, v) gives the weights [N, N]."""
    query, key, value = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
    parts = [attention(q, k, v) @ v for q, k, v in zip(*(x.split(32, 1) for x in (query, key, value)))]
    return block.ls_1(block.attn.out_proj(torch.cat(parts, 1)))


def softmax(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / 32**0.5).softmax(1)


def forward(block, tokens: Tensor) -> Tensor:
    after = tokens + added(block, tokens, lambda q, k, v: softmax(q, k))
    return after + block.ls_2(block.mlp(block.ln_2(after)))


def pooled(visual, tokens: Tensor, masks: Tensor) -> Tensor:
    units = F.normalize(visual.ln_post(tokens[1:]) @ visual.proj, dim=1)
    return torch.stack([(weight[:, None] * units).sum(0) / weight.sum() for weight in covered(masks)])


def found(method: str, inverter: mi.MaskInverter, image, masks: Tensor) -> Tensor:
    return embeddings(method, Picture(image), masks, inverter)[0]


def close(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # pictures and masks are in float32


@pytest.mark.parametrize("vision", VISIONS, ids=str)
def test_the_steps_written_out_are_the_models(vision):
    """Else the comparisons below would say nothing."""
    inverter, image, tokens, _ = seen(**vision)
    visual = inverter.clip.model.visual
    for block in visual.transformer.resblocks:
        tokens = forward(block, tokens)
    out = visual.ln_post(tokens)
    close(inverter.encode(image).global_embedding, (out[0] if visual.pool_type == "tok" else out[1:].mean(0)) @ visual.proj)


@pytest.mark.parametrize("vision", VISIONS, ids=str)
def test_sclip_looks_at_what_has_alike_queries_and_keys(vision):
    inverter, image, tokens, masks = seen(**vision)
    visual = inverter.clip.model.visual
    *before, last = visual.transformer.resblocks
    for block in before:
        tokens = forward(block, tokens)
    tokens = tokens + added(last, tokens, lambda q, k, v: softmax(q, q) + softmax(k, k))
    tokens = tokens + last.ls_2(last.mlp(last.ln_2(tokens)))
    close(found("sclip", inverter, image, masks), pooled(visual, tokens, masks))


@pytest.mark.parametrize("vision", VISIONS, ids=str)
def test_clip_surgery_has_a_path_of_alike_values_beside_the_last_six_blocks(vision):
    inverter, image, tokens, masks = seen(**vision)
    visual, beside = inverter.clip.model.visual, None
    blocks = visual.transformer.resblocks
    for number, block in enumerate(blocks):
        if number >= len(blocks) - 6:
            beside = (tokens if beside is None else beside) + added(block, tokens, lambda q, k, v: softmax(v, v))
        tokens = forward(block, tokens)
    close(found("clip-surgery", inverter, image, masks), pooled(visual, beside, masks))


@pytest.mark.parametrize("vision", VISIONS, ids=str)
def test_ris_sees_the_mask_only_in_the_last_three_blocks_and_the_masked_crop(vision):
    inverter, image, begin, masks = seen(**vision)
    visual = inverter.clip.model.visual
    blocks, expected = visual.transformer.resblocks, []
    for weight in covered(masks):
        tokens = begin
        for number, block in enumerate(blocks):
            if number >= len(blocks) - 3:
                tokens = torch.cat([tokens[:1], weight[:, None] * tokens[1:]])
            tokens = forward(block, tokens)
        out = visual.ln_post(tokens)
        expected.append((out[0] if visual.pool_type == "tok" else out[1:].mean(0)) @ visual.proj)
    crops = [inverter.encode(cut.permute(1, 2, 0)).global_embedding for cut in masked_crop(Picture(image).pixels, masks)]
    close(found("ris", inverter, image, masks), 0.95 * torch.stack(expected) + 0.05 * torch.stack(crops))


def test_masks_together_are_as_one_by_one_but_for_textregion(bundled):
    inverter, masks, (image, _) = mi.MaskInverter(bundled), many_masks(96, 40), picture(96, 1)
    for method in ("sclip", "clip-surgery", "ris", "maskclip"):
        together = found(method, inverter, image, masks)
        alone = torch.cat([found(method, inverter, image, mask[None]) for mask in masks[::13]])
        assert F.cosine_similarity(together[::13], alone).min() > 1 - 1e-4


# TextRegion


def through_last_block(clip: mi.Clip, values: Tensor, weights: Tensor) -> Tensor:
    """What the model makes of values that are averaged by `weights` [M, P], with nothing added to the last attention."""
    visual, block = clip.model.visual, clip.model.visual.transformer.resblocks[-1]
    y = block.ls_1(block.attn.out_proj(weights / weights.sum(1, keepdim=True) @ values))
    return visual.ln_post(y + block.ls_2(block.mlp(block.ln_2(y)))) @ visual.proj


def values_of(clip: mi.Clip, entering: Tensor) -> Tensor:
    block = clip.model.visual.transformer.resblocks[-1]
    return F.linear(block.ln_1(entering[1:]), *(p[-64:] for p in (block.attn.in_proj_weight, block.attn.in_proj_bias)))


def belonging(values: Tensor, weights: Tensor) -> list[float]:
    """For each patch, its mean similarity to the regions that it is in, less that to the others; patch by patch."""
    units, regions = F.normalize(values, dim=1), [weight > 0 for weight in weights]
    differences = []
    for patch, unit in enumerate(units):
        to_region = [float((units[region] @ unit).mean()) for region in regions]
        sides = [[value for value, region in zip(to_region, regions) if bool(region[patch]) == side] for side in (True, False)]
        differences.append(sum(sides[0]) / max(len(sides[0]), 1) - sum(sides[1]) / max(len(sides[1]), 1))
    return differences


@pytest.mark.parametrize("vision", VISIONS[:3], ids=str)
def test_textregion_is_the_last_block_looking_at_what_is_local_in_the_mask(vision):
    inverter, image, _, masks = seen(**vision)
    clip, encoded = inverter.clip, inverter.encode(image)
    values, weights = values_of(clip, encoded.entering), covered(masks)
    kept = weights * (torch.tensor(belonging(values, weights)) >= 0.07)
    assert 0 < (kept > 0).sum() < (weights > 0).sum()  # some patches go, and not all
    expected = through_last_block(clip, values, torch.where(kept.sum(1, keepdim=True) > 0, kept, weights))
    close(found("textregion", inverter, image, masks), expected)


@pytest.mark.parametrize("vision", VISIONS[:3], ids=str)
def test_textregion_takes_nothing_from_a_region_that_is_alone(vision):
    inverter, image, _, masks = seen(**vision)
    encoded = inverter.encode(image)
    expected = through_last_block(inverter.clip, values_of(inverter.clip, encoded.entering), covered(masks[:1]))
    close(found("textregion", inverter, image, masks[:1]), expected)


def test_regions_of_global_patches_only_keep_them():
    """Where all patches are the same, none is more alike to its own region than to the other."""
    inverter, image, _, masks = seen()
    encoded = inverter.encode(image)
    flat = torch.ones_like(encoded.entering)
    found = patches.textregion(inverter.clip.tower, flat, flat, torch.stack([masks[0], 1 - masks[0]]).double())
    expected = through_last_block(inverter.clip, values_of(inverter.clip, flat), torch.ones(2, 36).double())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_belonging_by_hand():
    """Patches along two axes: the third has half of both, and is in both regions."""
    features = torch.tensor([[1.0, 0], [0, 1], [1, 1]]) * torch.tensor([[2.0], [3], [5]])
    weights = torch.tensor([[0.3, 0, 1], [0, 1, 0.1]])
    half = 0.5**0.5
    expected = [(1 + half) / 2 - half / 2, (1 + half) / 2 - half / 2, (1 + half) / 2]
    torch.testing.assert_close(patches.belonging(features, weights), torch.tensor(expected))


# Models that some ways are not for


def other_clip() -> mi.Clip:
    return small_clip(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2)


def test_what_takes_the_attention_apart_is_for_plain_vits():
    inverter, masks = mi.MaskInverter(other_clip()), many_masks(48, 2)
    image, _ = picture(48, 2)
    for method in METHODS:
        reason = cannot(method, inverter.clip.tower)
        assert (reason is not None) == (method in ("sclip", "clip-surgery"))
        if reason is None:
            assert found(method, inverter, image, masks).isfinite().all()
        else:
            with pytest.raises(mi.ModelError, match=f"{method} is for the plain ViTs of open_clip"):
                found(method, inverter, image, masks)


def test_all_methods_means_all_that_the_model_can(tmp_path):
    clip, given = other_clip(), dict(dataset="coco", annotations=tmp_path, images=tmp_path, out=tmp_path)
    with pytest.warns(mi.errors.InputWarning, match="sclip is for the plain ViTs .* it is left out"):
        left = usable(Settings(**given), clip)
    assert left == [method for method in METHODS if method not in ("sclip", "clip-surgery")]
    assert usable(Settings(**given, methods=("global",)), clip) == ["global"]
    with pytest.raises(mi.ModelError, match="leave it out of --methods"):
        usable(Settings(**given, methods=("global", "sclip")), clip)
    assert usable(Settings(**given), small_clip()) == [*METHODS]
