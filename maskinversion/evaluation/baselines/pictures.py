"""Regions as pictures of their own: what a method hides, marks or cuts out before the model sees it."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from ...geometry import Geometry
from ...inverter import EncodedImage, MaskInverter
from ...pictures import as_pixels
from ...starts import BATCH, BLUR
from ..masks import box_of

GREY = 0.5
LINE = 0.01  # the circle's, of the picture's shorter side (arXiv 2304.06712)


class Picture:
    """pixels [3, h, w] in 0..1 of any accepted image, encoded once for all inverters that see it the same way."""

    def __init__(self, image: object):
        self.pixels = as_pixels(image)[0]
        height, width = self.pixels.shape[1:]
        self.size = height, width
        self._encoded: dict[tuple, EncodedImage] = {}

    def encoded(self, inverter: MaskInverter) -> EncodedImage:
        key = (id(inverter.clip), inverter.image_size, inverter.settings.fit, inverter.settings.layers)
        if key not in self._encoded:
            self._encoded[key] = inverter.encode(self.pixels.permute(1, 2, 0))
        return self._encoded[key]


def crop(pixels: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """The box of each mask."""
    for mask in masks:
        top, left, bottom, right = box_of(mask)
        yield pixels[:, top:bottom, left:right]


def masked_crop(pixels: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """The box of each mask, grey outside of the mask."""
    for mask, kept in zip(masks, grey(pixels, masks), strict=True):
        yield from crop(kept, mask[None])


def grey(pixels: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """The whole picture, grey outside of each mask."""
    for mask in masks:
        yield GREY + mask * (pixels - GREY)


def red_circle(pixels: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """A red ellipse in the box of each mask (Shtedritski, Rupprecht, Vedaldi, "What does CLIP know about a red circle?", 2023)."""
    plain = to_pil(pixels)
    width = max(1, round(LINE * min(plain.size)))
    for mask in masks:
        top, left, bottom, right = box_of(mask)
        marked = plain.copy()
        ImageDraw.Draw(marked).ellipse((left, top, right - 1, bottom - 1), outline=(255, 0, 0), width=width)
        yield as_pixels(marked)[0]


def blur(pixels: Tensor, masks: Tensor) -> Iterator[Tensor]:
    """Everything outside of each mask blurred (Yang et al., "Fine-Grained Visual Prompting", 2023: blur reverse mask)."""
    plain = to_pil(pixels)
    blurred = as_pixels(plain.filter(ImageFilter.GaussianBlur(BLUR * min(plain.size))))[0]
    for mask in masks:
        yield blurred + mask * (pixels - blurred)


def to_pil(pixels: Tensor) -> Image.Image:
    return Image.fromarray((pixels.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8))


def by_changed_picture(
    change: Callable[[Tensor, Tensor], Iterable[Tensor]], picture: Picture, masks: Tensor, inverter: MaskInverter
) -> Tensor:
    """The model's plain embedding of a picture of its own for every mask."""
    return embed(change(picture.pixels, masks), inverter)


@torch.no_grad()
def embed(pictures: Iterable[Tensor], inverter: MaskInverter) -> Tensor:
    """The model's plain embeddings [B, D] of B pictures [3, h, w] in 0..1, together where they can be."""
    tower = inverter.clip.tower
    canvases = [canvas(pixels, inverter) for pixels in pictures]
    if len({c.shape for c in canvases}) > 1:
        return torch.cat([tower.embed_canvases(c) for c in canvases])
    return torch.cat([tower.embed_canvases(some) for some in torch.cat(canvases).split(BATCH)])


def canvas(pixels: Tensor, inverter: MaskInverter) -> Tensor:
    """What the model sees of a picture [3, h, w]: [1, 3, H, W], normalised."""
    tower = inverter.clip.tower
    height, width = pixels.shape[1:]
    geometry = Geometry.for_image((height, width), inverter.image_size, tower.patch_size, inverter.settings.fit)
    return tower.canvas(pixels[None], geometry)
