"""The result of an inversion: one localized embedding token per mask, and everything needed to know where it came from."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from reprlib import repr as shown

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .compute.memory import check_room
from .errors import InputError, encodable, first_line
from .files import check_safetensors, json_object, written_whole
from .geometry import Geometry

FORMAT = "maskinversion-tokens-1"
# What a file holds, and its dimensions: M tokens of D numbers, K steps, maps of H x W.
TENSORS = {
    "embeddings": ("M", "D"),
    "maps": ("M", "H", "W"),
    "losses": ("K", "M"),
    "iou": ("M",),
    "global_embedding": ("D",),
}
METADATA = ("model", "fingerprint", "geometry", "parameters")
WIDENED = (torch.float16, torch.bfloat16)  # to float32
TAKEN = (torch.float32, torch.float64)
ROUNDING = 1e-3


@dataclass(frozen=True)
class LocalizedTokens:
    """M localized embedding tokens of one image.

    embeddings [M, D]: float32 (float64 from a float64 model), unnormalised, in the joint space of the model.
    maps [M, H, W]: the explainability map of each token on the model's canvas, in 0..1, at the last step's loss.
    losses [iterations, M]. iou [M]: of the map and the mask, each cut at half its maximum.
    global_embedding [D]: the model's plain embedding of the whole image, at which the start `picture` begins.
    geometry: how the image became the canvas. model, fingerprint: which CLIP. parameters: of the inverter, and
    the `arithmetic` that it was computed with, see `compute.matmul`.
    """

    embeddings: Tensor
    maps: Tensor
    losses: Tensor
    iou: Tensor
    global_embedding: Tensor
    geometry: Geometry
    model: str
    fingerprint: str
    parameters: dict

    def __len__(self) -> int:
        return len(self.embeddings)

    def maps_for(self, size: tuple[int, int] | None = None) -> Tensor:
        """The maps [M, h, w] over the image itself, at its own (height, width) or at the `size` of a copy of it.

        Raises MemoryLimitError where they do not fit into memory.
        """
        height, width = size or self.geometry.image_size
        check_room(
            len(self) * height * width * self.maps.element_size(),
            f"{len(self)} maps of {width} x {height} px",
            "ask for a smaller size, or for fewer at a time",
            self.maps.device,
        )
        maps = self.maps.new_empty(len(self), height, width)
        for own, found in zip(self.maps, maps, strict=True):  # one by one: what is between is as large as the maps
            found.copy_(self.geometry.from_model(own[None], size)[0])
        return maps

    def save(self, path: str | os.PathLike) -> None:
        """Write a safetensors file; it appears only when it is complete. Raises InputError where there can be no such file."""
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in TENSORS}
        metadata = {
            "format": FORMAT,
            "model": encodable(self.model),
            "fingerprint": self.fingerprint,
            "geometry": json.dumps(self.geometry.to_dict()),
            "parameters": json.dumps(self.parameters),
        }
        with written_whole(path) as partial:
            save_file(tensors, partial, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LocalizedTokens":
        """Read what `save` wrote. Raises InputError for any other file, and for one that is damaged, naming the field."""
        check_safetensors(path)
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(f"{path} is a safetensors file, but not one of localized tokens ({FORMAT})")
                for name in sorted(TENSORS.keys() - file.keys()) + sorted(set(METADATA) - metadata.keys()):
                    raise InputError(f"{path} is not complete: it has no {name}")
                tensors = {name: file.get_tensor(name) for name in TENSORS}
        except SafetensorError as error:
            raise InputError(f"{path} is not a complete safetensors file ({first_line(error)})") from error
        except OSError as error:
            raise InputError(f"{path} could not be read ({first_line(error)})") from error
        try:
            geometry, parameters = (json_object(metadata[name], name) for name in ("geometry", "parameters"))
            operations = parameters.get("operations", [])
            if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
                raise InputError(f"parameters.operations is {shown(operations)}; it must be a list of objects")
            found = cls(
                **checked(tensors),
                geometry=Geometry.from_dict(geometry),
                model=metadata["model"],
                fingerprint=metadata["fingerprint"],
                parameters=parameters,
            )
            if tuple(found.maps.shape[1:]) != found.geometry.model_size:
                raise InputError(f"the maps are of {tuple(found.maps.shape[1:])}, and model_size is {found.geometry.model_size}")
        except InputError as error:
            raise InputError(f"{path} is damaged: {error}") from error
        return found


def checked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file by their names, in float32 or float64. Raises InputError for those that no inversion can have made."""
    sizes: dict[str, int] = {}
    found = {}
    for name, dimensions in TENSORS.items():
        tensor = tensors[name]
        if tensor.dtype not in (*TAKEN, *WIDENED):
            raise InputError(f"{name} has numbers of type {tensor.dtype}; they must be float32")
        expected = tuple(sizes.get(one, "any") for one in dimensions)
        shape = tuple(tensor.shape)
        if len(shape) != len(dimensions) or any(sizes.setdefault(one, side) != side for one, side in zip(dimensions, shape)):
            raise InputError(f"{name} has the shape {shape}; it must be ({', '.join(map(str, expected))})")
        if 0 in shape and name != "losses":
            raise InputError(f"{name} is empty: its shape is {shape}")
        if not tensor.isfinite().all():
            raise InputError(f"{name} has NaN or infinite numbers")
        found[name] = tensor.float() if tensor.dtype in WIDENED else tensor
    for name in ("embeddings", "global_embedding"):
        lengths = found[name].norm(dim=-1)
        if not (lengths.isfinite() & (lengths > 0)).all():
            raise InputError(f"{name} has no direction: its length is 0, or more than can be written")
    if found["maps"].min() < -ROUNDING or found["maps"].max() > 1 + ROUNDING:
        raise InputError(f"maps has numbers from {found['maps'].min():.3g} to {found['maps'].max():.3g}; they must be in 0..1")
    return found


Sets = Sequence[LocalizedTokens] | LocalizedTokens


def sets_of(tokens: Sets) -> list[LocalizedTokens]:
    """The sets that were given, or the only one. Raises InputError for none, and for anything else."""
    found = list(tokens) if isinstance(tokens, Iterable) else [tokens]
    for one in found:
        if not isinstance(one, LocalizedTokens):
            raise InputError(f"there is a {type(one).__name__} where tokens should be: give what MaskInverter.invert returns")
    if not found:
        raise InputError("there are no tokens: give at least one set")
    return found


def overlap(maps: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union [M] of maps and masks [M, H, W], each cut at half its maximum."""
    found = []
    for pair in zip(maps, masks, strict=True):  # one by one: counting truths takes eight bytes each
        a, b = (t >= 0.5 * t.max() for t in pair)
        found.append((a & b).sum() / (a | b).sum().clamp(min=1))
    return torch.stack(found)
