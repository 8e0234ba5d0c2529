"""Where tokens start, and steps that mean the same on every model."""

import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion import starts
from maskinversion.geometry import Geometry
from maskinversion.settings import STARTS, InversionSettings
from tests.helpers import ground_truth
from tests.helpers.pictures import many_masks, picture
from tests.helpers.small_models import small_clip

VISIONS = [{}, {"pool_type": "avg"}, {"ls_init_value": 0.3}]
STAND_STILL = dict(iterations=1, lr=1e-12)


def encoded_small(**vision) -> tuple[mi.Clip, mi.EncodedImage, torch.Tensor, torch.Tensor]:
    """A small CLIP, an image that it has seen, its pixels as the model takes them [1, 3, 48, 48], and two masks [2, 48, 48]."""
    clip = small_clip(**vision)
    image, masks = picture(48, 2)
    encoded = mi.MaskInverter(clip).encode(image)
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.tower.mean, clip.tower.std))
    return clip, encoded, ((image.permute(2, 0, 1) - mean) / std)[None].double(), masks.double()


def covered(masks: torch.Tensor) -> torch.Tensor:
    return masks.unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4)).flatten(1)


def through_block(clip: mi.Clip, entering: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What the model makes of values that are averaged by `weights` [M, P], with nothing added to the last attention."""
    visual, block = clip.model.visual, clip.model.visual.transformer.resblocks[-1]
    values = F.linear(block.ln_1(entering), *(p[-64:] for p in (block.attn.in_proj_weight, block.attn.in_proj_bias)))
    y = block.ls_1(block.attn.out_proj(weights / weights.sum(1, keepdim=True) @ values))
    return visual.ln_post(y + block.ls_2(block.mlp(block.ln_2(y)))) @ visual.proj


@pytest.mark.parametrize("vision", VISIONS, ids=str)
def test_patches_look_at_what_is_unlike_the_outside(vision):
    clip, encoded, _, masks = encoded_small(**vision)
    visual, block = clip.model.visual, clip.model.visual.transformer.resblocks[-1]
    entering, inside = encoded.entering[1:], covered(masks)
    value = F.linear(block.ln_1(entering), *(p[-64:] for p in (block.attn.in_proj_weight, block.attn.in_proj_bias)))
    y = entering + block.ls_1(block.attn.out_proj(value))
    dense = F.normalize(visual.ln_post(y + block.ls_2(block.mlp(block.ln_2(y)))) @ visual.proj, dim=-1)
    weights = inside.clone()
    for mask, (within, weight) in enumerate(zip(inside, weights)):
        mean, rest = (F.normalize(sum(share * one for share, one in zip(part, dense)), dim=0) for part in (within, 1 - within))
        for patch, one in enumerate(dense):
            weights[mask, patch] = weight[patch] * torch.exp(16 * (one @ mean - one @ rest))
    found = starts.from_patches(clip.tower, encoded.entering, encoded.leaving, masks)
    torch.testing.assert_close(found, through_block(clip, entering, weights), rtol=1e-9, atol=1e-9)


def test_a_mask_of_everything_has_no_outside_to_be_unlike():
    clip, encoded, _, masks = encoded_small()
    everything = torch.ones_like(masks[:1])
    found = starts.from_patches(clip.tower, encoded.entering, encoded.leaving, everything)
    assert found.isfinite().all()


def test_a_cutout_is_the_enlarged_region_with_the_rest_blurred():
    clip, encoded, pixels, _ = encoded_small()
    masks = torch.zeros(2, 48, 48)
    masks[0, 10:20, 10:30], masks[1, 30:36, 40:48] = 1, 1  # twice their boxes: 40 px, and 16 at the picture's edge
    windows = [(0, 40, 0, 40), (25, 41, 32, 48)]
    deviation = 48 * 100 / 384
    places = torch.arange(48)
    weights = torch.exp(-((places[None] - places[:, None]) ** 2) / (2 * deviation**2)).double()
    weights = weights / weights.sum(1, keepdim=True)
    found = starts.from_cutouts(clip.tower, encoded.detail, masks)
    for number, (top, bottom, left, right) in enumerate(windows):
        view = F.interpolate(pixels[:, :, top:bottom, left:right], 48, mode="bicubic", antialias=True)
        kept = F.interpolate(masks[None, number : number + 1, top:bottom, left:right].double(), 48, mode="bilinear")
        rest = torch.einsum("ij,bcjk,lk->bcil", weights, view, weights)
        wider = kept.clone()
        for row in range(48):
            for column in range(48):
                wider[..., row, column] = kept[..., max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].max()
        for cutout, shown in zip(found, (kept, wider), strict=True):
            expected = F.normalize(clip.model.visual(shown * view + (1 - shown) * rest), dim=1)[0]
            torch.testing.assert_close(cutout[number], expected, rtol=1e-4, atol=1e-5)  # the canvas is in float32


def test_a_region_of_a_large_picture_is_enlarged_from_its_own_pixels():
    clip = small_clip()
    stripes = (torch.arange(192) // 2 % 2).float().expand(192, 192)  # of two pixels: grey, where a canvas pixel has four
    picture = stripes[..., None].expand(-1, -1, 3)
    mask = torch.zeros(192, 192)
    mask[80:104, 80:104] = 1
    inverter = mi.MaskInverter(clip, fit="stretch")
    encoded = inverter.encode(picture)
    assert encoded.detail.shape == (3, 192, 192) and encoded.canvas.shape == (3, 48, 48)
    (view,), (kept,) = starts.enlarged(encoded.detail, inverter.masks_for(encoded, mask)[0], clip.tower.interpolation)
    assert view.std() > 10 * encoded.canvas.std() > 0
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.tower.mean, clip.tower.std))
    torch.testing.assert_close(view, (picture.permute(2, 0, 1)[:, 68:116, 68:116] - mean) / std)
    assert kept[0, 20:28, 20:28].min() == 1 and kept.mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("size, fit, times", [
    ((48, 48), "stretch", 1), ((70, 70), "stretch", 1), ((100, 60), "stretch", 2), ((9000, 9000), "stretch", 4),
    ((20, 20), "stretch", 1), ((96, 480), "pad", 4), ((96, 480), "crop", 2), ((100, 100), "aspect", 2),
])  # fmt: skip
def test_detail_is_kept_as_far_as_the_picture_has_it(size, fit, times):
    geometry = Geometry.for_image(size, (48, 48), (8, 8), fit)
    finer = geometry.finer(4)
    assert finer.model_size == tuple(times * side for side in geometry.model_size)
    assert (finer.image_size, finer.fit) == (geometry.image_size, geometry.fit)


@pytest.mark.parametrize("mask", ["pixel", "all", "edge", "faint"])
def test_a_window_is_inside_of_the_picture(mask):
    masks = {name: torch.zeros(48, 32) for name in ("pixel", "all", "edge", "faint")}
    masks["pixel"][47, 31] = masks["all"][:] = masks["edge"][:, 0] = 1
    masks["faint"][20:30, 10:12] = 0.01
    places = torch.arange(48 * 32).reshape(1, 48, 32).expand(3, -1, -1).float()
    view, kept = starts.enlarged(places, masks[mask], "bilinear")
    assert view.shape == (1, 3, 48, 32) and kept.shape == (1, 1, 48, 32) and kept.max() > 0
    assert view.min() >= 0 and view.max() <= 48 * 32 - 1
    whole = mask in ("all", "edge")
    assert torch.equal(view[0], places) == whole


@pytest.mark.parametrize("start", STARTS)
def test_a_token_starts_where_it_is_told_to(start):
    clip, encoded, _, masks = encoded_small()
    tokens = mi.MaskInverter(clip, start=start, **STAND_STILL).invert(encoded, masks)
    patches = F.normalize(starts.from_patches(clip.tower, encoded.entering, encoded.leaving, masks), dim=1)
    close, wide = starts.from_cutouts(clip.tower, encoded.detail, masks)
    whole = F.normalize(encoded.global_embedding, dim=0).expand(2, -1)
    parts = {"picture": whole, "patches": patches, "cutout": close + wide, "both": patches + close + wide}
    expected = F.normalize(parts[start], dim=1)
    length = encoded.global_embedding.norm()
    torch.testing.assert_close(tokens.embeddings, expected * length, rtol=1e-9, atol=1e-9)
    assert tokens.parameters["start"] == start and torch.equal(tokens.global_embedding, encoded.global_embedding)


@pytest.mark.parametrize("start", ["patches", "cutout", "both"])
@pytest.mark.parametrize("layers", [1, 2])
def test_steps_from_another_start_equal_autograd(start, layers):
    clip, _, pixels, masks = encoded_small()
    image, _ = picture(48, 2)
    inverter = mi.MaskInverter(clip, start=start, layers=layers, alpha=0.5)
    encoded = inverter.encode(image)
    tokens = inverter.invert(encoded, masks)
    begin = mi.MaskInverter(clip, start=start, layers=layers, **STAND_STILL).invert(encoded, masks).embeddings
    clip.model.visual.requires_grad_(False)
    expected, maps, losses = ground_truth.invert(clip.model.visual, pixels, masks, 10, 0.1, 0.5, layers, starts=begin)
    assert torch.allclose(tokens.embeddings, expected, rtol=1e-8, atol=1e-9)
    assert torch.allclose(tokens.maps, maps, atol=1e-8) and torch.allclose(tokens.losses, losses, atol=1e-8)


@pytest.mark.parametrize("start", STARTS)
def test_masks_together_are_as_one_by_one(bundled, scene, start):
    inverter = mi.MaskInverter(bundled, start=start)
    encoded = inverter.encode(scene[0])
    together = inverter.invert(encoded, many_masks(96, 40))
    alone = [inverter.invert(encoded, mask) for mask in many_masks(96, 40)[::13]]
    cosine = F.cosine_similarity(together.embeddings[::13], torch.cat([one.embeddings for one in alone]))
    assert cosine.min() > 1 - 1e-4


def test_a_relative_rate_does_not_depend_on_the_length_of_embeddings():
    image, masks = picture(48, 2)
    found = {}
    for times in (1, 7):
        clip = small_clip()
        clip.model.visual.proj.mul_(times)
        for unit in ("absolute", "relative"):
            inverter = mi.MaskInverter(clip, lr_unit=unit)
            found[unit, times] = F.normalize(inverter.invert(inverter.encode(image), masks).embeddings, dim=1)
    assert torch.allclose(found["relative", 1], found["relative", 7], rtol=0, atol=1e-9)
    assert (found["absolute", 1] * found["absolute", 7]).sum(1).max() < 0.999


@pytest.mark.parametrize("start", STARTS)
def test_the_first_step_of_a_relative_rate_is_an_angle(start):
    """AdamW's first step changes every number by lr, so it turns the token by lr radians, less where it makes it longer."""
    clip, encoded, _, masks = encoded_small()
    inverters = [mi.MaskInverter(clip, start=start, lr_unit="relative", iterations=1, lr=lr) for lr in (1e-12, 0.05)]
    begin, after = (F.normalize(inverter.invert(encoded, masks).embeddings, dim=1) for inverter in inverters)
    angle = torch.acos((begin * after).sum(1))
    assert (angle < 0.0501).all() and (angle > 0.04).all()


@pytest.mark.parametrize("field", ["start", "lr_unit"])
def test_unknown_words_are_refused(field):
    with pytest.raises(mi.InputError, match=rf"{field} is 'there'; it must be one of"):
        InversionSettings(**{field: "there"})
