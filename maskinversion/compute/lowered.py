"""Numbers of a lower precision, for products.

bfloat16 has the range of float32. float16 ends at 65504 and begins at 6e-8, so it gets numbers as shares of the largest of them:
sums of a million products of such numbers cannot overflow, and what is lost is small beside what is not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

HEADROOM = 4  # times smaller than 1


@dataclass(frozen=True)
class Lowered:
    """What stands for numbers * scale. scale: None for 1."""

    numbers: Tensor
    scale: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, dtype: torch.dtype, dims: int | tuple[int, ...], out: Tensor | None = None) -> "Lowered":
        """x at this precision. dims: those with a scale in common, of which `scale` keeps one number each. out: memory for it."""
        if dtype != torch.float16:
            return cls(x.to(dtype) if out is None else out.copy_(x))
        largest = torch.linalg.vector_norm(x, torch.inf, dims, keepdim=True)
        scale = largest.clamp_min_(torch.finfo(x.dtype).tiny).mul_(HEADROOM)
        return cls(torch.div(x, scale, out=torch.empty_like(x, dtype=dtype) if out is None else out), scale)


def scaled(product: Tensor, *scales: Tensor | None) -> Tensor:
    """A product of lowered numbers by their scales, in its own place."""
    for scale in scales:
        if scale is not None:
            product *= scale
    return product
