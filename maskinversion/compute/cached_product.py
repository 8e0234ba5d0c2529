"""The product of two weights, kept from image to image for as long as it is theirs."""

import torch
from torch import Tensor


class CachedProduct:
    """The product of two weights, kept from image to image for as long as it is theirs.

    Weights are swapped, patched and moved under our hands, so every time a random vector tells whether it still is (Freivalds,
    1977): that reads the three matrices once.
    """

    def __init__(self):
        self.kept: Tensor | None = None
        self.transposed: Tensor | None = None

    def of(self, left: Tensor, right: Tensor) -> Tensor:
        """left [a, b] @ right [b, c], at their precision; `transposed` is then the same, transposed in memory."""
        if self.kept is None or (self.kept.dtype, self.kept.device) != (left.dtype, left.device) or not self.holds(left, right):
            self.kept = left @ right
            self.transposed = self.kept.T.contiguous()
        return self.kept

    def holds(self, left: Tensor, right: Tensor) -> bool:
        if self.kept.shape != (len(left), right.shape[1]):
            return False
        generator = torch.Generator(right.device).manual_seed(0)  # not the one of the whole program
        probe = torch.randn(right.shape[1], generator=generator, dtype=right.dtype, device=right.device)
        expected = left @ (right @ probe)
        return bool((self.kept @ probe - expected).norm() <= 100 * torch.finfo(left.dtype).eps * expected.norm())
