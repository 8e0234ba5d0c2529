"""Models of the library whose place in memory is ComfyUI's to decide."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import comfy.clip_vision
import comfy.model_management
import comfy.model_patcher
import torch
from torch import Tensor

from ...maskinversion import Clip, EncodedImage, MaskInverter, MemoryLimitError, load_clip
from ...maskinversion.compute.cached_product import forget_products
from ...maskinversion.models.hub import Progress
from ...maskinversion.tasks.caption import Captioner, load_captioner
from ...maskinversion.tasks.diffusion import Decoder, Prior, load_decoder, load_prior

KEPT = 2  # encoded pictures

# By the model that encoded them, for as long as it is in use; cleared when memory is short.
encoded_by: WeakKeyDictionary[object, OrderedDict[tuple, EncodedImage]] = WeakKeyDictionary()

Model = TypeVar("Model")


class InUse(Generic[Model]):
    """Models that some node still holds, by what they were loaded from, so that two loaders of the same one share it."""

    def __init__(self):
        self.models: WeakValueDictionary[tuple, Model] = WeakValueDictionary()

    def get(self, source: tuple, load: Callable[[], Model]) -> Model:
        """source: changes when the files do."""
        model = self.models.get(source)
        if model is None:
            model = self.models[source] = load()
        return model


@dataclass(frozen=True, eq=False)
class ManagedClip:
    """clip, and who moves its weights."""

    clip: Clip
    patcher: comfy.model_patcher.ModelPatcher

    @classmethod
    def load(cls, source: str, architecture: str | None, progress: Progress | None = None) -> ManagedClip:
        clip = load_clip(source, architecture, device="cpu", progress=progress)
        return cls(clip, patcher_of(clip.model, comfy.model_management.text_encoder_offload_device()))

    def ready(self) -> Clip:
        """The CLIP with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.clip


@dataclass(frozen=True, eq=False)
class NativeClip:
    """ComfyUI's own CLIP_VISION. Nothing of the model is changed, or kept longer than it."""

    model: comfy.clip_vision.ClipVisionModel

    @property
    def patcher(self) -> comfy.model_patcher.ModelPatcher:
        return self.model.patcher

    def ready(self) -> Clip:
        """The CLIP with its weights where they can be used; call it at the start of every execution.

        It is read anew each time, since its weights may have been patched; what was computed of them is kept with its modules.
        The model's parts fetch and cast their own weights when they are called, so some of them may stay behind.
        Raises ModelError for a model without an image-text space.
        """
        comfy.model_management.load_models_gpu([self.patcher])
        return load_clip(self.model)


def managed(given: ManagedClip | comfy.clip_vision.ClipVisionModel) -> ManagedClip | NativeClip:
    """What came in on a socket that takes both."""
    return given if isinstance(given, ManagedClip) else NativeClip(given)


@dataclass(frozen=True, eq=False)
class ManagedCaptioner:
    """captioner, and who moves its weights."""

    captioner: Captioner
    patcher: comfy.model_patcher.ModelPatcher

    @classmethod
    def load(cls, source: str) -> ManagedCaptioner:
        captioner = load_captioner(source, device="cpu")
        return cls(captioner, patcher_of(captioner.model, comfy.model_management.text_encoder_offload_device()))

    def ready(self) -> Captioner:
        """The captioner with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.captioner


@dataclass(frozen=True, eq=False)
class ManagedDecoder:
    """decoder, and who moves its weights. patcher: None when the decoder moves them itself, one part after the other."""

    decoder: Decoder
    patcher: comfy.model_patcher.ModelPatcher | None

    @classmethod
    def load(
        cls, source: str, adapter: Path | None, dtype: torch.dtype | None, offload: bool, progress: Progress | None = None
    ) -> ManagedDecoder:
        """dtype: None is what ComfyUI would take for a diffusion model here. offload is of no use, and ignored, on a CPU."""
        device = comfy.model_management.get_torch_device()
        dtype = comfy.model_management.unet_dtype(device) if dtype is None else dtype
        if offload and not comfy.model_management.is_device_cpu(device):
            return cls(load_decoder(source, dtype, adapter, offload=device, progress=progress), None)
        decoder = load_decoder(source, dtype, adapter, progress=progress)
        parts = torch.nn.ModuleDict(decoder.modules)
        return cls(decoder, patcher_of(parts, comfy.model_management.unet_offload_device()))

    def ready(self) -> Decoder:
        """The decoder, with its weights where they can be used or room for them; call it at the start of every execution."""
        if self.patcher is None:
            largest = max(map(comfy.model_management.module_size, self.decoder.modules.values()))
            room = largest + comfy.model_management.minimum_inference_memory()
            comfy.model_management.free_memory(room, self.decoder.offload)
        else:
            comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.decoder


@dataclass(frozen=True, eq=False)
class ManagedPrior:
    """prior, and who moves its weights."""

    prior: Prior
    patcher: comfy.model_patcher.ModelPatcher

    @classmethod
    def load(cls, source: str, progress: Progress | None = None) -> ManagedPrior:
        prior = load_prior(source, progress=progress)
        return cls(prior, patcher_of(prior.model, comfy.model_management.text_encoder_offload_device()))

    def ready(self) -> Prior:
        """The prior with its weights where they can be used; call it at the start of every execution."""
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.prior


def patcher_of(model: torch.nn.Module, offload_device: torch.device) -> comfy.model_patcher.ModelPatcher:
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload_device)


def encode(clip: ManagedClip | NativeClip, inverter: MaskInverter, picture: Tensor) -> EncodedImage:
    """The picture [h, w, 3] encoded, or what came of it when it was among the last few: only its mask has changed, say."""
    pixels = hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).digest()
    settings = inverter.settings
    key = (pixels, picture.shape, clip.patcher.patches_uuid, settings.layers, inverter.image_size, settings.fit)
    recent = encoded_by.setdefault(inverter.clip.model, OrderedDict())
    encoded = recent.pop(key, None)
    if encoded is None or encoded.entering.device != inverter.clip.device:
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
        forget_products()
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        raise
