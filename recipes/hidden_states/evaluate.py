"""What does a model that reads hidden states learn of a region, by the way in which these are made the region's?

    python -m recipes.hidden_states.evaluate      # prints Markdown; recipes/build/hidden-states.json

Such models (FLUX Redux, IP-Adapter Plus, Wan) were trained on whole pictures. So a small resampler, four queries that attend to
rows, learns to name the one object of a picture from all of the bundled CLIP's rows, and is then given those of a region of a scene
that has several objects, in a style that nothing was trained on.

Careless masks are those of `maskinversion eval`; maps are those of the tokens of the careless masks. Intervals are 95% Wilson
intervals with scenes as the unit.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import maskinversion as mi
from maskinversion.evaluation.masks import degrade
from maskinversion.evaluation.protocols import wilson
from maskinversion.evaluation.settings import QUALITIES
from maskinversion.hidden_states import coverage, region_rows
from maskinversion.settings import PRESETS
from recipes.common.arguments import parser
from recipes.common.evaluation import interval, write_report
from recipes.common.scenes import TRAINED_KINDS, Scenes, usual_counts
from recipes.common.sprites import STYLES

STATES = {"penultimate": "entering", "last": "leaving"}
# Way, whether it goes by the map, and whether the class's row is kept.
WAYS = {
    "whole picture": ("whole", False, True),
    "faded by the map": ("map", True, True),
    "faded by the mask": ("mask", False, True),
    "patches of the mask": ("patches", False, True),
    "patches of the map": ("map patches", True, True),
    "patches of the mask's box": ("box", False, True),
    "patches of the mask, no class row": ("patches", False, False),
    "patches of the map, no class row": ("map patches", True, False),
}
BATCH, LR = 64, 2e-3  # of the reader
TEST_KINDS = (*TRAINED_KINDS, "overlap")  # without crowds, whose objects are three patches wide


@dataclass(frozen=True)
class Region:
    """An object of a scene. states: by their names [N, d]. covered: of its mask and of its map [h, w]."""

    states: dict[str, Tensor]
    covered: tuple[Tensor, Tensor]
    label: int
    scene: int

    def rows(self, name: str, way: str) -> Tensor:
        """[K, d]"""
        kind, by_map, with_class = WAYS[way]
        states = self.states[name].float()
        prefix = len(states) - self.covered[0].numel()
        if not with_class:
            states, prefix = states[prefix:], 0
        return region_rows(kind, [self.covered[by_map][None]], prefix)[0].of(states)[0]


class Reader(nn.Module):
    """Rows [B, K, d] to logits [B, classes]: one layer of a resampler, and a linear one."""

    def __init__(self, width: int, classes: int, queries: int = 4):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.name = nn.Linear(width, classes)

    def forward(self, rows: Tensor) -> Tensor:
        rows = self.norm(rows)
        found = self.attention(self.queries.expand(len(rows), -1, -1), rows, rows, need_weights=False)[0]
        return self.name((found + self.mlp(found)).mean(1))


def learn(rows: Tensor, labels: Tensor, epochs: int) -> Reader:
    torch.manual_seed(0)
    reader = Reader(rows.shape[-1], int(labels.max()) + 1).train()
    steps = epochs * (len(rows) // BATCH)
    optimizer = torch.optim.AdamW(reader.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps, pct_start=0.1)
    order = torch.cat([torch.randperm(len(rows))[: len(rows) // BATCH * BATCH] for _ in range(epochs)]).split(BATCH)
    for chosen in order:
        loss = F.cross_entropy(reader(rows[chosen].float()), labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()


def pictures(inverter: mi.MaskInverter, source: Scenes, count: int, rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
    """All rows [count, N, d] of pictures of one object, by the names of the states, and what it is."""
    found, labels = {name: [] for name in STATES}, []
    for number in range(count):
        scene = source.draw(rng, TRAINED_KINDS[number % 2], 1)
        encoded = inverter.encode(scene.image)
        for name, field in STATES.items():
            found[name].append(getattr(encoded, field).half())
        labels += scene.classes
    return {name: torch.stack(states) for name, states in found.items()}, torch.tensor(labels)


def regions(inverter: mi.MaskInverter, source: Scenes, count: int, rng: np.random.Generator) -> dict[str, list[Region]]:
    """The objects of scenes by the quality of their masks."""
    found: dict[str, list[Region]] = {quality: [] for quality in QUALITIES}
    for number in range(count):
        kind = TEST_KINDS[number % len(TEST_KINDS)]
        scene = source.draw(rng, kind, int(rng.choice(usual_counts(kind))), augment=False)
        encoded = inverter.encode(scene.image)
        states = {name: getattr(encoded, field).half() for name, field in STATES.items()}
        seen = scene.masks.max((1, 2)) > 0.5
        labels = np.array(scene.classes)[seen]
        for quality, these in found.items():
            masks = inverter.masks_for(encoded, degrade(torch.from_numpy(scene.masks[seen]), quality))
            maps = inverter.invert(encoded, masks).maps
            pairs = zip(coverage(masks, encoded.grid), coverage(maps, encoded.grid), labels, strict=True)
            these += [Region(states, (mask, heat), int(label), number) for mask, heat, label in pairs]
    return found


@torch.no_grad()
def right(reader: Reader, found: list[Region], name: str, way: str) -> np.ndarray:
    return np.array([float(reader(one.rows(name, way)[None]).argmax() == one.label) for one in found])


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--pictures", type=int, default=4000, help="of one object, to learn from")
    options.add_argument("--scenes", type=int, default=180, help="of the unseen style")
    options.add_argument("--epochs", type=int, default=6)
    args = options.parse_args()
    inverter = mi.MaskInverter(mi.load_clip("bundled"), **PRESETS["region"])
    whole, labels = pictures(inverter, Scenes(STYLES["trained"]), args.pictures, np.random.default_rng(30_000))
    tests = regions(inverter, Scenes(STYLES["held-out"]), args.scenes, np.random.default_rng(31_000))
    scenes = {quality: np.array([one.scene for one in these]) for quality, these in tests.items()}
    report = []
    print(f"| states | way | {' | '.join(QUALITIES)} |\n|{'---|' * (2 + len(QUALITIES))}")
    for name in STATES:
        reader = learn(whole[name], labels, args.epochs)
        for way in WAYS:
            shares = [wilson(right(reader, these, name, way), groups=scenes[quality]) for quality, these in tests.items()]
            print(f"| {name} | {way} | {' | '.join(map(interval, shares))} |", flush=True)
            row = {"states": name, "way": way, "objects": len(tests["exact"])}
            report.append(row | dict(zip(QUALITIES, shares, strict=True)))
    write_report("hidden-states.json", report)


if __name__ == "__main__":
    main()
