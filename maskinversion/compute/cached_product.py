"""The product of two weights, kept from image to image for as long as it is theirs."""

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn


class CachedProduct:
    """The product of two weights, kept from image to image for as long as it is theirs.

    Weights are swapped, patched and moved under our hands, so every time a random vector tells whether it still is (Freivalds,
    1977): that reads the three matrices once.
    """

    def __init__(self):
        self.kept: tuple[Tensor, Tensor] | None = None

    def of(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """left [a, b] @ right [b, c], at their precision; and the same, transposed in memory."""
        kept = self.kept
        if kept is None or not is_product(kept[0], left, right):
            product = left @ right
            kept = self.kept = product, product.T.contiguous()
        return kept


def is_product(found: Tensor, left: Tensor, right: Tensor) -> bool:
    if (found.dtype, found.device, *found.shape) != (left.dtype, left.device, len(left), right.shape[1]):
        return False
    generator = torch.Generator(right.device).manual_seed(0)  # not the one of the whole program
    probe = torch.randn(right.shape[1], generator=generator, dtype=right.dtype, device=right.device)
    expected = left @ (right @ probe)
    return bool((found @ probe - expected).norm() <= 100 * torch.finfo(left.dtype).eps * expected.norm())


products: WeakKeyDictionary[nn.Module, CachedProduct] = WeakKeyDictionary()


def product_of(module: nn.Module) -> CachedProduct:
    """The product of this module's weights, for as long as the module is in use, whoever reads it."""
    return products.setdefault(module, CachedProduct())


def forget_products() -> None:
    """Give their memory back; they are formed again when they are needed."""
    products.clear()
