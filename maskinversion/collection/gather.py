"""A table that grows picture by picture, of tokens that were made elsewhere, and keeps copies of the pictures beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..files import written_whole
from ..geometry import resize
from ..pictures import box_of
from ..tokens import LocalizedTokens
from .stream import thumbnail
from .table import Made, RegionRow, RegionTable

PICTURES = "pictures"  # in the table's folder
NAME = 24  # hexadecimal digits of a picture's hash, which is what it is called


def add_regions(
    folder: str | os.PathLike,
    tokens: LocalizedTokens,
    picture: Tensor,
    masks: Sequence[Tensor],
    labels: Sequence[str | None] = (),
) -> RegionTable:
    """Adds the M regions of a picture to the table in `folder`, which is made where there is none.

    picture [h, w, 3] in 0..1; masks, M of [h', w'] in 0..1, and labels, M or none, that the tokens are of. The regions that the
    table has of the same picture are replaced, so that nothing is there twice.
    Raises InputError for other numbers, for tokens that were changed since they were made, since those are of no region, and for
    tokens of another CLIP or other settings than the table's.
    """
    labels = labels or [None] * len(tokens)
    for what, given in (("masks", masks), ("labels", labels)):
        if len(given) != len(tokens):
            raise InputError(f"there are {len(tokens)} tokens and {len(given)} {what}: give one for each token")
    if tokens.parameters.get("operations"):
        raise InputError("the tokens were changed after they were made, so they are of no region: add those of MaskInversion")
    settings = {name: value for name, value in tokens.parameters.items() if name != "arithmetic"}
    made = Made(tokens.model, tokens.fingerprint, tokens.embeddings.shape[1], settings)
    pictures = Path(os.path.abspath(folder), PICTURES)
    table = RegionTable.create(folder, made, {"kind": "pictures", "pictures": pictures.as_posix()})
    pixels = picture.detach().cpu().float().mul(255).round().byte().numpy()
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:NAME]
    with written_whole(pictures / f"{digest}.png") as path:
        Image.fromarray(pixels).save(path)
    height, width = pixels.shape[:2]
    rows = []
    for index, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        region = resize(mask.detach().cpu().float()[None, None], (height, width), "bilinear")[0, 0]
        box = box_of(region)
        if box is None:
            raise InputError(f"mask {index} is empty (all black)")
        corners = box.x, box.y, box.x + box.width, box.y + box.height
        iou, loss = float(tokens.iou[index]), float(tokens.losses[-1][index])
        token = tokens.embeddings[index].detach().cpu().float().numpy()
        area = float(region.mean())
        rows.append(
            RegionRow(f"{digest}.png", str(index), label or None, corners, width, height, area, iou, loss, token, thumbnail(region))
        )
    table.write(digest, [f"{digest}.png"], rows, arithmetic=tokens.parameters.get("arithmetic"))
    return table
