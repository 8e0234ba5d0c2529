"""Arithmetic on localized tokens: mixtures, directions and variations on the sphere that a CLIP compares embeddings on.

Every function takes sets of tokens, a sequence of `LocalizedTokens`, and returns such sets. Directions are combined on the unit
sphere, and every result keeps the length of the token that it came from. Maps, losses and geometry stay those of that token:
they say where it came from. What was done is added to `parameters["operations"]`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .identity import check_same_clip
from .inverter import EncodedImage, MaskInverter
from .models.clip import Clip
from .tokens import LocalizedTokens, Sets, sets_of

EPSILON = 1e-6
NOTHINGS = ("grey", "black")


def embeddings_of(tokens: Sets) -> Tensor:
    """All embeddings [M, D] of the sets, on the device of the first: sets that were loaded and sets just made go together."""
    sets = sets_of(tokens)
    return torch.cat([one.embeddings.to(sets[0].embeddings) for one in sets])


def blend(tokens: Sets, others: Sets, weight: float = 0.5) -> list[LocalizedTokens]:
    """The tokens on the way to `others`, along the great circle: weight 0 is `tokens`, 1 is `others`, lengths included.

    others: as many as `tokens` in all, or one for all. Raises InputError for other numbers, other CLIPs, a weight outside 0..1,
    and tokens that point in opposite directions.
    """
    check_between("weight", weight, 0, 1)
    tokens, others = sets_of(tokens), sets_of(others)
    targets = matched(tokens, others)
    return changed(tokens, targets, lambda own, target: slerp(own, target, weight), {"blend": weight, "with": names(others)})


def pull(tokens: Sets, strength: float = 0.3) -> list[LocalizedTokens]:
    """The tokens on the way to the embedding of their whole picture: strength 0 is the region only, 1 the whole picture.

    Raises InputError for a strength outside 0..1.
    """
    check_between("strength", strength, 0, 1)
    tokens = sets_of(tokens)
    targets = [one.global_embedding.expand_as(one.embeddings) for one in tokens]
    return changed(tokens, targets, lambda own, target: slerp(own, target, strength), {"pull": strength})


def subtract(tokens: Sets, others: Sets, strength: float = 0.5) -> list[LocalizedTokens]:
    """The tokens without the direction of `others`: less like them, at the tokens' own length.

    others: as many as `tokens` in all, or one for all. Raises InputError for other numbers, other CLIPs, a strength below 0, and
    when nothing is left.
    """
    check_between("strength", strength, 0, math.inf)
    tokens, others = sets_of(tokens), sets_of(others)

    def away(own: Tensor, other: Tensor) -> Tensor:
        length = lengths(own)
        rest = own / length - strength * other / lengths(other)
        if (rest.norm(dim=1) < EPSILON).any():
            raise InputError(f"nothing is left of a token after taking {strength:g} times itself away: lower the strength")
        return F.normalize(rest, dim=1) * length

    return changed(tokens, matched(tokens, others), away, {"subtract": strength, "of": names(others)})


def vary(tokens: Sets, count: int = 4, angle: float = 20.0, seed: int = 0) -> list[LocalizedTokens]:
    """`count` variations of every token, each `angle` degrees away from it in a direction of its own.

    A region in the space of embeddings rather than one point; the idea is that of LARE (arXiv 2409.12597), which learns such
    regions, while this draws from a circle around the token. The same seed gives the same variations on every device.
    Raises InputError for a count below 1 or an angle outside 0..90.
    """
    if count < 1:
        raise InputError(f"count is {count}; it must be at least 1")
    check_between("angle", angle, 0, 90)
    tokens = sets_of(tokens)
    generator = torch.Generator().manual_seed(seed)
    for one in tokens:
        lengths(one.embeddings)
    repeated = [taken(one, [index for index in range(len(one)) for _ in range(count)]) for one in tokens]
    noises = [torch.randn(one.embeddings.shape, generator=generator) for one in repeated]

    def turned(own: Tensor, noise: Tensor) -> Tensor:
        length = lengths(own)
        unit = own / length
        aside = F.normalize(noise - (noise * unit).sum(1, keepdim=True) * unit, dim=1)
        return (math.cos(math.radians(angle)) * unit + math.sin(math.radians(angle)) * aside) * length

    return changed(repeated, noises, turned, {"vary": angle, "seed": seed})


def stack(*groups: Sets) -> list[LocalizedTokens]:
    """All tokens, one after the other. Raises InputError when they are of different CLIPs, or when there are none."""
    every = sets_of([one for group in groups if len(group) for one in sets_of(group)])
    for one in every[1:]:
        check_same_clip(every[0], one)
    return every


def pick(tokens: Sets, indices: Sequence[int]) -> list[LocalizedTokens]:
    """Some of the tokens, in the order of `indices`, which count through all sets from 0; -1 is the last.

    Raises InputError for an index that no token has, with the number of tokens.
    """
    places = [(one, index) for one in sets_of(tokens) for index in range(len(one))]
    if not indices:
        raise InputError(f"no token is picked: give at least one number, from 0 to {len(places) - 1}")
    for index in indices:
        if not -len(places) <= index < len(places):
            last = f"0 to {len(places) - 1}" if len(places) > 1 else "0 only"
            raise InputError(f"there is no token {index}: there are {len(places)}, so use {last}")
    return [taken(places[index][0], [places[index][1]]) for index in indices]


def slerp(start: Tensor, end: Tensor, weight: float) -> Tensor:
    """Embeddings [M, D] on the great circle from `start` to `end`; their lengths go evenly from one to the other.

    weight: 0 is `start`, 1 is `end`. Raises InputError for two that point in opposite directions, or one without a direction.
    """
    from_length, to_length = lengths(start), lengths(end)
    a, b = start / from_length, end / to_length
    # Half the chord, not the cosine: arccos is blind to small angles.
    half = ((a - b).norm(dim=1, keepdim=True) / 2).clamp(max=1).asin()
    if (half > math.pi / 2 - EPSILON).any():
        raise InputError("a token and the one to blend it with point in opposite directions: there is no way between them")
    angle = 2 * half
    straight = angle < EPSILON
    sine = torch.where(straight, torch.ones_like(angle), angle.sin())
    left = torch.where(straight, torch.full_like(angle, 1 - weight), ((1 - weight) * angle).sin() / sine)
    right = torch.where(straight, torch.full_like(angle, weight), (weight * angle).sin() / sine)
    return (left * a + right * b) * torch.lerp(from_length, to_length, weight)


def lengths(embeddings: Tensor) -> Tensor:
    """[M, 1]. Raises InputError for an embedding without a direction."""
    found = embeddings.norm(dim=1, keepdim=True)
    for index, length in enumerate(found[:, 0].tolist()):
        if not EPSILON < length < math.inf:
            raise InputError(f"token {index} has the length {length:g}, so it has no direction: make it again from its picture")
    return found


def matched(tokens: list[LocalizedTokens], others: list[LocalizedTokens]) -> list[Tensor]:
    """The embeddings [m, D] of `others` that belong to each set of m `tokens`. Raises InputError for another number, or CLIP."""
    for one in others:
        check_same_clip(tokens[0], one)
    total, given = sum(map(len, tokens)), sum(map(len, others))
    if given not in (1, total):
        raise InputError(
            f"{total} tokens and {given} others do not go together: give as many of both, or one other. Pick Tokens takes some out"
        )
    flat = torch.cat([one.embeddings.to(tokens[0].embeddings) for one in others]).expand(total, -1)
    return list(flat.split([len(one) for one in tokens]))


def check_between(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        wanted = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        raise InputError(f"{what} is {value:g}; it must be {wanted}")


def names(sets: list[LocalizedTokens]) -> str:
    return ", ".join(dict.fromkeys(one.model for one in sets))


def taken(one: LocalizedTokens, indices: list[int]) -> LocalizedTokens:
    return replace(
        one,
        embeddings=one.embeddings[indices],
        maps=one.maps[indices],
        losses=one.losses[:, indices],
        iou=one.iou[indices],
    )


def changed(
    tokens: list[LocalizedTokens], seconds: Sequence[Tensor], function: Callable[[Tensor, Tensor], Tensor], record: dict
) -> list[LocalizedTokens]:
    """Every set with function(embeddings, second) in place of its embeddings, and the record of it."""
    return [
        replace(
            one,
            embeddings=function(one.embeddings, second.to(one.embeddings)),
            parameters=one.parameters | {"operations": [*one.parameters.get("operations", []), record]},
        )
        for one, second in zip(tokens, seconds, strict=True)
    ]


def empty(clip: Clip, picture: str = "grey") -> EncodedImage:
    """A picture with nothing on it, encoded.

    picture: `grey` is the mean colour of the model's training, which it sees as zeros (what Kandinsky 2.2 and IP-Adapter Plus use),
    or `black`. Raises InputError for another.
    """
    if picture not in NOTHINGS:
        raise InputError(f"picture is {picture!r}; it must be one of {', '.join(NOTHINGS)}")
    colour = clip.tower.mean if picture == "grey" else (0.0, 0.0, 0.0)
    size = tuple(clip.tower.image_size)
    return MaskInverter(clip).encode(torch.tensor(colour).expand(*size, 3))


def nothing(clip: Clip, picture: str = "grey", encoded: EncodedImage | None = None) -> LocalizedTokens:
    """The embedding of a picture with nothing on it, as one token: what guidance can lead away from.

    picture: as `empty` has it. encoded: what `empty` gave, where it is at hand.
    """
    encoded = empty(clip, picture) if encoded is None else encoded
    embedding = encoded.global_embedding
    return LocalizedTokens(
        embeddings=embedding[None].clone(),
        maps=embedding.new_zeros(1, *encoded.geometry.model_size),
        losses=embedding.new_zeros(0, 1),
        iou=embedding.new_zeros(1),
        global_embedding=embedding,
        geometry=encoded.geometry,
        model=clip.name,
        fingerprint=clip.fingerprint,
        parameters={"operations": [{"nothing": picture}]},
    )
