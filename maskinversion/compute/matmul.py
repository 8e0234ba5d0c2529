"""Which of a CPU's matrix products are used: chosen once, by a rule, since each rounds in its own way.

PyTorch leaves float32 products to the library that it was built with (MKL), and uses the oneDNN that it carries for other
precisions and in compiled models. On AMD's processors oneDNN is the faster one: on a Zen 4, 210 against 160 to 180 GFLOPS for 197
rows, and two times as fast for one to ten. On Intel's neither is: 134 to 164 against 141 to 162 GFLOPS for 197 rows and more on one
core of a Xeon of 2.8 GHz, 0.4 to 0.9 times as fast for one, 1.3 times for eight.

The variable MASKINVERSION_PRODUCTS, `pytorch` or `onednn`, overrules it, to repeat to the bit what another machine computed.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from .processor import has_bfloat16, is_amd

aten = torch.ops.aten

VARIABLE = "MASKINVERSION_PRODUCTS"
LIBRARIES = ("pytorch", "onednn")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., in] @ weight.T + bias, with weight [out, in], without derivatives."""
    if x.device.type == "cpu" and x.dtype == torch.float32 and uses_onednn():
        return onednn_linear(x, weight, bias)
    return F.linear(x, weight, bias)


def fast_linears(device: torch.device) -> AbstractContextManager:
    """Within it, linear layers of any module are computed as `linear` does it; nothing of a module is changed."""
    return FastLinears() if device.type == "cpu" and uses_onednn() else nullcontext()


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


def uses_onednn() -> bool:
    """Not where the user of PyTorch has switched it off."""
    return chosen_library() == "onednn" and bool(torch.backends.mkldnn.enabled)


@cache
def chosen_library() -> str:
    """One of LIBRARIES. Raises InputError for a variable that asks for another, or for one that this PyTorch has not."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    asked = os.environ.get(VARIABLE)
    if asked and asked not in LIBRARIES:
        raise InputError(f"{VARIABLE} is {asked!r}; it must be one of {', '.join(LIBRARIES)}, or not set")
    if asked == "onednn" and not there:
        raise InputError(f"{VARIABLE} asks for onednn, which this PyTorch has not: set it to pytorch")
    return asked or ("onednn" if there and torch.backends.mkl.is_available() and is_amd() else "pytorch")


def arithmetic(device: torch.device) -> dict[str, str | int]:
    """All that decides how results are rounded on a device: with the same of it, the same input gives the same bits."""
    if device.type == "cuda":
        return {"torch": torch.__version__, "processor": torch.cuda.get_device_name(device)}
    if device.type != "cpu":
        return {"torch": torch.__version__, "processor": device.type}
    return {
        "torch": torch.__version__,
        "processor": f"cpu {torch.backends.cpu.get_cpu_capability()}{' bfloat16' if has_bfloat16() else ''}",
        "products": "onednn" if uses_onednn() else "pytorch",
        "threads": torch.get_num_threads(),
    }
