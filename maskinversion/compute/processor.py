"""What the processor is and can do, as it says itself: a choice by it is the same in every process, as one by the clock is not."""

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

TOLD = ("vendor_id", "flags", "Features")  # of /proc/cpuinfo; the last on ARM
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


def has_bfloat16(device: torch.device) -> bool:
    """Whether it has arithmetic of its own for bfloat16: without, products take several times as long as those in float32."""
    if device.type == "cpu":
        return not words().isdisjoint(BFLOAT16)
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "xpu"
