"""A CLIP of the library whose place in memory is ComfyUI's to decide."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
from torch import Tensor

from ..maskinversion import Clip, EncodedImage, MaskInverter, MemoryLimitError, load_clip

KEPT = 2  # encoded pictures

# By the model that encoded them, for as long as it is in use; cleared when memory is short.
encoded_by: WeakKeyDictionary[object, OrderedDict[tuple, EncodedImage]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class ManagedClip:
    """clip, and who moves its weights. casts: whether the model's parts fetch and cast their own weights when they are called,
    as those of a native CLIP_VISION do, so that some of them may stay behind."""

    clip: Clip
    patcher: comfy.model_patcher.ModelPatcher
    casts: bool = False

    @classmethod
    def wrap(cls, clip: Clip) -> "ManagedClip":
        device = comfy.model_management.get_torch_device()
        offload = comfy.model_management.text_encoder_offload_device()
        return cls(clip, comfy.model_patcher.ModelPatcher(clip.model, load_device=device, offload_device=offload))

    @classmethod
    def of(cls, given: "ManagedClip | comfy.clip_vision.ClipVisionModel") -> "ManagedClip":
        """What came in on a socket that takes both. Nothing of a native model is changed, or kept longer than it.

        Raises ModelError for a native model without an image-text space.
        """
        return given if isinstance(given, cls) else cls(load_clip(given), given.patcher, casts=True)

    def ready(self) -> Clip:
        """The CLIP with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=not self.casts)
        return self.clip

    def encode(self, inverter: MaskInverter, picture: Tensor) -> EncodedImage:
        """The picture [h, w, 3] encoded, or what came of it when it was among the last few: only its mask has changed, say."""
        pixels = hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).digest()
        settings = inverter.settings
        key = (pixels, picture.shape, self.patcher.patches_uuid, settings.layers, inverter.image_size, settings.fit)
        recent = encoded_by.setdefault(self.clip.model, OrderedDict())
        encoded = recent.pop(key, None)
        if encoded is None or encoded.entering.device != self.clip.device:
            encoded = inverter.encode(picture)
        recent[key] = encoded
        while len(recent) > KEPT:
            recent.popitem(last=False)
        return encoded


@contextmanager
def memory_back() -> Iterator[None]:
    """When the memory was too small, unload everything, as ComfyUI does at such an error of its own, and what is kept here."""
    try:
        yield
    except MemoryLimitError:
        encoded_by.clear()
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        raise
