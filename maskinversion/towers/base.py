"""The one thing that the rest of the library knows of a vision model."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..decomposition import Block, Head


@dataclass(frozen=True)
class EncodedLayers:
    """What a tower reads off a single forward pass of one image.

    blocks: the last `layers` blocks, first to last. grid: rows and columns of patches. prefix: tokens before the patches.
    global_embedding [D]: the plain, unnormalised image embedding of the model. entering, leaving [N, d]: the tokens before and
    after the last block.
    """

    blocks: list[Block]
    head: Head
    grid: tuple[int, int]
    prefix: int
    global_embedding: Tensor
    entering: Tensor
    leaving: Tensor


class Tower(Protocol):
    """A frozen vision transformer with a joint image-text space.

    patch_size, image_size: in pixels, (height, width); the size is the model's native one. depth: number of blocks.
    width_out: D, the size of the joint space. projection: the weight that leads into it.
    mean, std: of the input's channels, [3]. interpolation: how images are resized. device, dtype: of the weights.
    """

    patch_size: tuple[int, int]
    image_size: tuple[int, int]
    depth: int
    width_out: int
    projection: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def encode(self, pixels: Tensor, layers: int) -> EncodedLayers:
        """One normalised image [1, 3, H, W], H and W multiples of the patch size; nothing of the model is changed.

        The returned tensors are at least float32, on the model's device.
        """
        ...
