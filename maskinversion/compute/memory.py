"""Whether there is room in the machine's memory: where it is overdrawn, systems end a process without a word."""

import ctypes
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import MemoryLimitError

# Of a container, by both versions of Linux's control groups: its limit, what is used, and what of that is cached files.
GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
GB = 1e9
LITTLE = 2**24  # bytes that are not asked for: the system takes 0.7 ms to answer, as long as it takes to read such a mask


def check_room(size: int, what: str, advice: str, device: torch.device | None = None) -> None:
    """Raises MemoryLimitError where `size` bytes more are not there, on the CPU, if they are more than LITTLE. Other devices say so
    themselves in time."""
    asked = size > LITTLE and (device is None or device.type == "cpu")
    room = free_bytes() if asked else None
    if room is not None and size > room:
        raise MemoryLimitError(
            f"there is not enough memory for {what}, which would take {size / GB:.1f} GB of the {room / GB:.1f} GB that are free: "
            f"{advice}"
        )


@dataclass(frozen=True)
class DeviceMemory:
    """Of a GPU, in bytes: what is free for this process, and all that there is."""

    free: int
    total: int


def device_memory(device: torch.device) -> DeviceMemory | None:
    """Of a device that is not the CPU; None where PyTorch does not say."""
    library: Any = getattr(torch, device.type, None)
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return DeviceMemory(max(0, total - torch.mps.driver_allocated_memory()), total)
    if not hasattr(library, "mem_get_info"):
        return None
    free, total = library.mem_get_info(device)
    unused = library.memory_reserved(device) - library.memory_allocated(device)  # which PyTorch keeps for its next tensors
    return DeviceMemory(free + unused, total)


def free_bytes() -> int | None:
    """Memory that this process may still take, swap included; None where the system does not say."""
    if sys.platform == "win32":
        return free_on_windows()
    limits = []
    with suppress(OSError, KeyError, ValueError, IndexError):
        told = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
        limits.append(told["MemAvailable"] + told["SwapFree"])
    for folder, limit, used, cached in GROUPS:
        with suppress(OSError, KeyError, ValueError):
            kinds = dict(line.split() for line in Path(folder, "memory.stat").read_text().splitlines())
            most, now = (int(Path(folder, name).read_text()) for name in (limit, used))
            limits.append(most - now + int(kinds[cached]))
    if not limits:
        with suppress(OSError, ValueError):
            limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))  # all that there is
    return min(limits, default=None)


def free_on_windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong), *((name, ctypes.c_ulonglong) for name in NUMBERS)]

    status = Status(length=ctypes.sizeof(Status))
    kernel = vars(ctypes)["windll"].kernel32  # which other systems, and type checkers there, do not know
    asked = kernel.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.page_free) if asked else None


NUMBERS = ("all", "free", "page_all", "page_free", "virtual_all", "virtual_free", "extended_free")  # of Windows' MEMORYSTATUSEX
