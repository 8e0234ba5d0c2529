"""A classifier of regions that is learnt from tokens with labels, instead of from phrases alone.

LARE (arXiv 2409.12597), see `boxes`, or its simple alternative, a linear probe. Both are one linear layer on unit tokens, and the
same kind of file. The layer is the one with the smallest cross-entropy, of tokens (probe) or of tokens and points of their boxes
(lare), plus `decay` times its squared distance from the prior: for the prior `texts` the layer that zero-shot classification is.
Its weights count in the CLIP's temperature, so that `decay` means the same for every CLIP. Every class counts the same, however
many examples it has, and the layer has no bias, which a few examples would misjudge. There is one such layer; L-BFGS finds it,
without a step size to choose or an end to guess.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from reprlib import repr as shown

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError, memory_advice
from ..identity import check_made_for, check_made_with
from ..models.clip import Clip, check_text
from ..operations import changed, embeddings_of, lengths, stack, taken
from ..tokens import LocalizedTokens, Sets
from .boxes import BoxNetwork, learn_boxes, uniform
from .classifier_settings import TrainingSettings
from .classify import Classification
from .phrases import CLASS_TEMPLATE
from .texts import text_embeddings

ITERATIONS = 500  # of L-BFGS at most
HISTORY = 20


@dataclass(frozen=True)
class RegionClassifier:
    """What `train` returns.

    names: of the C classes. weight [C, D]: of the linear layer on unit tokens. boxes: None for a probe.
    clip, fingerprint: of the CLIP whose tokens it is for. parameters: how it was trained, and on how many examples of each class.
    """

    names: tuple[str, ...]
    weight: Tensor
    boxes: BoxNetwork | None
    clip: str
    fingerprint: str
    parameters: dict

    def check(self, tokens: Sets) -> None:
        """Raises InputError for tokens of another CLIP, naming both."""
        check_made_for(tokens, "this classifier", self.weight.shape[1], self.fingerprint, self.clip)

    def scores(self, embeddings: Tensor) -> Tensor:
        """The numbers [M, C] whose softmax are the probabilities of the classes, for embeddings [M, D]."""
        return F.linear(embeddings / lengths(embeddings), self.weight.to(embeddings))

    def classify(self, tokens: Sets) -> Classification:
        """Of all M tokens; its `similarities` are `scores` here. Raises InputError for tokens of another CLIP."""
        self.check(tokens)
        scores = self.scores(embeddings_of(tokens))
        return Classification(list(self.names), scores, scores.softmax(-1))

    def sample(self, tokens: Sets, count: int = 4, seed: int = 0) -> list[LocalizedTokens]:
        """`count` points of the box of every token, as tokens of its length; the same seed gives the same on every device.

        Raises InputError for a probe, which has no boxes, a count below 1, and tokens of another CLIP.
        """
        if self.boxes is None:
            raise InputError("this classifier is a linear probe, which has no boxes to draw from: train one by lare")
        if count < 1:
            raise InputError(f"count is {count}; it must be at least 1")
        tokens = stack(tokens)
        self.check(tokens)
        boxes, generator = self.boxes.to(tokens[0].embeddings), torch.Generator().manual_seed(seed)
        repeated = [taken(one, [index for index in range(len(one)) for _ in range(count)]) for one in tokens]
        places = [uniform(one.embeddings.shape, generator) for one in repeated]

        def drawn(own: Tensor, where: Tensor) -> Tensor:
            length = lengths(own)
            return boxes.points(own / length, where[None])[0] * length

        return changed(repeated, places, drawn, {"box": list(self.names), "seed": seed})


@settled()
def train(
    tokens: Sets,
    labels: Sequence[str],
    clip: Clip,
    settings: TrainingSettings | None = None,
    template: str | Sequence[str] = CLASS_TEMPLATE,
) -> RegionClassifier:
    """Learn from tokens, M in all, with a label each; tokens whose label is empty are left out.

    clip: the one that made the tokens. template: what a label is put into, see `classify`. The same input gives the same
    classifier; torch's own random numbers are left alone. Raises InputError for tokens of another CLIP, another number of labels
    than tokens, and fewer than two classes; MemoryLimitError when it does not fit.
    """
    settings = settings or TrainingSettings()
    tokens = stack(tokens)
    check_made_with(tokens, clip, "give the CLIP that made them")
    total = sum(map(len, tokens))
    labels = [label.strip() for label in labels]
    while len(labels) > total and not labels[-1]:
        labels.pop()  # what follows the last line break
    if len(labels) != total:
        raise InputError(f"there are {total} tokens and {len(labels)} labels: give one label for each, in the same order")
    names = tuple(sorted({label for label in labels if label}))
    for name in names:
        check_name(name)
    if len(names) < 2:
        given = f"only of {names[0]!r}" if names else "of no class"
        raise InputError(f"the labels give examples {given}: give some of two classes at least")
    templates = [template] if isinstance(template, str) else template
    with torch.inference_mode(False), torch.enable_grad(), memory_advice("this training", "take fewer points of each box"):
        kept = torch.tensor([index for index, label in enumerate(labels) if label])
        numbers = torch.tensor([names.index(label) for label in labels if label])
        embeddings = embeddings_of(tokens).clone()
        units = (embeddings / lengths(embeddings))[kept.to(embeddings.device)]
        texts = text_embeddings(clip, names, templates).clone().to(units)
        weight, boxes = fit(units, numbers.to(units.device), texts, clip.logit_scale, settings)
    counts = dict(zip(names, numbers.bincount(minlength=len(names)).tolist(), strict=True))
    parameters = asdict(settings) | {"template": list(templates), "examples": counts}
    return RegionClassifier(names, weight, boxes, clip.name, clip.fingerprint, parameters)


def check_name(name: object) -> None:
    """Raises InputError for what no class can be called: it is shown in one line."""
    check_text(name)
    if not isinstance(name, str) or not name.strip() or name != name.strip() or not name.isprintable():
        raise InputError(f"{shown(name)} cannot be the name of a class: it must be a word or more, in one line")


def fit(
    units: Tensor, labels: Tensor, texts: Tensor, scale: float, settings: TrainingSettings
) -> tuple[Tensor, BoxNetwork | None]:
    """The layer's weight [C, D], and the boxes, of unit tokens [N, D] with labels [N] and unit texts [C, D]."""
    shares = 1 / labels.bincount().to(units)[labels]
    shares = shares / shares.sum()
    prior = texts if settings.prior == "texts" else torch.zeros_like(texts)
    boxes, points = None, units[None]
    if settings.method == "lare":
        generator = torch.Generator().manual_seed(settings.seed)
        boxes = learn_boxes(units, labels, shares, texts, scale, settings, generator)
        places = uniform((settings.points, *units.shape), generator).to(units)
        points = torch.cat([points, boxes.points(units, places)])
    count = len(points)
    weight = fit_layer(points.flatten(0, 1), labels.repeat(count), shares.repeat(count) / count, prior, scale, settings.decay)
    return weight, boxes


def fit_layer(points: Tensor, labels: Tensor, shares: Tensor, prior: Tensor, scale: float, decay: float) -> Tensor:
    """weight [C, D] with the smallest sum of shares [P] times cross-entropies of points [P, D], plus `decay` times the squared
    distance of weight / scale from the prior [C, D]."""
    change = torch.zeros_like(prior).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [change], max_iter=ITERATIONS, history_size=HISTORY, tolerance_grad=1e-8, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        optimiser.zero_grad()
        scores = scale * F.linear(points, prior + change)
        found = (shares * F.cross_entropy(scores, labels, reduction="none")).sum() + decay * change.square().sum()
        found.backward()
        return found

    optimiser.step(loss)
    return scale * (prior + change.detach())
