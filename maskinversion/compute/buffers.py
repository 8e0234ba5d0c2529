"""Where an inversion works: in memory that is used again, for as many masks at a time as fit."""

import math

import torch
from torch import Tensor


class Buffers:
    """The memory of one inversion: masks are worked on in chunks below `wide` bytes, and those in parts below `narrow`.

    A processor's parts stay in its cache. Arrays are used again at every step: new pages from the system take as long as the
    arithmetic.
    """

    def __init__(self, device: torch.device, wide: int, narrow: int):
        self.device, self.wide, self.narrow = device, wide, narrow
        self.rooms: dict[tuple[str, int], Tensor] = {}

    @classmethod
    def of(cls, device: torch.device) -> "Buffers":
        return cls(device, 32 * 2**20, 8 * 2**20) if device.type == "cpu" else cls(device, 128 * 2**20, 128 * 2**20)

    def array(self, name: str, *shape: int, dtype: torch.dtype, of: object = None) -> Tensor:
        """An array whose contents last until the next one of this name, of this object if one is given, is asked for."""
        room, size = (name, id(of)), math.prod(shape) * dtype.itemsize
        if room not in self.rooms or len(self.rooms[room]) < size:
            self.rooms[room] = torch.empty(size, dtype=torch.uint8, device=self.device)
        return self.rooms[room][:size].view(dtype).view(shape)


def sliced(whole: slice, size: int) -> list[slice]:
    """A slice in consecutive ones of at most `size`, or of 1."""
    size = max(1, size)
    return [slice(i, min(i + size, whole.stop)) for i in range(whole.start, whole.stop, size)]
