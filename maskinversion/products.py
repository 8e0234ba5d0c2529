"""Which of a device's matrix products are the fastest: found by timing each once.

On a CPU PyTorch leaves float32 products to the vendor's library (MKL), and uses the oneDNN that it carries for other precisions
and in compiled models. On some processors oneDNN is the faster one: on an AMD Zen 4, 210 against 160 to 180 GFLOPS for 197 rows,
and two times as fast for one to ten.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] @ weight.T + bias, with weight [out, in], without derivatives."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and onednn_is_faster():
        return by_onednn(x, weight, bias)
    return F.linear(x, weight, bias)


def fastest(device: torch.device) -> AbstractContextManager:
    """Within it, linear layers of any module are computed as `linear` does it; nothing of a module is changed."""
    return FastLinears() if device.type == "cpu" and onednn_is_faster() else nullcontext()


class FastLinears(TorchDispatchMode):
    """Sends linear layers to `linear`, in whichever form PyTorch's modules and autograd modes bring them here."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not kwargs:
            if function is aten.linear.default:
                return linear(*args)
            if function is aten.addmm.default and args[0].ndim == 1 and args[2].mT.is_contiguous():
                return linear(args[1], args[2].mT, args[0])
            if function is aten.mm.default and args[1].mT.is_contiguous():
                return linear(args[0], args[1].mT)
        return function(*args, **(kwargs or {}))


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def onednn_is_faster() -> bool:
    """Than what PyTorch uses for float32 on this CPU; False where it has no oneDNN, or its user has switched that off."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    if not torch.backends.mkldnn.enabled:
        return False
    x, weight = torch.ones(197, 768), torch.ones(768, 768)
    return seconds(lambda: by_onednn(x, weight)) < seconds(lambda: F.linear(x, weight))


@cache
def bfloat16_is_faster(device: torch.device) -> bool:
    """Than float32, in a product of the usual size: some processors have no arithmetic for it and take a hundred times longer."""
    float32, bfloat16 = (torch.ones(512, 512, dtype=dtype, device=device) for dtype in (torch.float32, torch.bfloat16))
    return seconds(lambda: bfloat16 @ bfloat16) < seconds(lambda: float32 @ float32)


def seconds(product: Callable[[], Tensor]) -> float:
    """What a product takes at its quickest."""
    taken = []
    with torch.inference_mode():
        for _ in range(5):
            start = time.perf_counter()
            product()[0, 0].item()
            taken.append(time.perf_counter() - start)
    return min(taken)


class KeptProduct:
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
