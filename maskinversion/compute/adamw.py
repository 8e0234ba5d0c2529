"""The optimiser, on one tensor."""

import torch
from torch import Tensor


class AdamW:
    """torch.optim.AdamW without weight decay, without its machinery: it works under inference mode.

    Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv 1711.05101). parameter [...] is changed in place.
    """

    def __init__(self, parameter: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.parameter, self.lr, self.betas, self.eps = parameter, lr, betas, eps
        self.steps = 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    def step(self, gradient: Tensor) -> None:
        self.steps += 1
        self.mean.lerp_(gradient, 1 - self.betas[0])
        self.square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        first, second = (1 - beta**self.steps for beta in self.betas)
        self.parameter.addcdiv_(self.mean, (self.square.sqrt() / second**0.5).add_(self.eps), value=-self.lr / first)

    def rest(self, rows: Tensor) -> None:
        """Where this [M] is true a parameter [M, ...] stays as it is, from now on, as long as its gradients there are 0."""
        self.mean[rows] = 0
