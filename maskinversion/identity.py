"""Whether tokens are of a CLIP: embeddings of different ones cannot be compared, mixed, or fed to what was trained with another.

A CLIP is known by its fingerprint, which every token carries.
"""

from .errors import InputError
from .models.clip import Clip
from .tokens import LocalizedTokens, Sets, sets_of


def check_made_for(tokens: Sets, name: str, width: int, fingerprint: str | None, clip: str | None) -> None:
    """Raises InputError for tokens of several CLIPs, or of another than the model `name` was trained with, naming both models.

    width: of the embeddings that it takes. fingerprint, clip: of its CLIP, and that CLIP's name, where known.
    """
    load = f"make the tokens with {clip or 'the CLIP that it was trained with'}"
    sets = sets_of(tokens)
    for one in sets:
        check_same_clip(sets[0], one)
        if one.embeddings.shape[1] != width:
            raise InputError(
                f"the tokens are of {one.model} and have {one.embeddings.shape[1]} numbers each, but {name} takes {width}: {load}"
            )
        if fingerprint not in (None, one.fingerprint):
            raise InputError(
                f"the tokens are of {one.model}, which is not the CLIP that {name} was trained with, though as wide ({width}): "
                f"{load}"
            )


def check_same_clip(a: LocalizedTokens, b: LocalizedTokens) -> None:
    """Raises InputError for tokens of two CLIPs, naming both."""
    if a.fingerprint != b.fingerprint:
        widths = f"{a.embeddings.shape[1]} and {b.embeddings.shape[1]} numbers each"
        raise InputError(
            f"the tokens are of different CLIPs, {a.model} and {b.model} ({widths}), whose embeddings cannot be mixed: make all of "
            f"them with the same CLIP"
        )


def check_made_with(tokens: Sets, clip: Clip, advice: str, what: str = "the tokens were") -> None:
    """Raises InputError for tokens of another CLIP than this one, naming both.

    advice: where to give the right one. what: the beginning of the message.
    """
    for one in sets_of(tokens):
        if one.fingerprint != clip.fingerprint:
            raise InputError(f"{what} made with {one.model}, not with {clip.name}: {advice}")
