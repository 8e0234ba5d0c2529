"""What the processor is and can do, as it says itself: a choice by it is the same in every process, as one by the clock is not."""

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

TOLD = ("vendor_id", "flags", "Features")  # of /proc/cpuinfo; the last on ARM
TENSOR_CORES = (7, 0)  # NVIDIA's compute capability from which on there are some, for float16
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")  # instructions for products; the last on ARM


@cache
def words() -> frozenset[str]:
    """Its maker, and the instructions that it has, as far as the system says."""
    found: set[str] = set()
    if sys.platform == "win32":
        found.update(os.environ.get("PROCESSOR_IDENTIFIER", "").replace(",", " ").split())
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in TOLD:
                found.update(value.split())
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return frozenset(found | {name for name, there in capabilities.items() if there is True})


def is_amd() -> bool:
    return not words().isdisjoint(("AuthenticAMD", "HygonGenuine"))


def has_bfloat16() -> bool:
    """Whether the processor has arithmetic of its own for bfloat16: without, products take several times as long as in float32."""
    return not words().isdisjoint(BFLOAT16)


def low_precision(device: torch.device) -> torch.dtype | None:
    """In which products are much faster than in float32; None for none. GPUs that are as fast in bfloat16 as in float16 get the
    latter, which has eight times as fine digits."""
    if device.type == "cpu":
        return torch.bfloat16 if has_bfloat16() else None
    if device.type == "cuda":
        return torch.float16 if torch.version.hip or torch.cuda.get_device_capability(device) >= TENSOR_CORES else None
    return torch.float16 if device.type == "xpu" else None
