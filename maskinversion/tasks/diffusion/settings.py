"""How pictures are made from tokens. It stands by itself, so that it can be listed without torch."""

from dataclasses import dataclass
from math import inf
from numbers import Integral

from ...errors import InputError


@dataclass(frozen=True)
class Settings:
    """What all pipelines share. width, height: None is the pipeline's own size; for inpainting, the picture's shape at no more
    pixels than that.
    count: pictures for each token; the k-th of all has the seed seed + k, whatever the others are. prompt, negative_prompt: for
    those that read text. adapter_scale: for IP-Adapter.
    """

    steps: int = 30
    guidance: float = 4.0
    width: int | None = None
    height: int | None = None
    count: int = 1
    seed: int = 0
    prompt: str = ""
    negative_prompt: str = ""
    adapter_scale: float = 1.0

    def __post_init__(self):
        for what in ("steps", "count"):
            if not isinstance(getattr(self, what), Integral) or getattr(self, what) < 1:
                raise InputError(f"{what} is {getattr(self, what)}; it must be a whole number of at least 1")
        if not 0 <= self.guidance < inf:
            raise InputError(f"guidance is {self.guidance}; it must not be negative")
        if not -inf < self.adapter_scale < inf:
            raise InputError(f"adapter_scale is {self.adapter_scale}; it must be a number, such as 1")
