"""A CLIP of the library whose place in memory is ComfyUI's to decide."""

from dataclasses import dataclass

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher

from ..maskinversion import Clip, load_clip


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
        """What came in on a socket that takes both. Nothing of a native model is copied or kept.

        Raises ModelError for a native model without an image-text space.
        """
        return given if isinstance(given, cls) else cls(load_clip(given), given.patcher, casts=True)

    def ready(self) -> Clip:
        """The CLIP with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=not self.casts)
        return self.clip
