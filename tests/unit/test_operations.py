"""Arithmetic on tokens."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.operations import blend, nothing, pick, pull, slerp, stack, subtract, vary
from tests.helpers.random_tokens import made


def angles(a, b):
    return F.cosine_similarity(a, b).clamp(-1, 1).arccos()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slerp_goes_evenly_along_the_great_circle(dtype):
    a, b = made(5).embeddings.to(dtype), made(5, 1).embeddings.to(dtype)
    whole = angles(a, b)
    for weight in (0.0, 0.25, 0.8, 1.0):
        between = slerp(a, b, weight)
        torch.testing.assert_close(angles(a, between), weight * whole, atol=2e-3, rtol=0)
        torch.testing.assert_close(between.norm(dim=1), (1 - weight) * a.norm(dim=1) + weight * b.norm(dim=1))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)


def test_blend_takes_one_other_for_all_or_one_for_each_across_sets():
    sets, others = [made(2), made(1, 1)], [made(1, 2), made(2, 3)]
    flat = torch.cat([one.embeddings for one in others])
    found = blend(sets, others, 1.0)
    assert [len(one) for one in found] == [2, 1]
    torch.testing.assert_close(torch.cat([one.embeddings for one in found]), flat)
    for one in blend(sets, [made(1, 2)], 1.0):
        torch.testing.assert_close(one.embeddings, flat[:1].expand_as(one.embeddings))
    with pytest.raises(mi.InputError, match="3 tokens and 2 others do not go together"):
        blend(sets, [made(2)])


def test_what_was_done_is_kept_and_saved(tmp_path):
    found = pull(blend([made(2)], [made(1, 1)], 0.25), 0.5)[0]
    assert found.parameters == {"alpha": 0.0, "operations": [{"blend": 0.25, "with": "one"}, {"pull": 0.5}]}
    found.save(tmp_path / "x.safetensors")
    back = mi.LocalizedTokens.load(tmp_path / "x.safetensors")
    assert back.parameters == found.parameters and torch.equal(back.embeddings, found.embeddings)


def test_pull_ends_at_the_whole_picture():
    tokens = made(3)
    torch.testing.assert_close(pull([tokens], 1.0)[0].embeddings, tokens.global_embedding.expand(3, -1))
    torch.testing.assert_close(pull([tokens], 0.0)[0].embeddings, tokens.embeddings)


def test_subtract_points_away_at_the_same_length():
    tokens, other = made(3), made(1, 1)
    before = F.cosine_similarity(tokens.embeddings, other.embeddings)
    found = subtract([tokens], [other], 0.5)[0].embeddings
    assert (F.cosine_similarity(found, other.embeddings) < before).all()
    torch.testing.assert_close(found.norm(dim=1), tokens.embeddings.norm(dim=1))
    with pytest.raises(mi.InputError, match="nothing is left"):
        subtract([tokens], [tokens], 1.0)


def test_variations_are_at_their_angle_and_repeat_with_their_seed():
    tokens = made(2)
    found = vary([tokens], 3, 20.0, 7)[0]
    assert found.embeddings.shape == (6, 32) and found.maps.shape == (6, 4, 4) and found.losses.shape == (2, 6)
    origin = tokens.embeddings.repeat_interleave(3, 0)
    torch.testing.assert_close(angles(found.embeddings, origin), torch.full((6,), 20.0).deg2rad(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.embeddings.norm(dim=1), origin.norm(dim=1))
    assert torch.equal(vary([tokens], 3, 20.0, 7)[0].embeddings, found.embeddings)
    assert not torch.equal(vary([tokens], 3, 20.0, 8)[0].embeddings, found.embeddings)
    assert len({tuple(row) for row in found.embeddings.tolist()}) == 6
    torch.testing.assert_close(vary([tokens], 1, 0.0)[0].embeddings, tokens.embeddings)


def test_stack_and_pick_count_through_all_sets():
    first, second = made(2), made(3, 1)
    every = stack([first], [second])
    found = pick(every, [3, -1, 0])
    assert [torch.equal(a.embeddings[0], b) for a, b in zip(found, (*second.embeddings[1:3], first.embeddings[0]))] == [True] * 3
    assert torch.equal(found[0].maps, second.maps[1:2]) and torch.equal(found[0].losses, second.losses[:, 1:2])
    with pytest.raises(mi.InputError, match="no token 5: there are 5, so use 0 to 4"):
        pick(every, [0, 5])
    with pytest.raises(mi.InputError, match="0 only"):
        pick([made(1)], [1])
    with pytest.raises(mi.InputError, match="no token is picked"):
        pick(every, [])
    with pytest.raises(mi.InputError, match="no tokens"):
        stack([])


@pytest.mark.parametrize("operation", [blend, subtract, stack])
def test_tokens_of_different_clips_are_refused_with_both_names(operation):
    with pytest.raises(mi.InputError, match=r"different CLIPs, one and two \(32 and 48 numbers each\)"):
        operation([made(1)], [made(1, width=48, model="two", fingerprint="2")])


def test_one_set_may_be_given_by_itself():
    one, other = made(2), made(1, 1)
    for alone, listed in (
        (blend(one, other), blend([one], [other])),
        (subtract(one, other), subtract([one], [other])),
        (pull(one), pull([one])),
        (vary(one), vary([one])),
        (stack(one, [], [other]), [one, other]),
        (pick(one, [1]), pick([one], [1])),
    ):
        assert [len(a) for a in alone] == [len(b) for b in listed]
        assert all(torch.equal(a.embeddings, b.embeddings) for a, b in zip(alone, listed))
    for nothing_of in ([], torch.zeros(1, 32), [torch.zeros(1, 32)], None):
        with pytest.raises(mi.InputError, match=r"there are no tokens|where tokens should be: give what"):
            pull(nothing_of)


def test_what_has_no_direction_is_refused():
    tokens = made(2)
    empty = replace(tokens, embeddings=tokens.embeddings * torch.tensor([[1.0], [0.0]]))
    for call in (lambda: blend([empty], [made(1, 1)]), lambda: subtract([made(2)], [empty]), lambda: vary([empty])):
        with pytest.raises(mi.InputError, match="token 1 has the length 0"):
            call()
    with pytest.raises(mi.InputError, match="opposite directions"):
        blend([tokens], [replace(tokens, embeddings=-tokens.embeddings)])


def test_numbers_that_cannot_be():
    for call, message in (
        (lambda: blend([made(1)], [made(1)], 1.5), "weight is 1.5; it must be from 0 to 1"),
        (lambda: pull([made(1)], -1), "strength is -1"),
        (lambda: subtract([made(1)], [made(1)], -1), "must be 0 or more"),
        (lambda: vary([made(1)], 0), "count is 0"),
        (lambda: vary([made(1)], 1, 120), "angle is 120"),
    ):
        with pytest.raises(mi.InputError, match=message):
            call()


def test_nothing_is_the_models_own_embedding_of_an_empty_picture(bundled, tmp_path):
    zeros = torch.zeros(1, 3, *bundled.tower.image_size)
    with torch.no_grad():
        own = bundled.model.encode_image(zeros)
    grey = nothing(bundled)
    torch.testing.assert_close(grey.embeddings, own, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(nothing(bundled, "black").embeddings, own, atol=1e-3)
    grey.save(tmp_path / "x.safetensors")
    assert torch.equal(mi.LocalizedTokens.load(tmp_path / "x.safetensors").embeddings, grey.embeddings)
    with pytest.raises(mi.InputError, match="grey, black"):
        nothing(bundled, "white")
