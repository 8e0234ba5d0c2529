"""A CLIP of the library whose place in memory is ComfyUI's to decide."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
from torch import Tensor

from ..maskinversion import Clip, EncodedImage, MaskInverter, load_clip

KEPT = 2  # encoded pictures

# Those of native models, which come without a place of ours; for as long as the model is in use.
encoded_by: WeakKeyDictionary[comfy.clip_vision.ClipVisionModel, OrderedDict] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class ManagedClip:
    """clip, and who moves its weights. casts: whether the model's parts fetch and cast their own weights when they are called,
    as those of a native CLIP_VISION do, so that some of them may stay behind. recent: pictures encoded last."""

    clip: Clip
    patcher: comfy.model_patcher.ModelPatcher
    casts: bool = False
    recent: OrderedDict[tuple, EncodedImage] = field(default_factory=OrderedDict)

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
        if isinstance(given, cls):
            return given
        return cls(load_clip(given), given.patcher, casts=True, recent=encoded_by.setdefault(given, OrderedDict()))

    def ready(self) -> Clip:
        """The CLIP with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=not self.casts)
        return self.clip

    def encode(self, inverter: MaskInverter, picture: Tensor) -> EncodedImage:
        """The picture [h, w, 3] encoded, or what came of it when it was among the last few: only its mask has changed, say."""
        pixels = hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).digest()
        key = (
            pixels,
            picture.shape,
            self.patcher.patches_uuid,
            inverter.layers,
            inverter.image_size,
            inverter.fit,
            inverter.precision,
        )
        encoded = self.recent.pop(key, None)
        if encoded is None or encoded.entering.device != self.clip.device:
            encoded = inverter.encode(picture)
        self.recent[key] = encoded
        while len(self.recent) > KEPT:
            self.recent.popitem(last=False)
        return encoded
