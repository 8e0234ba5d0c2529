"""Many workers, by Ray Data: on the cores of this machine, or on a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import InputError, MaskInversionError, first_line
from ..packages import require
from .table import RegionTable
from .worker import Counts, Job, Part, Told, Worker

USE = "work in several processes"
FAILED = "failed"


class RayWorker:
    """A worker as Ray Data calls it: a batch of one part in, its counts out."""

    def __init__(self, job: Job, table: RegionTable):
        self.worker, self.table = Worker(job), table

    def __call__(self, batch: dict[str, Any]) -> dict[str, list]:
        total, failed = Counts(), ""
        for part in batch["part"]:
            try:
                total += self.worker.make(self.table, part)
            except MaskInversionError as error:  # of the disk that the table is on
                failed = str(error)
        return {**{name: [count] for name, count in vars(total).items()}, FAILED: [failed]}


def make_all(job: Job, table: RegionTable, parts: Sequence[Part], workers: int, address: str | None, told: Told) -> None:
    """Makes the parts of a table by `workers` processes; 0 is as many as there is room for.

    Each takes `job.threads` cores (1 where that is None), and a GPU where the cluster has any and the job names no other device.
    All of them must see the pictures and the folder of the table at the same paths. A worker that dies is started again, and so is
    its part.

    Raises InputError where the table cannot be written, with what was finished kept.
    """
    ray = require("ray", USE, "2.30")
    data = require("ray.data", USE)
    mine = not ray.is_initialized()
    if mine:
        start(ray, address, workers)
    try:
        data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray.data", "ray.util", "ray._private"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # it explains its plans at length
        cores, room = job.threads or 1, ray.cluster_resources()
        gpus = 1 if room.get("GPU", 0) >= 1 and job.device in (None, "cuda") else 0
        most = int(room["GPU"]) if gpus else max(1, int(room.get("CPU", 1)) // cores)
        job = replace(job, threads=cores)
        rows = data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts)).map_batches(
            RayWorker,
            fn_constructor_args=(job, table),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(workers or most, most, len(parts))),
            num_cpus=cores,
            num_gpus=gpus,
        )
        for row in rows.iter_rows():
            if row[FAILED]:
                raise InputError(row[FAILED])
            told(Counts(**{name: int(row[name]) for name in vars(Counts())}))
    except ray.exceptions.RayError as error:
        raise MaskInversionError(f"the workers of Ray failed ({first_line(error)}): what was finished is kept") from error
    finally:
        if mine:
            ray.shutdown()


def start(ray: Any, address: str | None, workers: int) -> None:
    """Connects to a cluster, or starts one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False, **options)
        else:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = "could not be started" if address is None else f"is not at {address}: start it with `ray start --head`"
        raise InputError(f"a cluster of Ray {where} ({first_line(error)})") from error
