"""Which of a device's matrix products are the fastest: found by timing each once.

On a CPU PyTorch leaves float32 products to the vendor's library (MKL), and uses the oneDNN that it carries for other precisions
and in compiled models. On some processors oneDNN is the faster one: on an AMD Zen 4, 210 against 160 to 180 GFLOPS for 197 rows,
and two times as fast for one to ten.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] @ weight.T + bias, with weight [out, in], without derivatives."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and onednn_is_faster():
        return onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def fast_linears(device: torch.device) -> AbstractContextManager:
    """Within it, linear layers of any module are computed as `linear` does it; nothing of a module is changed."""
    return FastLinears() if device.type == "cpu" and onednn_is_faster() else nullcontext()


class FastLinears(TorchDispatchMode):
    """Sends linear layers to `linear`, in whichever form PyTorch's modules and autograd modes bring them here."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not kwargs:
            if function is aten.linear.default:
                return linear(*args)
            if function is aten.addmm.default and args[0].ndim == 1 and args[2].mT.is_contiguous():
                return linear(args[1], args[2].mT, args[0])
            if function is aten.mm.default and args[1].mT.is_contiguous():
                return linear(args[0], args[1].mT)
        return function(*args, **(kwargs or {}))


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def onednn_is_faster() -> bool:
    """Than what PyTorch uses for float32 on this CPU; False where it has no oneDNN, or its user has switched that off."""
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    if not torch.backends.mkldnn.enabled:
        return False
    x, weight = torch.ones(197, 768), torch.ones(768, 768)
    return seconds(lambda: onednn_linear(x, weight)) < seconds(lambda: F.linear(x, weight))


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
