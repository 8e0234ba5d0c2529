"""From pictures to rows: reading, encoding and inverting at the same time, as many pictures together as the device likes."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..compute.ambient import settled
from ..errors import InputError, MaskInversionError, first_line
from ..geometry import resize
from ..inverter import MaskInverter, Seen
from ..pictures import box_of
from .segmenters import Segmenter
from .sources.base import Item
from .table import RegionRow, Reject

SHOWN = 256  # px of the longer side of a mask that is kept for showing
AHEAD = 2  # times as many pictures are being read as are inverted together

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Region:
    """All of a row but what the model says. seen [H, W]: the mask on the model's canvas."""

    annotation: str
    label: str | None
    box: tuple[float, float, float, float]
    area: float
    mask: bytes
    seen: Tensor


@dataclass(frozen=True)
class Read:
    """A picture as the model sees it, and its regions. rejects: what of it could not be read; all, where `picture` is None."""

    key: str
    picture: Seen | None
    regions: list[Region]
    rejects: list[Reject]


def embed(
    inverter: MaskInverter, items: Iterable[Item], together: int = 16, segmenter: Segmenter | None = None, readers: int = 2
) -> Iterator[tuple[list[RegionRow], list[Reject]]]:
    """The rows of every item and what of it could not be read, in the order of the items.

    together: pictures that are encoded and inverted together; the same ones for the same items, so that results are the same to the
    bit. readers: threads that read and resize pictures while others are inverted. No more than (1 + AHEAD) * together pictures are
    held at a time, as the model sees them. segmenter: where all masks come from, instead of from the items.
    """
    found = ahead(lambda item: read(inverter, item, segmenter), items, readers, AHEAD * together)
    while some := list(islice(found, together)):
        yield from inverted(inverter, some)


def ahead(function: Callable[[Given], Made], given: Iterable[Given], threads: int, most: int) -> Iterator[Made]:
    """What a function makes of each, in their order, computed by threads, at most so many before they are asked for."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Made]] = deque()
        for one in given:
            waiting.append(pool.submit(function, one))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@settled()
def read(inverter: MaskInverter, item: Item, segmenter: Segmenter | None) -> Read:
    """A picture and its masks, each as the model sees it. Never raises but where memory ends."""
    regions: list[Region] = []
    rejects: list[Reject] = []
    try:
        opened = item.open()
        seen = inverter.see(opened)
        size = seen.geometry.image_size
        masks = item.masks(size) if segmenter is None else segmenter.masks(opened)
        known = set()
        for found in masks:
            if isinstance(found, Reject):
                rejects.append(found)
                continue
            try:
                if found.annotation in known:
                    raise InputError(f"there are several regions called {found.annotation}")
                known.add(found.annotation)
                regions.append(region(inverter, seen, found.annotation, found.label, found.mask))
            except InputError as error:
                rejects.append(Reject(item.picture, found.annotation, str(error)))
        if not regions and not rejects:
            rejects.append(Reject(item.picture, None, "it has no region"))
    except Exception as error:  # whatever a damaged file makes of a reader, it is not the end of the others
        return Read(item.picture, None, [], [*rejects, Reject(item.picture, None, reason(error))])
    return Read(item.picture, seen, regions, rejects)


def region(inverter: MaskInverter, seen: Seen, annotation: str, label: str | None, mask: Tensor) -> Region:
    """Of a mask [h, w] of the picture's size. Raises InputError for one that is empty."""
    box = box_of(mask)
    if box is None:
        raise InputError("the mask is empty (all black)")
    (on_canvas,) = inverter.masks_for(seen, [mask])
    corners = box.x, box.y, box.x + box.width, box.y + box.height
    return Region(annotation, label, corners, float(mask.mean()), thumbnail(mask), on_canvas)


def thumbnail(mask: Tensor) -> bytes:
    """A PNG in two colours of a mask [h, w], at most SHOWN px on its longer side."""
    height, width = mask.shape
    scale = min(1.0, SHOWN / max(height, width))
    small = resize(mask[None, None], (max(1, round(height * scale)), max(1, round(width * scale))), "bilinear")[0, 0]
    solid = (small >= 0.5 * small.max()).numpy()
    file = io.BytesIO()
    Image.fromarray(solid).save(file, "PNG")
    return file.getvalue()


def inverted(inverter: MaskInverter, some: list[Read]) -> Iterator[tuple[list[RegionRow], list[Reject]]]:
    """The rows of pictures that go through the model together; one by one, where they do not go together."""
    ready = [one for one in some if one.picture is not None and one.regions]
    found: dict[str, list[RegionRow]] = {}
    failed: dict[str, str] = {}
    try:
        found = dict(zip((one.key for one in ready), rows_of(inverter, ready)))
    except Exception as together:
        if len(ready) == 1:
            failed[ready[0].key] = reason(together)
        for one in ready if len(ready) > 1 else ():
            try:
                (found[one.key],) = rows_of(inverter, [one])
            except Exception as error:
                failed[one.key] = reason(error)
    for one in some:
        rejects = [*one.rejects, *([Reject(one.key, None, failed[one.key])] if one.key in failed else [])]
        yield found.get(one.key, []), rejects


def rows_of(inverter: MaskInverter, some: list[Read]) -> list[list[RegionRow]]:
    encoded = inverter.encode([one.picture for one in some])
    tokens = inverter.invert_seen(encoded, [torch.stack([region.seen for region in one.regions]) for one in some])
    rows = []
    for one, made in zip(some, tokens):
        height, width = made.geometry.image_size
        numbers: list[np.ndarray] = [t.float().cpu().numpy() for t in (made.embeddings, made.iou, made.losses[-1])]
        rows.append(
            [
                RegionRow(
                    one.key, own.annotation, own.label, own.box, width, height, own.area, float(iou), float(loss), token, own.mask
                )
                for own, token, iou, loss in zip(one.regions, *numbers)
            ]
        )
    return rows


def reason(error: Exception) -> str:
    if isinstance(error, MaskInversionError):
        return str(error)
    return f"internal error: {type(error).__name__}: {first_line(error)}"
