"""Embeddings of phrases on disk, so that a list is read once and not at every start.

A file for every CLIP and set of templates, in the user's cache folder: safetensors, so that nothing is unpickled. It is never
needed: where it cannot be read, is damaged or cannot be written, everything works as without it.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import InputError
from ..files import cache_folder, check_safetensors, written_whole
from ..models.clip import Clip

PHRASES = 20_000  # of a file; the newest are kept
LARGEST = 2**28  # bytes of all files; those that were not used for longest are deleted
KEY = 16  # bytes of a phrase's hash
SAMPLES = 64  # numbers of each weight
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
UNIT = 1e-3  # how far from 1 the length of an embedding may be
PROBE = "Ein roter Fuchs, 12 naïve 狐 & the WORD's end."  # what tokenizers disagree on
FORMAT = "maskinversion-texts-1"


class TextCache:
    """Of the phrases of a CLIP in these templates. It is read once."""

    def __init__(self, clip: Clip, templates: Sequence[str]):
        folder = cache_folder()
        self.width = clip.tower.width_out
        self.path = None
        if folder is not None and clip.tokenizer is not None:
            name = hashlib.sha256(json.dumps([identity(clip), *templates]).encode()).hexdigest()[:32]
            self.path = folder / "texts" / f"{name}.safetensors"
        self.known: dict[bytes, Tensor] | None = None

    def read(self, phrases: Sequence[str]) -> dict[str, Tensor]:
        """The unit embeddings [D] of those that are there."""
        if self.path is None:
            return {}
        if self.known is None:
            self.known = read(self.path, self.width)
            if self.known:
                with suppress(OSError):
                    os.utime(self.path)
        return {phrase: self.known[key] for phrase in phrases if (key := key_of(phrase)) in self.known}

    def add(self, embeddings: Mapping[str, Tensor]) -> None:
        """Write them to those that are there by now."""
        if self.path is None or not embeddings:
            return
        known = read(self.path, self.width) | {key_of(phrase): embedding for phrase, embedding in embeddings.items()}
        newest = list(known.items())[-PHRASES:]
        tensors = {
            "keys": torch.frombuffer(bytearray(b"".join(key for key, _ in newest)), dtype=torch.uint8).view(-1, KEY),
            "embeddings": torch.stack([embedding.float() for _, embedding in newest]),
        }
        with suppress(OSError, InputError):
            with written_whole(self.path) as path:
                path.write_bytes(safetensors.torch.save(tensors, {"format": FORMAT}))
            delete_oldest(self.path.parent)


def identity(clip: Clip) -> list[str]:
    """What the embeddings of a CLIP's texts depend on: its weights but those of the image side, and its tokenizer.

    Of each weight, the sum of its bits, which is exact on every device and other for any change, and samples, for changed places.
    """
    assert clip.tokenizer is not None
    weights = hashlib.sha256()
    for name, weight in sorted(clip.model.state_dict().items()):
        if isinstance(weight, Tensor) and not name.startswith(("visual.", "vision_model.")):
            bits = weight.detach().flatten().view(BITS[weight.element_size()])
            samples = bits[:: max(1, len(bits) // SAMPLES)].tolist()
            weights.update(f"{name} {tuple(weight.shape)} {weight.dtype} {int(bits.sum())} {samples}".encode())
    return [clip.fingerprint, weights.hexdigest(), str(clip.tokenizer([PROBE]).tolist())]


def key_of(phrase: str) -> bytes:
    return hashlib.sha256(phrase.encode()).digest()[:KEY]


def read(path: Path, width: int) -> dict[bytes, Tensor]:
    """What a file holds, by the hash of the phrase; nothing where there is none or it is not what `add` wrote."""
    try:
        check_safetensors(path)
        if path.stat().st_size > LARGEST:
            return {}
        tensors = safetensors.torch.load(path.read_bytes())  # not mapped: another process may replace the file
        keys, embeddings = tensors["keys"], tensors["embeddings"]
    except (OSError, InputError, SafetensorError, KeyError, ValueError):
        return {}
    if keys.dtype != torch.uint8 or embeddings.dtype != torch.float32:
        return {}
    if keys.shape != (len(keys), KEY) or embeddings.shape != (len(keys), width):
        return {}
    if not bool(((embeddings.norm(dim=1) - 1).abs() < UNIT).all()):  # false for NaN too
        return {}
    return {bytes(key): embedding for key, embedding in zip(keys.tolist(), embeddings, strict=True)}


def delete_oldest(folder: Path) -> None:
    found = sorted((file.stat().st_mtime_ns, file.stat().st_size, file) for file in folder.glob("*.safetensors"))
    total = sum(size for _, size, _ in found)
    for _, size, file in found[:-1]:
        if total <= LARGEST:
            return
        file.unlink()
        total -= size
