"""How a classifier of regions is trained. It stands by itself, so that it can be listed without torch."""

import math
from dataclasses import dataclass
from numbers import Integral

from ..errors import InputError
from ..settings import make_plain, setting

METHODS = ("lare", "probe")
PRIORS = ("texts", "none")
LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier of regions is trained, see `classifier.train`.

    method: `lare`, on points of a learnt box around every token; or `probe`, on the tokens themselves.
    prior: what a class is held to be before its examples are seen: its `texts`, as in zero-shot classification; or `none`.
    decay: how firmly; the weight of the squared distance of the classifier's weights from the prior's. The fewer the examples, the
        more it does.
    points: of every box, that the classifier is trained on.
    reach: how far a box can go from its token in every dimension, in units of 1 / sqrt(D), the root mean square of the numbers of
        a unit token.
    size: the weight of the boxes' size against the texts' opinion of what is in them.
    steps, lr: of AdamW, for the boxes.
    seed: of the boxes' first weights and of all points.

    Raises InputError for a value that cannot be used.
    """

    method: str = setting("lare", "lare: on points of a learnt box around each token; probe: on the tokens themselves", METHODS)
    prior: str = setting("texts", "what a class is before its examples are seen", PRIORS)
    decay: float = setting(0.1, "how firmly the prior holds")
    points: int = setting(8, "of lare: points drawn from each box")
    reach: float = setting(2.0, "of lare: how far a box can go from its token, in 1 / sqrt(numbers of a token)")
    size: float = setting(0.03, "of lare: weight of the boxes' size against their class")
    steps: int = setting(200, "of lare: steps for the boxes")
    lr: float = setting(0.003, "of lare: learning rate for the boxes")
    seed: int = setting(0, "of lare: the same seed gives the same classifier")

    def __post_init__(self):
        for what, known in (("method", METHODS), ("prior", PRIORS)):
            if getattr(self, what) not in known:
                raise InputError(f"{what} is {getattr(self, what)!r}; it must be one of {', '.join(known)}")
        for what in ("points", "steps"):
            if not isinstance(getattr(self, what), Integral) or getattr(self, what) < 1:
                raise InputError(f"{what} is {getattr(self, what)}; it must be a whole number of at least 1")
        for what in ("decay", "reach", "lr"):
            if not 0 < getattr(self, what) < math.inf:
                raise InputError(f"{what} is {getattr(self, what)}; it must be above 0")
        if not 0 <= self.size < math.inf:
            raise InputError(f"size is {self.size}; it must not be negative")
        if not isinstance(self.seed, Integral) or not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(f"seed is {self.seed}; it must be a whole number from 0 to {LARGEST_SEED}")
        make_plain(self)
