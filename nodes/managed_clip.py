"""A CLIP of the library whose place in memory is ComfyUI's to decide."""

from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher

from ..maskinversion import Clip


@dataclass(frozen=True, eq=False)
class ManagedClip:
    clip: Clip
    patcher: comfy.model_patcher.ModelPatcher

    @classmethod
    def wrap(cls, clip: Clip) -> "ManagedClip":
        device = comfy.model_management.get_torch_device()
        offload = comfy.model_management.text_encoder_offload_device()
        return cls(clip, comfy.model_patcher.ModelPatcher(clip.model, load_device=device, offload_device=offload))

    def ready(self) -> Clip:
        """The CLIP with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.clip
