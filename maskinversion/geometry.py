"""How an image's own pixels become the canvas that the model sees, and the way back. Image and mask always go together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from reprlib import repr as shown

import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .settings import FITS

WHOLE = ("stretch", "aspect")  # the whole image covers the whole canvas

LARGEST = 2**28  # pixels of a picture; Pillow opens fewer
LONGEST = 100  # times the other side: of a longer picture `crop` would see next to nothing, after enlarging all of it


@dataclass(frozen=True)
class Geometry:
    """The map between an image of `image_size` (height, width) and the model's `model_size` (height, width), in pixels.

    fit: `stretch` squashes to the model's size (as the published reference), `pad` keeps the aspect and fills the rest,
    `crop` keeps the aspect and cuts what sticks out around the middle, `aspect` fills a canvas that has the image's own aspect
    (see `canvas_size`).

    Raises InputError for sizes that no picture has, and for a picture that is too long and thin for `crop`.
    """

    image_size: tuple[int, int]
    model_size: tuple[int, int]
    fit: str = "stretch"

    def __post_init__(self):
        if not isinstance(self.fit, str) or self.fit not in FITS:
            raise InputError(f"fit is {shown(self.fit)}; it must be one of {', '.join(FITS)}")
        for what in ("image_size", "model_size"):
            check_size(getattr(self, what), what)
        if self.fit == "crop" and max(self.image_size) > LONGEST * min(self.image_size):
            raise InputError(
                f"the picture of {self.image_size[1]} x {self.image_size[0]} px is too long and thin to be cut to the shape that "
                f"the model sees: use fit 'stretch' or 'pad'"
            )

    @classmethod
    def for_image(cls, image: tuple[int, int], square: tuple[int, int], patch: tuple[int, int], fit: str) -> "Geometry":
        """Of an image of this (height, width) on its canvas, see `canvas_size`."""
        return cls(image, canvas_size(image, square, patch, fit), fit)

    @property
    def scaled_size(self) -> tuple[int, int]:
        """Height and width of the whole image at the model's scale."""
        if self.fit in WHOLE:
            return self.model_size
        ratios = [model / image for model, image in zip(self.model_size, self.image_size, strict=True)]
        ratio = min(ratios) if self.fit == "pad" else max(ratios)
        height, width = (max(1, round(side * ratio)) for side in self.image_size)
        return height, width

    @property
    def margins(self) -> tuple[int, int]:
        """Rows and columns before the scaled image on the model's canvas; negative where they are cut off."""
        top, left = ((model - scaled) // 2 for model, scaled in zip(self.model_size, self.scaled_size, strict=True))
        return top, left

    def finer(self, most: int) -> "Geometry":
        """The same onto a canvas so many times as large, a whole number up to `most`, as the image has more to show."""
        ratio = max(image / scaled for image, scaled in zip(self.image_size, self.scaled_size, strict=True))
        times = min(most, max(1, round(ratio)))
        height, width = self.model_size
        return replace(self, model_size=(times * height, times * width))

    def to_model(self, pixels: Tensor, mode: str, fill: float | Tensor = 0.0) -> Tensor:
        """[B, C, h, w] of any size, seen as covering the image, to [B, C, H, W]. `fill` [C, 1, 1] is for `pad`."""
        if self.fit not in WHOLE and pixels.shape[-2:] != self.image_size:
            pixels = resize(pixels, self.image_size, mode)
        pixels = resize(pixels, self.scaled_size, mode)
        if self.fit in WHOLE:
            return pixels
        (top, left), (height, width) = self.margins, self.model_size
        if self.fit == "crop":
            return pixels[..., -top : height - top, -left : width - left]
        inner_height, inner_width = pixels.shape[-2:]
        canvas = pixels.new_zeros(*pixels.shape[:2], height, width) + fill
        canvas[..., top : top + inner_height, left : left + inner_width] = pixels
        return canvas

    def from_model(self, maps: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Maps [M, H, W] on the model's canvas, in the image's own geometry: [M, h, w], zero where the model saw nothing.

        size: (height, width) of a copy of the image, to have them at that size.
        """
        (top, left), (height, width) = self.margins, self.scaled_size
        model_height, model_width = self.model_size
        on_image = F.pad(maps, (-left, left + width - model_width, -top, top + height - model_height))
        return resize(on_image[:, None], size or self.image_size, "bilinear")[:, 0]

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> "Geometry":
        """Of what `to_dict` gave, which may have been JSON since. Raises InputError for anything else, with the field's name."""
        for what in ("image_size", "model_size", "fit"):
            if what not in data:
                raise InputError(f"there is no {what}")
        image, model = (tuple(size) if isinstance(size := data[what], list) else size for what in ("image_size", "model_size"))
        return cls(image, model, data["fit"])


def check_size(size: object, what: str) -> None:
    """Raises InputError for what is no (height, width) in pixels that a picture can have."""
    if (
        not isinstance(size, tuple)
        or len(size) != 2
        or not all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in size)
        or size[0] * size[1] > LARGEST
    ):
        raise InputError(f"{what} is {shown(size)}; it must be height and width in pixels, at most {LARGEST} pixels in all")


def canvas_size(image: tuple[int, int], square: tuple[int, int], patch: tuple[int, int], fit: str) -> tuple[int, int]:
    """Height and width of the canvas for an image: `square`, or with `aspect` about as many whole patches in its own shape.

    A side has two patches at least; a picture that is longer than that allows is squashed.
    """
    if fit != "aspect":
        return square
    stretch = ((square[0] * square[1]) / (image[0] * image[1])) ** 0.5
    longest = max(2, square[0] // patch[0] * (square[1] // patch[1]) // 2)
    height, width = (min(max(2, round(side * stretch / step)), longest) * step for side, step in zip(image, patch, strict=True))
    return height, width


def resize(pixels: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """[B, C, h, w] in 0..1 to another size (height, width), antialiased, still in 0..1."""
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    return F.interpolate(pixels, size=size, mode=mode, align_corners=False, antialias=True).clamp(0, 1)
