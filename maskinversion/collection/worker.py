"""A worker, which makes parts of a table: what it needs to know, and what it says of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from ..compute.matmul import arithmetic
from ..errors import InputError, InputWarning
from ..inverter import MaskInverter
from ..models.loading import load_clip
from ..settings import InversionSettings
from .segmenters import Segmenter, SegmenterSettings
from .sources.base import Item
from .stream import embed
from .table import Made, RegionTable


@dataclass(frozen=True)
class Job:
    """What there is to do; small, and the same in another process.

    out: folder of the table. clip, architecture, device: as `load_clip` takes them. settings: of the inversion. numbers: float32 or
    float16, in the table. part: pictures in a part of the table: so many are done again, at most, by each worker of a run that was
    stopped. together: pictures that go through the model together. readers: threads that read while it works. threads: of the
    model's arithmetic; None is PyTorch's choice. segmenter: where masks come from, if not from the source.
    """

    out: Path
    clip: str = "bundled"
    architecture: str | None = None
    device: str | None = None
    settings: InversionSettings = field(default_factory=InversionSettings)
    numbers: str = "float32"
    part: int = 64
    together: int = 16
    readers: int = 2
    threads: int | None = None
    segmenter: SegmenterSettings | None = None

    def __post_init__(self):
        for what in ("part", "together", "readers"):
            if getattr(self, what) < 1:
                raise InputError(f"{what} is {getattr(self, what)}; it must be at least 1")


@dataclass(frozen=True)
class Part:
    """name: of its file. items: what is to be done of it."""

    name: str
    items: tuple[Item, ...]


@dataclass
class Counts:
    """What was done."""

    pictures: int = 0
    regions: int = 0
    rejects: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.pictures + other.pictures, self.regions + other.regions, self.rejects + other.rejects)


Told = Callable[[Counts], None]  # of every picture, or every few of them


class Worker:
    """Makes parts. It loads the model once, and writes to the table itself."""

    def __init__(self, job: Job):
        warnings.simplefilter("ignore", InputWarning)  # there would be one for many a region
        if job.threads is not None:
            torch.set_num_threads(job.threads)
        self.job = job
        self.inverter = MaskInverter(load_clip(job.clip, job.architecture, job.device), job.settings)
        device = self.inverter.clip.device
        self.segmenter = None if job.segmenter is None else Segmenter(job.segmenter, device)
        self.about = {"arithmetic": arithmetic(device), "clip": job.clip}

    @property
    def made(self) -> Made:
        clip = self.inverter.clip
        settings = asdict(self.job.settings) | {"image_size": self.inverter.image_size, "loss": self.inverter.objective.name}
        return Made(clip.name, clip.fingerprint, clip.tower.width_out, settings, self.job.numbers)

    def make(self, table: RegionTable, part: Part, told: Told = lambda counts: None) -> Counts:
        """Makes and writes a part of a table."""
        total, all_rows, all_rejects = Counts(), [], []
        for rows, rejects in embed(self.inverter, part.items, self.job.together, self.segmenter, self.job.readers):
            all_rows += rows
            all_rejects += rejects
            told(one := Counts(1, len(rows), len(rejects)))
            total += one
        table.write(part.name, [item.picture for item in part.items], all_rows, all_rejects, **self.about)
        return total
