"""The map of models that pool with attention."""

from copy import copy

import torch
from torch import Tensor

from ..compute.buffers import Buffers
from .base import LayerMap
from .linearized import Linear, LinearizedLayer, chain_jvp, chain_vjp


class PoolerMap(LayerMap):
    """The map of a model that pools with attention: the gradient with respect to the pooler's one row of attention.

    relevance[j] = mean over heads of max(dscore/dA_h[j], 0)

    values [N, h, d_h]: the rows that the pooler mixes. chain: from its one row of concatenated heads [1, h * d_h] to the
    feature f. slope [D, D]: row i is dscore/df for the i-th unit token, see `cosine_slope`; the score is linear in the token.
    Queries are [M, h, d_h].
    """

    def __init__(self, values: Tensor, chain: list[LinearizedLayer], slope: Tensor, prefix: int):
        self.values = values[prefix:].transpose(0, 1).contiguous()  # [h, P, d_h]
        self.heads, _, self.head_width = self.values.shape
        self.chain = [*chain, Linear(slope)]  # the last: dscore/df of a unit token
        self.width = len(slope)
        self.setup_macs = 0
        self.wide = 8 * values[0].numel() * values.element_size()
        self.narrow = 2 * self.values.shape[0] * self.values.shape[1] * values.element_size()
        self.buffers = Buffers.of(values.device)

    @property
    def cotangent_macs(self) -> int:
        return sum(layer.macs for layer in self.chain)

    @property
    def step_macs(self) -> int:
        return 2 * (self.cotangent_macs + self.values.numel())

    def cheapest(self, masks: int, iterations: int) -> LayerMap:
        """With all chain multiplied out to one matrix, where that saves more than it costs."""
        whole = self.width * self.heads * self.head_width
        forming = self.width * self.cotangent_macs
        if forming >= 2 * iterations * masks * (self.cotangent_macs - whole):
            return self
        folded = copy(self)
        folded.chain = [Linear(self.cotangents(torch.eye(self.width).to(self.values)).flatten(1))]
        folded.setup_macs += forming
        return folded

    def cotangent_buffer(self, masks: int) -> Tensor:
        return self.values.new_empty(masks, self.heads, self.head_width)

    def cotangents(self, direction: Tensor) -> Tensor:
        return chain_vjp(self.chain, direction[:, None])[:, 0].unflatten(-1, (self.heads, self.head_width))

    def relevance(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        rectified = (queries.transpose(0, 1) @ self.values.mT).relu_()  # [h, M, P]
        return rectified.mean(0), rectified

    def relevance_vjp(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        return (rectified.sign_().mul_(gradient / self.heads) @ self.values).transpose(0, 1)

    def cotangents_vjp(self, du: Tensor) -> Tensor:
        return chain_jvp(self.chain, du.flatten(1)[:, None])[:, 0]


def cosine_slope(feature: Tensor) -> Tensor:
    """d/df of cos(e, f) at f [D], for the unit tokens e along each axis: a symmetric matrix [D, D]."""
    length = feature.norm()
    unit = feature / length
    return (torch.eye(len(unit)).to(unit) - torch.outer(unit, unit)) / length
