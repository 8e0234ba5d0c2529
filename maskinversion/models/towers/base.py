"""The one thing that the rest of the library knows of a vision model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...explain.base import LayerMap
from ...geometry import Geometry
from .opening import check_there, named
from .proof import own_failure, prove
from .reading import at_least_float32

CLIP_PIXELS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # mean and std of OpenAI's data


@dataclass(frozen=True)
class EncodedLayers:
    """What a tower reads off a single forward pass of one image.

    maps: of the last `layers` blocks, first to last. grid: rows and columns of patches. prefix: tokens before the patches.
    global_embedding [D]: the plain, unnormalised image embedding of the model. entering, leaving [N, d]: the tokens before and
    after the last block. states [N, d]: those after every block, first to last, where the tower `keeps_states`.
    """

    maps: list[LayerMap]
    grid: tuple[int, int]
    prefix: int
    global_embedding: Tensor
    entering: Tensor
    leaving: Tensor
    states: list[Tensor]


class Tower(ABC):
    """A frozen vision transformer with an image embedding; one subclass per family, which reads the model and never writes.

    patch_size, image_size: in pixels, (height, width); the size is the model's native one. prefix: tokens before the patches.
    model: what its embedding is compared with, see `own`. blocks: its transformer blocks. width_out: D, the size of the
    embedding. projection: the last weight that leads into it. mean, std: of the input's channels, [3]. interpolation: how images
    are resized. keeps_states: whether what is encoded carries the tokens after every block, for a model whose users read them.
    """

    patch_size: tuple[int, int]
    image_size: tuple[int, int]
    prefix: int
    model: Any
    blocks: Sequence[Any]
    width_out: int
    projection: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    keeps_states: bool = False

    @abstractmethod
    def __init__(self, model: Any):
        """Of a model that it `reads`. Raises ModelError, which says why, for one that cannot be used."""

    @staticmethod
    @abstractmethod
    def reads(model: object) -> bool:
        """Whether this family is for this model; whether it can be used turns out when the tower is made."""

    @staticmethod
    def reads_config(vision: dict) -> bool:
        """Whether it can read the image side that open_clip makes of this `vision_cfg`."""
        return False

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.projection.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.projection.dtype

    def canvas(self, pixels: Tensor, geometry: Geometry) -> Tensor:
        """What the model sees of an image [1, 3, h, w] in 0..1: [1, 3, H, W], normalised."""
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self.mean, self.std))
        return (geometry.to_model(pixels, self.interpolation, fill=mean) - mean) / std

    def encode(self, pixels: Tensor, layers: int) -> list[EncodedLayers]:
        """B normalised images [B, 3, H, W], H and W multiples of the patch size; nothing of the model is changed.

        The returned tensors are at least float32, on the model's device. Raises ModelError, with the module's name, where a
        part of the model computes something else than its class and weights say, or the whole of it another embedding.
        """
        with named(self.model):
            check_there(self.model)
            pixels = pixels.to(self.device, self.dtype)
            with own_failure(self, pixels):
                found = self.pass_through(pixels, layers)
        prove(self, pixels[:1], found[0].global_embedding)
        return found

    def pass_through(self, pixels: Tensor, layers: int) -> list[EncodedLayers]:
        """`encode` of pixels where the model computes, without looking whether that is what the model itself gives.

        The images go through most blocks together, and one by one through those whose maps are wanted.
        """
        grid = self.grid_of(pixels)
        tokens = self.enter(pixels, grid)
        images = range(len(tokens))
        maps: list[list[LayerMap]] = [[] for _ in images]
        states: list[list[Tensor]] = [[] for _ in images]
        for index, block in enumerate(self.blocks):
            entering = tokens
            if index < self.depth - layers:
                tokens, _ = self.run_block(block, tokens, grid, wanted=False)
            else:
                leaving = []
                for image, found in enumerate(self.run_block(block, one, grid, wanted=True) for one in tokens.split(1)):
                    leaving.append(found[0])
                    if found[1] is not None:
                        maps[image].append(found[1])
                tokens = torch.cat(leaving) if len(leaving) > 1 else leaving[0]
            if self.keeps_states:
                for image in images:
                    states[image].append(own_part(tokens, image))
        embedded = self.embed(tokens)
        own = [[own_part(whole, image) for whole in (embedded, entering, tokens)] for image in images]
        return [EncodedLayers(maps[image], grid, self.prefix, *own[image], states=states[image]) for image in images]

    def embed_canvases(self, canvases: Tensor) -> Tensor:
        """The model's plain embeddings [B, D], at least float32, of canvases [B, 3, H, W] as `canvas` makes them."""
        pixels = canvases.to(self.device, self.dtype)
        grid = self.grid_of(pixels)
        tokens = self.enter(pixels, grid)
        for block in self.blocks:
            tokens, _ = self.run_block(block, tokens, grid, wanted=False)
        return at_least_float32(self.embed(tokens))

    def grid_of(self, canvases: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        return canvases.shape[-2] // self.patch_size[0], canvases.shape[-1] // self.patch_size[1]

    @abstractmethod
    def own(self, pixels: Tensor) -> Tensor:
        """The model's own image embedding [1, D] of an image [1, 3, H, W] of its native size, by its own forward pass."""

    @abstractmethod
    def enter(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """The tokens [B, N, d] that enter the first block."""

    @abstractmethod
    def run_block(self, block: Any, tokens: Tensor, grid: tuple[int, int], wanted: bool) -> tuple[Tensor, LayerMap | None]:
        """The tokens [B, N, d] after the block; of one image its map too, if that is wanted."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """The model's image embedding [B, D] of the last block's tokens."""

    @abstractmethod
    def mixed_values(self, entering: Tensor, leaving: Tensor) -> Tensor:
        """What the attention that leads to the embedding mixes: the values [K, h * d_h] of K tokens.

        entering, leaving [K, d]: these tokens before and after the last block, at least float32, as the result is. It is the
        attention of the last block, or of the pooler where the model pools with attention.
        """

    @abstractmethod
    def embed_mixture(self, mixture: Tensor, residual: Tensor | None) -> Tensor:
        """The embeddings [K, D] that the model would have if that attention gave `mixture` [K, h * d_h].

        residual [K, d]: what the last block adds its attention to; None for nothing. A pooler adds it to nothing.
        """


def own_part(whole: Tensor, image: int) -> Tensor:
    """What is of one image [...] in [B, ...], at least float32; it does not keep the others in memory."""
    part = at_least_float32(whole[image])
    return part.clone() if len(whole) > 1 and part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() else part


FAMILIES: list[type[Tower]] = []

Family = TypeVar("Family", bound=Tower)


def family(tower: type[Family]) -> type[Family]:
    """Registers a tower. No two of them read the same model."""
    FAMILIES.append(tower)
    return tower
