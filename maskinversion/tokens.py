"""The result of an inversion: one localized embedding token per mask, and everything needed to know where it came from."""

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .compute.memory import check_room
from .errors import InputError
from .geometry import Geometry

FORMAT = "maskinversion-tokens-1"
TENSORS = ("embeddings", "maps", "losses", "iou", "global_embedding")


@dataclass(frozen=True)
class LocalizedTokens:
    """M localized embedding tokens of one image.

    embeddings [M, D]: float32 (float64 from a float64 model), unnormalised, in the joint space of the model.
    maps [M, H, W]: the explainability map of each token on the model's canvas, in 0..1, at the last step's loss.
    losses [iterations, M]. iou [M]: of the map and the mask, each cut at half its maximum.
    global_embedding [D]: the model's plain image embedding, where the tokens started from.
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
        """Write a safetensors file; it appears only when it is complete."""
        path = Path(path)
        tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in TENSORS}
        metadata = {
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "geometry": json.dumps(self.geometry.to_dict()),
            "parameters": json.dumps(self.parameters),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        try:
            save_file(tensors, partial, metadata=metadata)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike) -> "LocalizedTokens":
        """Read what `save` wrote. Raises InputError for any other file."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise InputError(f"{path} is a safetensors file, but not one of localized tokens ({FORMAT})")
                tensors = {name: file.get_tensor(name) for name in TENSORS}
        except (FileNotFoundError, IsADirectoryError) as error:
            raise InputError(f"there is no file {path}") from error
        except SafetensorError as error:
            raise InputError(f"{path} is not a complete safetensors file ({error})") from error
        return cls(
            **tensors,
            geometry=Geometry.from_dict(json.loads(metadata["geometry"])),
            model=metadata["model"],
            fingerprint=metadata["fingerprint"],
            parameters=json.loads(metadata["parameters"]),
        )


Sets = Sequence[LocalizedTokens]


def overlap(maps: Tensor, masks: Tensor) -> Tensor:
    """Intersection over union [M] of maps and masks [M, H, W], each cut at half its maximum."""
    found = []
    for pair in zip(maps, masks, strict=True):  # one by one: counting truths takes eight bytes each
        a, b = (t >= 0.5 * t.max() for t in pair)
        found.append((a & b).sum() / (a | b).sum().clamp(min=1))
    return torch.stack(found)
