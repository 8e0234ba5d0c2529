"""Linearised steps of a computation that treats every token by itself: each knows its derivative and the transpose of it.

`push` takes a change of a step's input to the change of its output (forward mode), `pull` takes a gradient with respect to
its output to one with respect to its input (reverse mode). All of it is plain products, so it works under inference mode.
Tensors are [..., N, width].
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Piece(Protocol):
    def push(self, change: Tensor) -> Tensor: ...

    def pull(self, gradient: Tensor) -> Tensor: ...


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

    def push(self, change: Tensor) -> Tensor:
        return change @ self.weight.T

    def pull(self, gradient: Tensor) -> Tensor:
        return gradient @ self.weight


@dataclass(frozen=True)
class Slope:
    """An element-wise function whose derivative at its input is `slope` [N, width] or [width]."""

    slope: Tensor

    def push(self, change: Tensor) -> Tensor:
        return change * self.slope

    pull = push


@dataclass(frozen=True)
class NormSlope:
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


class AddHalves:
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

    def push(self, change: Tensor) -> Tensor:
        return change + push_through(self.pieces, change)

    def pull(self, gradient: Tensor) -> Tensor:
        return gradient + pull_through(self.pieces, gradient)
