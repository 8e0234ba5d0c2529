"""Linearised steps of a computation that treats every token by itself: each knows its derivative and the transpose of it.

`push` takes a change of a step's input to the change of its output (forward mode), `pull` takes a gradient with respect to
its output to one with respect to its input (reverse mode). All of it is plain products, so it works under inference mode.
Tensors are [..., N, width].
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .products import linear


class Piece(Protocol):
    products: int  # multiply-adds of matrix products per token, for either direction

    def push(self, change: Tensor) -> Tensor: ...

    def pull(self, gradient: Tensor) -> Tensor: ...

    def lowered(self, dtype: torch.dtype) -> "Piece":
        """The same with its matrix products at another precision."""
        ...


def push_through(pieces: list[Piece], change: Tensor) -> Tensor:
    for piece in pieces:
        change = piece.push(change)
    return change


def pull_through(pieces: list[Piece], gradient: Tensor) -> Tensor:
    for piece in reversed(pieces):
        gradient = piece.pull(gradient)
    return gradient


@dataclass(frozen=True)
class Linear:
    """y = x W^T + b, with W [out, in]."""

    weight: Tensor

    @property
    def products(self) -> int:
        return self.weight.numel()

    def push(self, change: Tensor) -> Tensor:
        return linear(change.to(self.weight.dtype), self.weight).to(change.dtype)

    def pull(self, gradient: Tensor) -> Tensor:
        return (gradient.to(self.weight.dtype) @ self.weight).to(gradient.dtype)

    def lowered(self, dtype: torch.dtype) -> "Linear":
        return Linear(self.weight.to(dtype))


class WithoutProducts:
    """A piece that has no matrix product."""

    products = 0

    def lowered(self, dtype: torch.dtype) -> "Piece":
        return self


@dataclass(frozen=True)
class Slope(WithoutProducts):
    """An element-wise function whose derivative at its input is `slope` [N, width] or [width]."""

    slope: Tensor

    def push(self, change: Tensor) -> Tensor:
        return change * self.slope

    pull = push


@dataclass(frozen=True)
class NormSlope(WithoutProducts):
    """A layer norm at an input whose normalised form is `normal` [N, width], and 1 / standard deviation `inverse` [N, 1]."""

    weight: Tensor
    normal: Tensor
    inverse: Tensor

    def _centre(self, x: Tensor) -> Tensor:
        return self.inverse * (x - x.mean(-1, keepdim=True) - self.normal * (x * self.normal).mean(-1, keepdim=True))

    def push(self, change: Tensor) -> Tensor:
        return self._centre(change) * self.weight

    def pull(self, gradient: Tensor) -> Tensor:
        return self._centre(gradient * self.weight)


class AddHalves(WithoutProducts):
    """y = the sum of the first and the second half of x: after a slope, the derivative of a product of the halves."""

    def push(self, change: Tensor) -> Tensor:
        first, second = change.chunk(2, -1)
        return first + second

    def pull(self, gradient: Tensor) -> Tensor:
        return torch.cat([gradient, gradient], -1)


@dataclass(frozen=True)
class Residual:
    """y = x + the pieces of x."""

    pieces: list[Piece]

    @property
    def products(self) -> int:
        return sum(piece.products for piece in self.pieces)

    def push(self, change: Tensor) -> Tensor:
        return change + push_through(self.pieces, change)

    def pull(self, gradient: Tensor) -> Tensor:
        return gradient + pull_through(self.pieces, gradient)

    def lowered(self, dtype: torch.dtype) -> "Residual":
        return Residual([piece.lowered(dtype) for piece in self.pieces])
