"""A map of a table as a picture: regions with like tokens lie near one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..drawing.labels import colour_of
from ..errors import InputError
from ..packages import require
from .album import Album
from .group import SEED, Group
from .search import RegionSearch
from .sheet import BACKGROUND, portrait

MOST = 2000  # regions on a map
FEWEST = 3
DIMENSIONS = 50  # that are left of the tokens before they are laid out
PERPLEXITY = 30
FRAME = 3  # pixels
ROOM = 1.6  # cells for every region
USE = "a map of regions"


def layout(tokens: np.ndarray) -> np.ndarray:
    """Places [N, 2] in 0..1 of unit tokens [N, D]: t-SNE (van der Maaten, Hinton, 2008) of their first principal components.

    The same tokens give the same places. Raises InputError for fewer than FEWEST, PackageError without scikit-learn.
    """
    if len(tokens) < FEWEST:
        raise InputError(f"a map needs {FEWEST} regions, and there are {len(tokens)}: put more into the table")
    decomposition, manifold = (require(f"sklearn.{name}", USE) for name in ("decomposition", "manifold"))
    dimensions = min(DIMENSIONS, *tokens.shape)
    main = decomposition.PCA(dimensions, svd_solver="full").fit_transform(tokens)
    perplexity = min(PERPLEXITY, (len(tokens) - 1) / 3)
    start = "pca" if dimensions > 1 else "random"
    found = manifold.TSNE(2, perplexity=perplexity, init=start, random_state=SEED).fit_transform(main)
    low, high = found.min(0), found.max(0)
    return (found - low) / np.maximum(high - low, 1e-9)


def on_grid(places: np.ndarray, across: int) -> np.ndarray:
    """Cells [N, 2] of a square grid, near to places [N, 2] in 0..1, each taken once: those in the thick of it choose first."""
    wanted = places * (across - 1)
    crowd = ((wanted[:, None] - wanted[None]) ** 2).sum(2)
    order = (crowd < 4).sum(1).argsort(kind="stable")[::-1]
    grid = np.stack(np.meshgrid(np.arange(across), np.arange(across), indexing="ij"), 2).reshape(-1, 2)
    free = np.ones(len(grid), bool)
    cells = np.empty((len(places), 2), int)
    for index in order:
        distance = ((grid - wanted[index]) ** 2).sum(1)
        cell = np.where(free, distance, np.inf).argmin()
        free[cell] = False
        cells[index] = grid[cell]
    return cells


def region_map(
    search: RegionSearch,
    album: Album,
    among: np.ndarray | None = None,
    groups: Sequence[Group] = (),
    most: int = MOST,
    size: int = 2400,
) -> Image.Image:
    """A square picture of `size` pixels with a thumbnail of every region, or of `most` of them, drawn by lot.

    among: the rows that are on it; None is all. groups: regions of one have a frame of one colour; others have none. Those that
    cannot be opened leave their place empty: see `Album.problems`. Raises InputError for fewer regions than FEWEST.
    """
    rows = np.arange(len(search)) if among is None else among
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, most, replace=False))
    across = max(2, int(np.ceil((ROOM * len(rows)) ** 0.5)))
    cells = on_grid(layout(search.tokens.take(rows).numpy()), across)
    side = max(4, size // across)
    colours = {row: colour_of(number) for number, group in enumerate(groups) for row in group.rows}
    drawn = Image.new("RGB", (side * across, side * across), BACKGROUND)
    regions = search.regions(rows.tolist(), [1.0] * len(rows))
    order = sorted(range(len(rows)), key=lambda index: regions[index].picture)  # so that each picture is opened once
    for part in range(0, len(order), 256):
        some = order[part : part + 256]
        for index, view in zip(some, album.views(search, [regions[index] for index in some]), strict=True):
            if view is not None:
                tile = portrait(view, side - 2, None, context=0.1)
                colour = colours.get(int(rows[index]))
                if colour is not None:
                    framed = Image.new("RGB", tile.size, colour)
                    width = min(FRAME, max(1, side // 16))
                    framed.paste(tile.crop((width, width, tile.width - width, tile.height - width)), (width, width))
                    tile = framed
                drawn.paste(tile, (int(cells[index][0]) * side + 1, int(cells[index][1]) * side + 1))
    return drawn
