"""Regions of a table that belong together: near-duplicates, and clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..packages import require
from .neighbours import Progress, UnitTokens

NEIGHBOURS = 20  # of each region, that are looked at for near-duplicates
LEARNT = 20_000  # regions that clusters are learnt from
AT_ONCE = 8192
SEED = 0  # of what is drawn
USE = "grouping regions"


@dataclass(frozen=True)
class Group:
    """rows: of the table, the most typical first. likeness: the mean cosine of these and the first."""

    rows: list[int]
    likeness: float

    def to_dict(self, ids: list[str]) -> dict:
        return {"size": len(self.rows), "likeness": round(self.likeness, 4), "ids": [ids[row] for row in self.rows]}


def near_duplicates(
    tokens: UnitTokens, least: float, among: np.ndarray | None = None, progress: Progress | None = None
) -> list[Group]:
    """Regions whose tokens have a cosine of at least `least`, and those that they are joined to by such: the largest groups first.

    among: the rows that are looked at; None is all. Of each, the NEIGHBOURS nearest are looked at, which joins every group, however
    large. Raises InputError for a cosine outside 0..1.
    """
    if not 0 < least <= 1:
        raise InputError(f"near-duplicates have a cosine of at least {least:g}; give one above 0, up to 1, such as 0.95")
    rows = np.arange(len(tokens)) if among is None else among
    leader = {int(row): int(row) for row in rows}

    def top(row: int) -> int:
        while leader[row] != row:
            leader[row] = leader[leader[row]]
            row = leader[row]
        return row

    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        found, scores = tokens.nearest(tokens.take(some), NEIGHBOURS + 1, among)
        for row, others, cosines in zip(some.tolist(), found.tolist(), scores.tolist(), strict=True):
            for other, cosine in zip(others, cosines, strict=True):
                if cosine < least:
                    break
                one, two = sorted((top(row), top(other)))
                leader[two] = one
        if progress is not None:
            progress(min(first + AT_ONCE, len(rows)), len(rows))
    groups: dict[int, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(top(row), []).append(row)
    return ordered([made(tokens, np.array(members)) for members in groups.values() if len(members) > 1])


def clusters(tokens: UnitTokens, count: int, among: np.ndarray | None = None) -> list[Group]:
    """All regions in `count` groups of like ones, the largest first: k-means of the unit tokens, learnt from LEARNT of them.

    among: the rows that are looked at; None is all. The same rows give the same groups. Raises InputError for a count that cannot
    be, PackageError without scikit-learn.
    """
    rows = np.arange(len(tokens)) if among is None else among
    if not 1 <= count <= len(rows):
        raise InputError(f"{len(rows)} regions cannot be put into {count} groups; give a number from 1 to {len(rows)}")
    cluster = require("sklearn.cluster", USE)
    drawn = rows if len(rows) <= LEARNT else np.sort(np.random.default_rng(SEED).choice(rows, LEARNT, replace=False))
    learnt = cluster.KMeans(count, n_init=1, random_state=SEED).fit(tokens.take(drawn).numpy())
    centres = F.normalize(torch.from_numpy(np.asarray(learnt.cluster_centers_, np.float32)), dim=1)
    nearest = torch.cat([(tokens.take(rows[i : i + AT_ONCE]) @ centres.T).argmax(1) for i in range(0, len(rows), AT_ONCE)]).numpy()
    return ordered([made(tokens, rows[nearest == number]) for number in range(count) if (nearest == number).any()])


def made(tokens: UnitTokens, rows: np.ndarray) -> Group:
    """The group of these rows, by how near they are to its middle."""
    total = torch.zeros(tokens.width)
    for first in range(0, len(rows), AT_ONCE):
        total += tokens.take(rows[first : first + AT_ONCE]).sum(0)
    middle = F.normalize(total, dim=0)
    near = torch.cat([tokens.take(rows[i : i + AT_ONCE]) @ middle for i in range(0, len(rows), AT_ONCE)])
    order = rows[near.argsort(descending=True, stable=True).numpy()]
    first = tokens.take(order[:1])[0]
    others = torch.cat([tokens.take(order[i : i + AT_ONCE]) @ first for i in range(0, len(order), AT_ONCE)])
    likeness = float(others[1:].mean()) if len(order) > 1 else 1.0
    return Group(order.tolist(), likeness)


def ordered(groups: list[Group]) -> list[Group]:
    return sorted(groups, key=lambda group: (-len(group.rows), min(group.rows)))
