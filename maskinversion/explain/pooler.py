"""The map of models that pool with attention."""

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from ..compute.buffers import Buffers
from .base import LayerMap
from .linearized import Linear, LinearizedLayer, chain_jvp, chain_vjp


class PoolerMap(LayerMap):
    """The map of a model that pools with attention: the gradient with respect to the pooler's one row of attention.

    relevance[j] = mean over heads of max(dscore/dA_h[j], 0)

    values [N, h, d_h]: the rows that the pooler mixes. chain: from its one row of concatenated heads [1, h * d_h] to what meets
    the unit token in the score, [1, width]. Cotangents are [M, h, d_h].
    """

    per_picture = ("values",)

    def __init__(self, values: Tensor, chain: Sequence[LinearizedLayer], width: int, prefix: int):
        self.values = values[prefix:].transpose(0, 1).contiguous()  # [h, P, d_h]
        self.heads, _, self.head_width = self.values.shape
        self.chain, self.width = chain, width
        self.setup_macs = 0
        self.cotangent_bytes = 8 * values[0].numel() * values.element_size()
        self.relevance_bytes = 2 * self.values.shape[0] * self.values.shape[1] * values.element_size()
        self.buffers = Buffers.of(values.device)

    @property
    def cotangent_macs(self) -> int:
        return sum(layer.macs for layer in self.chain)

    @property
    def step_macs(self) -> int:
        return 2 * (self.cotangent_macs + self.values.numel())

    @property
    def multiplying_out_macs(self) -> int:
        return self.width * self.cotangent_macs

    def worth_multiplying_out(self, masks: int, iterations: int) -> bool:
        """Whether one matrix in place of the chain saves more operations than it takes to form."""
        matrix = self.width * self.heads * self.head_width
        return self.multiplying_out_macs < 2 * iterations * masks * (self.cotangent_macs - matrix)

    def multiplied_out(self) -> "PoolerMap":
        """The same map with its chain as one matrix."""
        form = copy(self)
        form.chain = [Linear(self.cotangents(torch.eye(self.width).to(self.values)).flatten(1))]
        form.setup_macs += self.multiplying_out_macs
        return form

    def cotangent_buffer(self, *masks: int) -> Tensor:
        return self.values.new_empty(*masks, self.heads, self.head_width)

    def cotangents(self, unit: Tensor) -> Tensor:
        return chain_vjp(self.chain, unit[..., None, :])[..., 0, :].unflatten(-1, (self.heads, self.head_width))

    def relevance(self, cotangents: Tensor) -> tuple[Tensor, Tensor]:
        rectified = (cotangents.transpose(-3, -2) @ self.values.mT).relu_()  # [h, M, P]
        return rectified.mean(-3), rectified

    def relevance_vjp(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        return (rectified.sign_().mul_(gradient[..., None, :, :] / self.heads) @ self.values).transpose(-3, -2)

    def cotangents_vjp(self, gradient: Tensor) -> Tensor:
        return chain_jvp(self.chain, gradient.flatten(-2)[..., None, :])[..., 0, :]
