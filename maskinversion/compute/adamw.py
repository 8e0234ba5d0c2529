"""The optimiser, on one tensor."""

import torch
from torch import Tensor

BETAS, EPS = (0.9, 0.999), 1e-8  # as in torch.optim


class AdamW:
    """torch.optim.AdamW without weight decay, without its machinery: it works under inference mode.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101). parameter [...] is changed in place.
    """

    def __init__(self, parameter: Tensor, lr: float):
        self.parameter, self.lr = parameter, lr
        self.steps = 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        first, second = (1 - beta**self.steps for beta in BETAS)
        self.parameter.addcdiv_(self.mean, (self.square.sqrt() / second**0.5).add_(EPS), value=-self.lr / first)

    def rest(self, rows: Tensor) -> None:
        """Where this [M] is true a parameter [M, ...] stays as it is, from now on, as long as its gradients there are 0."""
        self.mean[rows] = 0
