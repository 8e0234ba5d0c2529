"""How every bundled model is trained: the rate, the steps, the log, and what is saved and resumed."""

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from recipes.common.paths import BUILD

log = logging.getLogger(__name__)


class Run:
    """A model in training, with AdamW. It goes on from what an earlier run of this name left in recipes/build.

    args: `steps`, `lr`, `batch` and `bf16`, as `arguments.add_training` reads them.
    start: the weights of the first step, for a run that has left nothing yet; the model's own without.
    groups: of the optimiser; without, everything that learns, with a weight decay of 0.01.
    warm_up, cooldown: over so many first steps the rate rises, and over so many last ones it falls to zero, both linearly.
    every: so many steps a line is logged, and after every fifth of them all is saved.
    average: also keep a moving average of the weights, which is then what `trained` gives.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        name: str,
        model: torch.nn.Module,
        start: dict[str, torch.Tensor] | None = None,
        *,
        groups: list[dict] | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        warm_up: int = 200,
        cooldown: float | None = None,
        every: int = 100,
        average: bool = True,
    ):
        self.args, self.name, self.every, self.warm_up = args, name, every, warm_up
        self.cooldown = 0.3 * args.steps if cooldown is None else cooldown
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).train()
        self.step = 0
        groups = groups or [{"params": [p for _, p in self.learning()], "weight_decay": 0.01}]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=betas)
        state = saved(name)
        if state is not None:
            self.step = int(state["step"])
            self.model.load_state_dict(part(state, "model."))
            for key, p in self.learning():
                mean, square = (state[f"{kind}.{key}"].to(p) for kind in ("mean", "square"))
                self.optimizer.state[p] = {"step": torch.tensor(float(self.step)), "exp_avg": mean, "exp_avg_sq": square}
            log.info("resumed %s at step %d", name, self.step)
        elif start is not None:
            self.model.load_state_dict(start)
        self.average: dict[str, torch.Tensor] = {}
        if average and state is not None:
            self.average = {k: v.to(self.device) for k, v in part(state, "average.").items()}
        elif average:
            self.average = {k: v.clone() for k, v in self.model.state_dict().items()}

    def learning(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(key, p) for key, p in self.model.named_parameters() if p.requires_grad]

    @property
    def left(self) -> int:
        """Steps still to do."""
        return self.args.steps - self.step

    def autocast(self) -> torch.autocast:
        """bfloat16 where --bf16 asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.bf16)

    def steps(self) -> Iterator[None]:
        """Yields until --steps are done. Each time, `learn` is to be called once."""
        self.began, self.first, self.running = time.monotonic(), self.step, {}
        while self.left > 0:
            rate = self.args.lr * min(1.0, (self.step + 1) / self.warm_up, self.left / max(self.cooldown, 1))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield

    def learn(self, loss: torch.Tensor, figures: dict[str, torch.Tensor] | None = None) -> None:
        """One step down a loss. figures: numbers of which the log shows running means, in place of the loss's."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        if self.average:
            for key, value in self.model.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        for key, value in (figures or {"loss": loss}).items():
            now = value.item()
            self.running[key] = 0.98 * self.running.get(key, now) + 0.02 * now
        if self.step % self.every == 0 or not self.left:
            speed = (self.step - self.first) * self.args.batch / (time.monotonic() - self.began)
            means = ", ".join(f"{key} {value:.4f}" for key, value in self.running.items())
            log.info("step %d %s, %.0f pictures/s", self.step, means, speed)
        if self.step % (5 * self.every) == 0 or not self.left:
            self.save()

    def save(self) -> None:
        state = {"step": torch.tensor(self.step)}
        state |= {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        state |= {f"average.{k}": v.contiguous() for k, v in self.average.items()}
        for key, p in self.learning():
            adam = self.optimizer.state[p]
            state |= {f"mean.{key}": adam["exp_avg"].contiguous(), f"square.{key}": adam["exp_avg_sq"].contiguous()}
        path = path_of(self.name)
        partial = path.with_suffix(".part")
        save_file(state, partial)
        partial.replace(path)


def path_of(name: str) -> Path:
    return BUILD / f"{name}.safetensors"


def saved(name: str) -> dict[str, torch.Tensor] | None:
    """All that a run of this name left: `step`, `model.*`, `average.*` where there is one, Adam's `mean.*` and `square.*`."""
    path = path_of(name)
    return load_file(path) if path.is_file() else None


def part(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def trained(name: str, otherwise: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """The weights to use of a run: its average where it kept one. otherwise: for a model that was not trained here."""
    state = saved(name)
    if state is not None:
        return part(state, "average.") or part(state, "model.")
    if otherwise is None:
        raise SystemExit(f"{path_of(name)} is missing: train it first")
    return otherwise
