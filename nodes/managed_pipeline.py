"""A pipeline of diffusers whose place in memory is ComfyUI's to decide."""

from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import torch

from ..maskinversion.tasks.diffusion import Decoder, load_decoder


@dataclass(frozen=True, eq=False)
class ManagedDecoder:
    """decoder, and who moves its weights. patcher: None when the decoder moves them itself, one part after the other."""

    decoder: Decoder
    patcher: comfy.model_patcher.ModelPatcher | None

    @classmethod
    def load(cls, source: str, adapter: Path | None, dtype: torch.dtype | None, offload: bool) -> "ManagedDecoder":
        """dtype: None is what ComfyUI would take for a diffusion model here. offload is of no use, and ignored, on a CPU."""
        device = comfy.model_management.get_torch_device()
        dtype = comfy.model_management.unet_dtype(device) if dtype is None else dtype
        if offload and not comfy.model_management.is_device_cpu(device):
            return cls(load_decoder(source, dtype, adapter, offload=device), None)
        decoder = load_decoder(source, dtype, adapter)
        parts = torch.nn.ModuleDict(decoder.modules)
        back = comfy.model_management.unet_offload_device()
        return cls(decoder, comfy.model_patcher.ModelPatcher(parts, load_device=device, offload_device=back))

    def ready(self) -> Decoder:
        """The decoder, with its weights where they can be used or room for them; call it at the start of every execution."""
        if self.patcher is None:
            largest = max(map(comfy.model_management.module_size, self.decoder.modules.values()))
            room = largest + comfy.model_management.minimum_inference_memory()
            comfy.model_management.free_memory(room, self.decoder.offload)
        else:
            comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.decoder
