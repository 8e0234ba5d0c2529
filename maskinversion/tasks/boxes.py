"""Regions in the space of embeddings: around every token a box, as large as its class allows.

Stage 1 of LARE (Sakurai et al., "Latent Augmentation using Regional Embedding with Vision-Language Model", arXiv 2409.12597): a
small network f: R^D -> R^2D gives the lower and the upper corner of a box that holds the embedding. It is trained so that points of
the box keep the class of the embedding, as the frozen embeddings of the classes' texts see it, while the box is large.

The weights of the paper's losses, and the shape of its network, could not be read. What was chosen here:

- Tokens are divided by their length first, and so are points of a box before they are compared with anything: a CLIP compares
  directions. So distances count in 1 / sqrt(D), the root mean square of the numbers of a unit token.
- The network has one hidden layer of D numbers, with tanh. A corner is the token less (plus) `reach` times a sigmoid of what the
  network says: the token is always in its box, and the box is bounded. (Without a bound it would grow without end in the direction
  of the class's text, since directions do not change when all is scaled.)
- The loss is the cross-entropy of one point, drawn uniformly from each box anew at every step, over the texts, at the temperature
  of the CLIP; less `size` times the mean logarithm of the sides, as parts of the longest that there can be.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from .classifier_settings import TrainingSettings

FIRST_SIDE = -2.0  # of boxes before any training: the sigmoid of this, of the longest there can be


@dataclass(frozen=True)
class BoxNetwork:
    """f. hidden [D, D], hidden_bias [D], corners [2D, D], corners_bias [2D]; reach: in units of 1 / sqrt(D)."""

    hidden: Tensor
    hidden_bias: Tensor
    corners: Tensor
    corners_bias: Tensor
    reach: float

    @property
    def weights(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "reach"}

    def to(self, like: Tensor) -> "BoxNetwork":
        """On the device and of the dtype of a tensor."""
        return BoxNetwork(**{name: weight.to(like) for name, weight in self.weights.items()}, reach=self.reach)

    def sides(self, units: Tensor) -> Tensor:
        """How far each box goes below and above its unit token [M, D], in every dimension, as parts of `reach`: [M, 2, D]."""
        hidden = torch.tanh(F.linear(math.sqrt(units.shape[1]) * units, self.hidden, self.hidden_bias))
        return F.linear(hidden, self.corners, self.corners_bias).sigmoid().unflatten(1, (2, -1))

    def points(self, units: Tensor, places: Tensor) -> Tensor:
        """Unit vectors [K, M, D] in the boxes of unit tokens [M, D]. places [K, M, D]: 0..1 from lower to upper corner."""
        below, above = self.sides(units).unbind(1)
        away = torch.lerp(-below, above, places) * (self.reach / math.sqrt(units.shape[1]))
        return F.normalize(units + away, dim=-1)

    def box(self, units: Tensor) -> tuple[Tensor, Tensor]:
        """The lower and upper corners [M, D] of the boxes of unit tokens [M, D]."""
        below, above = (self.sides(units) * (self.reach / math.sqrt(units.shape[1]))).unbind(1)
        return units - below, units + above


def learn_boxes(
    units: Tensor,
    labels: Tensor,
    shares: Tensor,
    texts: Tensor,
    scale: float,
    settings: TrainingSettings,
    generator: torch.Generator,
) -> BoxNetwork:
    """units [N, D], labels [N]: the tokens and which of the unit texts [C, D] each of them is. shares [N]: how much each of them
    counts, 1 in all. scale: what the CLIP multiplies cosines with."""
    width = units.shape[1]

    def normal(rows: int, deviation: float) -> Tensor:
        drawn = torch.randn(rows, width, generator=generator, dtype=torch.float32, device=generator.device)
        return (deviation * drawn).to(units).requires_grad_()

    hidden, corners = normal(width, 1 / math.sqrt(width)), normal(2 * width, 0.1 / math.sqrt(width))
    hidden_bias = units.new_zeros(width).requires_grad_()
    corners_bias = units.new_full((2 * width,), FIRST_SIDE).requires_grad_()
    network = BoxNetwork(hidden, hidden_bias, corners, corners_bias, settings.reach)
    optimiser = torch.optim.AdamW(list(network.weights.values()), lr=settings.lr)
    for _ in range(settings.steps):
        places = uniform(units.shape, generator).to(units)
        points = network.points(units, places[None])[0]
        wrong = F.cross_entropy(scale * points @ texts.T, labels, reduction="none")
        small = -network.sides(units).log().mean((1, 2))
        optimiser.zero_grad()
        (shares * (wrong + settings.size * small)).sum().backward()
        optimiser.step()
    return BoxNetwork(**{name: weight.detach() for name, weight in network.weights.items()}, reach=settings.reach)


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Numbers from 0 to 1, the same of a seed whatever the device and the default dtype are."""
    return torch.rand(*shape, generator=generator, dtype=torch.float32, device=generator.device)
