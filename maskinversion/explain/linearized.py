"""Linearised layers of a computation that treats every token by itself.

Each has its Jacobian-vector product, `jvp`, which takes a change of the input to the change of the output, and its vector-Jacobian
product, `vjp`, which takes a gradient with respect to the output to one with respect to the input. All of it is plain products, so
it works under inference mode. Tensors are [..., N, width]; of B pictures that are joined, [B, M, N, width].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..compute.lowered import Lowered, scaled
from ..compute.matmul import linear

Layer = TypeVar("Layer", bound="LinearizedLayer")


class LinearizedLayer(ABC):
    """The derivative of a layer at its input; of one without matrix products where nothing else is said."""

    @property
    def macs(self) -> int:
        """Multiply-adds of matrix products per token, for either direction."""
        return 0

    @abstractmethod
    def jvp(self, change: Tensor) -> Tensor: ...

    @abstractmethod
    def vjp(self, gradient: Tensor) -> Tensor: ...

    def at_precision(self, dtype: torch.dtype) -> "LinearizedLayer":
        """The same with its matrix products at another precision."""
        return self

    def joined(self: Layer, others: Sequence[Layer]) -> Layer | None:
        """This layer and those of other pictures as one; None where they are not of one layer of one model."""
        return self


def same_weight(tensors: Sequence[Tensor]) -> bool:
    """Whether they are one weight: the same numbers in the same place, or copies of them."""
    first = tensors[0]
    return all(
        one is first
        or (
            (one.shape, one.dtype, one.device) == (first.shape, first.dtype, first.device)
            and ((one.data_ptr(), one.stride()) == (first.data_ptr(), first.stride()) or torch.equal(one, first))
        )
        for one in tensors
    )


def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """[B, 1, N, width] of what each of B pictures has [N, width], or fewer dimensions."""
    return torch.stack(list(tensors)).unflatten(0, (-1, *[1] * (3 - tensors[0].ndim)))


def chain_joined(chains: Sequence[Sequence[LinearizedLayer]]) -> Sequence[LinearizedLayer] | None:
    """The chains of several pictures as one; None where they are not of one block of one model."""
    found = []
    for layers in zip(*chains, strict=True):
        layer = None if any(type(one) is not type(layers[0]) for one in layers) else layers[0].joined(layers[1:])
        if layer is None:
            return None
        found.append(layer)
    return found


def chain_jvp(chain: Sequence[LinearizedLayer], change: Tensor) -> Tensor:
    for layer in chain:
        change = layer.jvp(change)
    return change


def chain_vjp(chain: Sequence[LinearizedLayer], gradient: Tensor) -> Tensor:
    for layer in reversed(chain):
        gradient = layer.vjp(gradient)
    return gradient


@dataclass(frozen=True)
class Linear(LinearizedLayer):
    """y = x W^T + b, with W [out, in]. scale: of a lowered weight."""

    weight: Tensor
    scale: Tensor | None = None

    @property
    def macs(self) -> int:
        return self.weight.numel()

    def jvp(self, change: Tensor) -> Tensor:
        low = Lowered.of(change, self.weight.dtype, -1)
        return scaled(linear(low.numbers, self.weight).to(change.dtype), low.scale, self.scale)

    def vjp(self, gradient: Tensor) -> Tensor:
        low = Lowered.of(gradient, self.weight.dtype, -1)
        return scaled((low.numbers @ self.weight).to(gradient.dtype), low.scale, self.scale)

    def at_precision(self, dtype: torch.dtype) -> "Linear":
        low = Lowered.of(self.weight, dtype, (-2, -1))
        return Linear(low.numbers, low.scale)

    def joined(self, others: Sequence["Linear"]) -> "Linear | None":
        return self if same_weight([self.weight, *(one.weight for one in others)]) else None


@dataclass(frozen=True)
class Slope(LinearizedLayer):
    """An element-wise function whose derivative at its input is `slope` [N, width] or [width]."""

    slope: Tensor

    def jvp(self, change: Tensor) -> Tensor:
        return change * self.slope

    def vjp(self, gradient: Tensor) -> Tensor:
        return gradient * self.slope

    def joined(self, others: Sequence["Slope"]) -> "Slope":
        return Slope(side_by_side([self.slope, *(one.slope for one in others)]))


@dataclass(frozen=True)
class NormSlope(LinearizedLayer):
    """A layer norm at an input whose normalised form is `normal` [N, width], and 1 / standard deviation `inverse` [N, 1]."""

    weight: Tensor
    normal: Tensor
    inverse: Tensor

    def _centre(self, x: Tensor) -> Tensor:
        return self.inverse * (x - x.mean(-1, keepdim=True) - self.normal * (x * self.normal).mean(-1, keepdim=True))

    def jvp(self, change: Tensor) -> Tensor:
        return self._centre(change) * self.weight

    def vjp(self, gradient: Tensor) -> Tensor:
        return self._centre(gradient * self.weight)

    def joined(self, others: Sequence["NormSlope"]) -> "NormSlope | None":
        every = [self, *others]
        if not same_weight([one.weight for one in every]):
            return None
        normal, inverse = (side_by_side([getattr(one, name) for one in every]) for name in ("normal", "inverse"))
        return NormSlope(self.weight, normal, inverse)


@dataclass(frozen=True)
class CosineSlope(LinearizedLayer):
    """f / |f| at an f of direction `unit` [D] and length `length` [1]: for a fixed e, cos(e, f) has the gradient
    (e - (e . unit) unit) / length there."""

    unit: Tensor
    length: Tensor

    @classmethod
    def at(cls, feature: Tensor) -> "CosineSlope":
        """At f = feature [D]."""
        length = feature.norm(dim=0, keepdim=True)
        return cls(feature / length, length)

    def jvp(self, change: Tensor) -> Tensor:
        return (change - (change * self.unit).sum(-1, keepdim=True) * self.unit) / self.length

    def vjp(self, gradient: Tensor) -> Tensor:
        return self.jvp(gradient)

    def joined(self, others: Sequence["CosineSlope"]) -> "CosineSlope":
        every = [self, *others]
        return CosineSlope(side_by_side([one.unit for one in every]), side_by_side([one.length for one in every]))


class AddHalves(LinearizedLayer):
    """y = the sum of the first and the second half of x: after a slope, the derivative of a product of the halves."""

    def jvp(self, change: Tensor) -> Tensor:
        first, second = change.chunk(2, -1)
        return first + second

    def vjp(self, gradient: Tensor) -> Tensor:
        return torch.cat([gradient, gradient], -1)


@dataclass(frozen=True)
class Residual(LinearizedLayer):
    """y = x + chain(x)."""

    chain: Sequence[LinearizedLayer]

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.chain)

    def jvp(self, change: Tensor) -> Tensor:
        return change + chain_jvp(self.chain, change)

    def vjp(self, gradient: Tensor) -> Tensor:
        return gradient + chain_vjp(self.chain, gradient)

    def at_precision(self, dtype: torch.dtype) -> "Residual":
        return Residual([layer.at_precision(dtype) for layer in self.chain])

    def joined(self, others: Sequence["Residual"]) -> "Residual | None":
        chain = chain_joined([self.chain, *(one.chain for one in others)])
        return None if chain is None else Residual(chain)


def value_and_slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An element-wise function and its derivative, any one: the only derivative that is left to autograd.

    Forward-mode differentiation needs no graph, but takes half a second to start.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        value = activation(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope
