"""How an image's own pixels become the canvas that the model sees, and the way back. Image and mask always go together."""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError
from .settings import FITS

WHOLE = ("stretch", "aspect")  # the whole image covers the whole canvas


@dataclass(frozen=True)
class Geometry:
    """The map between an image of `image_size` (height, width) and the model's `model_size` (height, width), in pixels.

    fit: `stretch` squashes to the model's size (as the published reference), `pad` keeps the aspect and fills the rest,
    `crop` keeps the aspect and cuts what sticks out around the middle, `aspect` fills a canvas that has the image's own aspect
    (see `canvas_size`).
    """

    image_size: tuple[int, int]
    model_size: tuple[int, int]
    fit: str = "stretch"

    def __post_init__(self):
        if self.fit not in FITS:
            raise InputError(f"fit is {self.fit!r}; it must be one of {', '.join(FITS)}")

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
        return tuple(max(1, round(side * ratio)) for side in self.image_size)

    @property
    def margins(self) -> tuple[int, int]:
        """Rows and columns before the scaled image on the model's canvas; negative where they are cut off."""
        return tuple((model - scaled) // 2 for model, scaled in zip(self.model_size, self.scaled_size, strict=True))

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

    def from_model(self, maps: Tensor) -> Tensor:
        """Maps [M, H, W] on the model's canvas, in the image's own geometry: [M, h, w], zero where the model saw nothing."""
        (top, left), (height, width) = self.margins, self.scaled_size
        model_height, model_width = self.model_size
        on_image = F.pad(maps, (-left, left + width - model_width, -top, top + height - model_height))
        return resize(on_image[:, None], self.image_size, "bilinear")[:, 0]

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> "Geometry":
        return cls(tuple(data["image_size"]), tuple(data["model_size"]), data["fit"])


def canvas_size(image: tuple[int, int], square: tuple[int, int], patch: tuple[int, int], fit: str) -> tuple[int, int]:
    """Height and width of the canvas for an image: `square`, or with `aspect` about as many whole patches in its own shape."""
    if fit != "aspect":
        return square
    stretch = ((square[0] * square[1]) / (image[0] * image[1])) ** 0.5
    return tuple(max(2, round(side * stretch / step)) * step for side, step in zip(image, patch, strict=True))


def resize(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """[B, C, h, w] in 0..1 to another size, antialiased, still in 0..1."""
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    return F.interpolate(pixels, size=size, mode=mode, align_corners=False, antialias=True).clamp(0, 1)


def as_pixels(image: object) -> Tensor:
    """Any accepted image as float32 [1, 3, h, w] in 0..1: a PIL image, a [h, w, 3] uint8 array or float tensor in 0..1."""
    if hasattr(image, "convert"):  # PIL
        import numpy

        image = numpy.array(image.convert("RGB"))
    pixels = torch.as_tensor(image)
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise InputError(f"the image has shape {tuple(pixels.shape)}; it must be height x width x 3 (RGB)")
    if 0 in pixels.shape:
        raise InputError(f"the image is empty: its shape is {tuple(pixels.shape)}")
    pixels = pixels[..., :3]
    if pixels.dtype == torch.uint8:
        pixels = pixels.float() / 255
    elif pixels.is_floating_point():
        pixels = pixels.float()
        check_range(pixels, "the image")
    else:
        raise InputError(f"the image has numbers of type {pixels.dtype}; use uint8 (0..255) or float (0..1)")
    return pixels.permute(2, 0, 1)[None]


def as_masks(masks: object) -> list[Tensor]:
    """Any accepted masks as a list of float32 [h, w] in 0..1.

    Takes [M, h, w] or [h, w] (array or tensor; boolean, float in 0..1, or uint8 in 0..255) or a list of such masks or PIL
    images, whose sizes may differ.
    """
    import numpy

    if hasattr(masks, "convert"):
        masks = [masks]
    if isinstance(masks, (list, tuple)):
        arrays = [torch.as_tensor(numpy.array(m.convert("L")) if hasattr(m, "convert") else m) for m in masks]
    else:
        stack = torch.as_tensor(masks)
        if stack.ndim not in (2, 3):
            raise InputError(f"the masks have shape {tuple(stack.shape)}; they must be masks x height x width")
        arrays = list(stack if stack.ndim == 3 else stack[None])
    if not arrays:
        raise InputError("there is no mask: give at least one, white where the region is")
    return [_as_mask(mask, index) for index, mask in enumerate(arrays)]


def _as_mask(mask: Tensor, index: int) -> Tensor:
    if mask.ndim != 2 or 0 in mask.shape:
        raise InputError(f"mask {index} has shape {tuple(mask.shape)}; it must be height x width")
    if mask.dtype == torch.uint8:
        mask = mask.float() / 255
    elif mask.dtype == torch.bool or mask.is_floating_point():
        mask = mask.float()
    else:
        raise InputError(f"mask {index} has numbers of type {mask.dtype}; use bool, float (0..1) or uint8 (0..255)")
    check_range(mask, f"mask {index}")
    if mask.max() == 0:
        raise InputError(f"mask {index} is empty (all black): there is nothing to localise. Paint the region white")
    return mask


def check_range(values: Tensor, what: str) -> None:
    low, high = values.aminmax()
    if not torch.isfinite(low) or not torch.isfinite(high):
        raise InputError(f"{what} contains NaN or infinite values")
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(f"{what} has values from {low:.3g} to {high:.3g}; they must be in 0..1")
