"""The proof that a tower computes what its model computes: their embeddings of the first picture are compared.

`opening` knows many ways in which a model can compute something else than its weights say; this needs to know none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import MaskInversionError, ModelError, first_line, out_of_memory

if TYPE_CHECKING:
    from .base import Tower

# |ours - own| / |own| from which on two embeddings differ by more than rounding, by what the model computes in.
LIMITS = {torch.float64: 1e-6, torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
ANEW = "load the model anew, with nothing wrapped around it or put into it, and in evaluation mode (model.eval())"

# By model: the state in which it was proved, see `state_of`.
proved: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def prove(tower: Tower, pixels: Tensor, embedding: Tensor) -> None:
    """Once for every model, and again when its parts are others: compares `embedding` [D], which the tower computed of the
    normalised image `pixels` [1, 3, H, W], with the model's own. At another size than the model's native one, both see a copy of
    the image at that size.

    Raises ModelError where they differ by more than rounding, or the model itself fails.
    """
    state = state_of(tower.model)
    if proved.get(tower.model) == state:
        return
    name = type(tower.model).__name__
    if tuple(pixels.shape[-2:]) != tuple(tower.image_size):
        small = F.interpolate(pixels.to(embedding), tower.image_size, mode="bilinear", antialias=True)
        pixels = small.to(pixels)
        embedding = tower.pass_through(pixels, 1)[0].global_embedding
    own = own_embedding(tower, pixels).to(embedding)
    if not own.isfinite().all():
        raise ModelError(
            f"this {name} gives an embedding that is not finite: its weights are damaged, or it overflows in {tower.dtype}; "
            f"download them again, or load it in float32"
        )
    if own.shape != embedding.shape:
        raise ModelError(f"this {name} gives embeddings of {len(own)} numbers, and its weights say {len(embedding)}: {ANEW}")
    difference = float((own - embedding).norm() / own.norm().clamp(min=torch.finfo(own.dtype).tiny))
    if not difference <= LIMITS.get(tower.dtype, LIMITS[torch.bfloat16]):
        raise ModelError(
            f"this {name} gives another embedding of the picture than its weights say (they differ by {difference:.1%}): a part "
            f"of it was changed, adapted or quantised, or is in training mode. {ANEW[0].upper()}{ANEW[1:]}"
        )
    proved[tower.model] = state


def own_embedding(tower: Tower, pixels: Tensor) -> Tensor:
    """The model's own embedding [D] of a normalised image [1, 3, H, W] of its native size. Raises ModelError where it fails."""
    try:
        return tower.own(pixels)[0]
    except Exception as error:  # of whatever has been done to the model
        if out_of_memory(error):
            raise
        name = type(tower.model).__name__
        raise ModelError(f"the forward pass of this {name} fails by itself ({first_line(error)}): {ANEW}") from error


@contextmanager
def own_failure(tower: Tower, pixels: Tensor) -> Iterator[None]:
    """Says of an error while a tower computes, with modules of its model, that the model fails without the tower, too.

    pixels [B, 3, H, W]: of any size.
    """
    try:
        yield
    except MaskInversionError:
        raise
    except Exception as error:
        if not out_of_memory(error):
            own_embedding(tower, pixels.new_zeros(1, 3, *tower.image_size))
        raise


def state_of(model: Any) -> int:
    """Which parts a model has, with their hooks and forwards: changes when one is replaced, adapted, hooked or patched."""
    parts = [
        (id(part), id(type(part)), id(vars(part).get("forward")), part.training, *part._forward_hooks, *part._forward_pre_hooks)
        for part in model.modules()
    ]
    return hash(tuple(parts))
