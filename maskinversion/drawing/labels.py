"""Labels drawn on the regions of a picture."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import InputError
from .overlay import outline

# Okabe and Ito's, told apart with any kind of colour vision ("Color Universal Design", 2008).
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
TINT = 0.25


def draw_labels(image: Tensor, masks: Tensor, labels: Sequence[str]) -> Tensor:
    """Tint every region in a colour of its own, and write its label on it.

    image [h, w, 3] in 0..1; masks [M, h, w] in 0..1; M labels, of which an empty one is not written.
    Returns [h, w, 3] in 0..1. Raises InputError when the sizes or numbers differ.
    """
    if masks.shape[1:] != image.shape[:2]:
        raise InputError(f"the masks are {tuple(masks.shape[1:])}, the image {tuple(image.shape[:2])}: they must be the same size")
    if len(labels) != len(masks):
        raise InputError(f"there are {len(masks)} masks and {len(labels)} labels: give one label, on its own line, for each mask")
    painted = image.float().cpu()
    masks = masks.float().cpu()
    for index, mask in enumerate(masks):
        colour = torch.tensor(COLOURS[index % len(COLOURS)]) / 255
        painted = painted + (TINT * mask + outline(mask)).clamp(max=1)[..., None] * (colour - painted)
    picture = Image.fromarray((painted.clamp(0, 1) * 255).round().byte().numpy())
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(10, min(picture.size) // 22))
    taken: list[tuple[float, float, float, float]] = []
    for index, (mask, label) in enumerate(zip(masks.numpy(), labels, strict=True)):
        if not label or mask.max() == 0:
            continue
        rows, columns = np.nonzero(mask >= 0.5 * mask.max())
        box = place(pen.textbbox((0, 0), label, font), columns.mean(), rows.mean(), picture.size, taken)
        taken.append(box)
        pen.rectangle(box, COLOURS[index % len(COLOURS)])
        pen.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), label, "black", font, anchor="mm")
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def place(text: tuple, x: float, y: float, size: tuple[int, int], taken: list[tuple]) -> tuple[float, float, float, float]:
    """The box (left, top, right, bottom) of a label about (x, y), inside the picture, and below the labels already there."""
    width, height = text[2] - text[0] + 8, text[3] - text[1] + 8
    left = min(max(x - width / 2, 0), max(size[0] - width, 0))
    top = min(max(y - height / 2, 0), max(size[1] - height, 0))
    for other in sorted(taken, key=lambda box: box[1]):
        if left < other[2] and other[0] < left + width and top < other[3] and other[1] < top + height:
            top = other[3] + 1
    if top + height > size[1]:
        top = max(size[1] - height, 0)
    return left, top, left + width, top + height
