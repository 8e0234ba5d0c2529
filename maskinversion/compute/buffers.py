"""Memory that is used again at every step, and how many masks at a time fit into it."""

import math

import torch
from torch import Tensor

from .memory import DeviceMemory, device_memory

MB = 2**20
WORKING = 8  # as much as a chunk, all that is made of it in a step


class Buffers:
    """The arrays of one inversion, kept from step to step: new pages from the system take as long as the arithmetic.

    chunk_bytes: what the large products may work on at a time. cache_bytes: what the element-wise work on their results may, so
    that it stays in a processor's cache. Both bound how many masks go together. table_bytes: what a TabulatedMap may take.
    """

    def __init__(self, device: torch.device, chunk_bytes: int, cache_bytes: int, table_bytes: int):
        self.device, self.chunk_bytes, self.cache_bytes, self.table_bytes = device, chunk_bytes, cache_bytes, table_bytes
        self.arrays: dict[tuple[str, int], Tensor] = {}

    @classmethod
    def of(cls, device: torch.device) -> "Buffers":
        if device.type == "cpu":
            return cls(device, 32 * MB, 8 * MB, 320 * MB)
        chunk, table = shares(device_memory(device))
        return cls(device, chunk, chunk, table)

    def array(self, name: str, *shape: int, dtype: torch.dtype, of: object = None) -> Tensor:
        """An array whose contents last until the next one of this name, of this object if one is given, is asked for."""
        key, size = (name, id(of)), math.prod(shape) * dtype.itemsize
        if key not in self.arrays or len(self.arrays[key]) < size:
            self.arrays[key] = torch.empty(size, dtype=torch.uint8, device=self.device)
        return self.arrays[key][:size].view(dtype).view(shape)


def shares(memory: DeviceMemory | None) -> tuple[int, int]:
    """What products may work on at a time on a device, and what a table may take, in bytes.

    How many masks go together decides how sums are rounded, so by all its memory, the same at every run; less only where that
    would not go into what is free.
    """
    if memory is None:
        return 128 * MB, 320 * MB
    chunk, table = min(max(memory.total // 64, 64 * MB), 1024 * MB), memory.total // 16
    while chunk > MB and WORKING * chunk > memory.free // 2:
        chunk //= 2
    return chunk, table if table <= memory.free // 4 else 0


def sliced(whole: slice, size: int) -> list[slice]:
    """A slice in consecutive ones of at most `size`, or of 1."""
    size = max(1, size)
    return [slice(i, min(i + size, whole.stop)) for i in range(whole.start, whole.stop, size)]
