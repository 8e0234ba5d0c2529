"""Pictures from localized tokens, with the pipelines of diffusers that take a CLIP image embedding or hidden states.

The paper's own setting is the Kandinsky 2.2 decoder. Pipelines are called, never changed: a token takes the place of the image
embedding, `image_embeds` or `ip_adapter_image_embeds`, and hidden states of a region the place of those of a whole picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from ...compute.ambient import settled
from ...errors import InputError, ModelError, memory_advice
from ...geometry import resize
from ...identity import check_made_for, check_same_clip
from ...models.loading import load_clip
from ...operations import embeddings_of
from ...packages import require_part
from ...pictures import as_masks, as_pixels
from ...tokens import Sets, sets_of
from .kinds import KINDS, Kind
from .settings import Settings
from .steps import Callback, Steps, as_picture, check_steps, feathered, painting_advice

USE = "a picture of a token"
LESS = "make it smaller, load the pipeline with offload, or in float16"

# The CLIP that released models of each width were trained with, by its open_clip name.
USUAL_CLIPS = {
    64: "the bundled CLIP",
    768: "ViT-L-14/openai",
    1024: "ViT-H-14/laion2b_s32b_b79k",
    1280: "ViT-bigG-14/laion2b_s39b_b160k",
}

# Tokens; or hidden states [M, K, d] of M regions, all with as many rows, for adapters that read these.
Regions = Sets | Tensor


@dataclass(frozen=True, eq=False)
class Decoder:
    """What `load_decoder` returns. name: where it came from. width: of the embeddings, or of the hidden states, that it takes.
    reads_states: whether it takes hidden states. offload: see there. trained_with: the fingerprint of the CLIP that it was trained
    with, where its folder says so.
    """

    name: str
    pipeline: Any
    width: int
    reads_states: bool = False
    offload: torch.device | None = None
    trained_with: str | None = None
    one_at_a_time: Any = field(default_factory=RLock, init=False, repr=False)  # a pipeline keeps its place in its scheduler

    @property
    def kind(self) -> str:
        return type(self.pipeline).__name__

    @property
    def called(self) -> Kind:
        return KINDS[self.kind]

    @property
    def core(self) -> Any:
        """The part that paints."""
        return getattr(self.pipeline, "transformer", None) or self.pipeline.unet

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that hold weights."""
        return {name: part for name, part in self.pipeline.components.items() if isinstance(part, nn.Module)}

    @cached_property
    def fingerprint(self) -> str | None:
        """Of the CLIP that the pipeline was trained with, where it says so or carries it in a precision that tells."""
        if self.trained_with is not None:
            return self.trained_with
        encoder = getattr(self.pipeline, "image_encoder", None)
        return None if encoder is None or encoder.dtype == torch.bfloat16 else load_clip(encoder).fingerprint

    @cached_property
    def cell(self) -> int:
        """Pixels, the side of one latent."""
        return self.pipeline.movq_scale_factor if self.called.way == "decoder" else self.pipeline.vae_scale_factor

    @cached_property
    def grain(self) -> int:
        """Sizes in pixels are multiples of this."""
        if self.called.way == "decoder":
            return self.cell**2
        patch = {"apart": 2, "joint": self.core.config.get("patch_size", 1)}.get(self.called.way, 1)
        return max(8, self.cell * patch)

    @cached_property
    def side(self) -> int:
        """The height and width in pixels that it was trained for."""
        latents = self.pipeline.default_sample_size if self.called.way == "apart" else self.core.config.sample_size
        return max(1, round(latents * self.cell / self.grain)) * self.grain

    @cached_property
    def inpainter(self) -> Any:
        """The pipeline that paints into a picture, made of the same parts. Raises ModelError where there is none."""
        wanted = self.called.inpainter
        if wanted is None:
            advice = (
                "the bundled one for painting, or kandinsky-community/kandinsky-2-2-decoder-inpaint"
                if self.called.way == "decoder"
                else "an inpainting model"
            )
            raise ModelError(f"{self.name} ({self.kind}) cannot paint into a picture: load {advice} for that")
        if wanted == self.kind:
            return self.pipeline
        more = {"requires_safety_checker": False} if self.kind == "StableDiffusionPipeline" else {}
        pipeline = require_part("diffusers", wanted, USE)(**self.pipeline.components, **more)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @contextmanager
    def placed(self, pipeline: Any) -> Iterator[None]:
        """With `offload`, each part is on that device only while it computes, and none of them afterwards."""
        if self.offload is None:
            yield
            return
        pipeline.enable_model_cpu_offload(device=self.offload)
        try:
            yield
        finally:
            pipeline.remove_all_hooks()
            pipeline.to("cpu", silence_dtype_warnings=True)

    @settled()
    def generate(
        self,
        tokens: Regions,
        settings: Settings,
        negative: Regions | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """`count` pictures of every token: [tokens * count, h, w, 3], float32 in 0..1 on the CPU.

        tokens: hidden states instead where `reads_states`. negative: one of these to lead away from. Without it that is an
        embedding of zeros; hidden states need those of a picture with nothing on it, but for Stable Diffusion 3.5, which has zeros
        too. Several threads may call this and `inpaint`, and take turns. Raises InputError for tokens of another CLIP than the
        pipeline's, ModelError for a pipeline that only paints into pictures, MemoryLimitError when it does not fit.
        """
        if not self.called.makes:
            raise ModelError(f"{self.name} ({self.kind}) only paints into pictures: load one that makes new ones for this")
        given = {"height": settings.height, "width": settings.width}
        size = {what: self.side if value is None else self.fitting(value, what) for what, value in given.items()}
        pictures = self._run(self.pipeline, tokens, negative, settings, size, {}, callback)
        return torch.stack(pictures)

    @settled()
    def inpaint(
        self,
        tokens: Regions,
        image: object,
        mask: object,
        settings: Settings,
        feather: int = 8,
        negative: Regions | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """`image` with every token painted into the white of `mask`: [tokens * count, h, w, 3] at the size of the image.

        image, mask: as `MaskInverter` takes them. Where the mask is 0 the numbers of the image come back as they were. feather:
        over how many pixels, inside the mask, the painting fades in. Raises as `generate`, and ModelError for a pipeline that
        cannot paint into pictures.
        """
        from PIL import Image

        pipeline = self.inpainter
        if feather < 0:
            raise InputError(f"feather is {feather}; it must not be negative")
        pixels, hole = as_pixels(image), list(as_masks(mask))
        if len(hole) != 1:
            raise InputError(f"there are {len(hole)} masks; give one, white where the picture is to be painted")
        own = tuple(pixels.shape[-2:])
        cover = resize(hole[0][None, None].to(pixels), own, "bilinear")
        if settings.width is None and settings.height is None:
            scale = min(1.0, self.side / (own[0] * own[1]) ** 0.5)
            height, width = (max(1, round(side * scale / self.grain)) * self.grain for side in own)
        else:
            height, width = (self.fitting(getattr(settings, what) or 0, what) for what in ("height", "width"))
        small = resize(pixels, (height, width), "bilinear")
        where = resize((cover > 0).to(pixels), (height, width), "bilinear") > 0
        mask_image = Image.fromarray((where[0, 0].cpu().numpy() * 255).astype("uint8"))
        inputs: dict[str, Any] = {"image": as_picture(small), "mask_image": mask_image}
        if self.called.way != "decoder":
            inputs["strength"] = 1.0
        painted = self._run(pipeline, tokens, negative, settings, {"height": height, "width": width}, inputs, callback)
        soft = feathered(cover[0, 0], feather)[..., None]
        kept = pixels[0].permute(1, 2, 0)
        results = []
        for picture in painted:
            picture = resize(picture.to(kept).permute(2, 0, 1)[None], own, "bilinear")[0].permute(1, 2, 0)
            results.append(torch.where(soft > 0, torch.lerp(kept, picture, soft), kept).cpu())
        return torch.stack(results)

    def fitting(self, value: int, what: str) -> int:
        if value < self.grain or value % self.grain:
            near = max(1, round(value / self.grain)) * self.grain
            raise InputError(f"{what} is {value}; {self.name} makes multiples of {self.grain} pixels: use {near}")
        return value

    def check(self, tokens: Sets) -> None:
        """Raises InputError for tokens that this pipeline does not understand, naming both models and the one to load."""
        check_made_for(tokens, self.name, self.width, self.fingerprint, USUAL_CLIPS.get(self.width))

    def given(self, regions: Regions) -> Tensor:
        """What the pipeline takes of M regions: embeddings [M, D], or hidden states [M, K, d]."""
        if not self.reads_states:
            if isinstance(regions, Tensor):
                raise InputError(f"{self.name} reads tokens, and these are hidden states: give the tokens")
            self.check(regions)
            return embeddings_of(regions)
        if not isinstance(regions, Tensor) or regions.ndim != 3 or not regions.numel():
            shape = f"[regions, rows, {self.width}]"
            raise InputError(f"{self.name} reads hidden states {shape} and no tokens: give those of the regions")
        if regions.shape[2] != self.width:
            raise InputError(f"the hidden states have {regions.shape[2]} numbers in a row, but {self.name} takes {self.width}")
        return regions

    def _run(
        self,
        pipeline: Any,
        tokens: Regions,
        negative: Regions | None,
        settings: Settings,
        size: dict,
        inputs: dict,
        callback: Callback | None,
    ) -> list[Tensor]:
        """Pictures [h, w, 3], one after the other, so that each depends on its own seed only."""
        embeddings = self.given(tokens)
        against = self.against(negative, tokens, settings).to(embeddings)
        total = len(embeddings) * settings.count
        pictures, picture = [], f"a picture of {size['width']} x {size['height']} px"
        with self.one_at_a_time, self.placed(pipeline):
            check_steps(pipeline.scheduler, settings.steps, self.name)
            if self.called.adapter is not None:
                pipeline.set_ip_adapter_scale(settings.adapter_scale)
            for number in range(total):
                step = Steps(number + 1, total, pipeline, callback)
                arguments = self.conditioning(embeddings[number // settings.count], against, settings, pipeline, step)
                if self.kind == "FluxPipeline" and (negative is not None or settings.negative_prompt):
                    # FLUX has learnt its guidance, and leads away from what is given only when it is told to.
                    arguments["true_cfg_scale"] = settings.guidance
                generator = torch.Generator().manual_seed((settings.seed + number) % 2**63)
                with painting_advice(self.name), memory_advice(f"{picture} with {self.name}", LESS):
                    found = pipeline(
                        **arguments,
                        **inputs,
                        **size,
                        num_inference_steps=settings.steps,
                        guidance_scale=settings.guidance,
                        generator=generator,
                        output_type="np",
                    )
                painted = torch.from_numpy(found.images[0]).float()
                if not painted.isfinite().all():
                    raise ModelError(
                        f"{self.name} painted nothing but NaN: load it in float32, or download it again, since its files may be "
                        f"damaged"
                    )
                pictures.append(painted)
        return pictures

    def against(self, negative: Regions | None, tokens: Regions, settings: Settings) -> Tensor:
        """What the guidance leads away from: [D], or [K, d] with as many rows as the regions have."""
        if self.reads_states:
            assert isinstance(tokens, Tensor)
            return self.states_against(negative, tokens, settings)
        if negative is None:
            return torch.zeros(self.width)
        if self.called.way == "unclip":
            raise InputError(f"{self.name} ({self.kind}) takes no negative token: use negative_prompt, or Subtract Tokens before")
        found = self.given(negative)
        check_same_clip(*(sets_of(sets)[0] for sets in (tokens, negative)))  # pyright: ignore[reportArgumentType]
        if len(found) != 1:
            raise InputError(f"there are {len(found)} negative tokens; give one")
        return found[0]

    def states_against(self, negative: Regions | None, states: Tensor, settings: Settings) -> Tensor:
        if negative is None:
            if settings.guidance > 1 and self.called.way != "joint":
                raise InputError(
                    f"{self.name} leads away from the hidden states of a picture with nothing on it, and zeros are something else: "
                    f"give those of Token of Nothing as negative, or set guidance to 1"
                )
            return torch.zeros_like(states[0])
        found = self.given(negative)
        if len(found) != 1:
            raise InputError(f"there are hidden states of {len(found)} pictures to lead away from; give those of one")
        rows = states.shape[1]
        return found[0, torch.arange(rows) * found.shape[1] // rows]

    def conditioning(self, token: Tensor, against: Tensor, settings: Settings, pipeline: Any, step: Steps) -> dict:
        """The arguments that say what to paint. token, against: [D], or [K, d] of hidden states."""
        like = {"device": pipeline._execution_device, "dtype": self.core.dtype}
        token, against = token[None].to(**like), against[None].to(**like)
        back = {"callback_on_step_end": step.on_step_end}
        way = self.called.way
        if way == "decoder":
            return {"image_embeds": token, "negative_image_embeds": against, **back}
        text = {"prompt": settings.prompt, "negative_prompt": settings.negative_prompt}
        if way == "unclip":
            return text | {"image_embeds": token, "callback": step.on_step}
        if way == "apart":
            both = {"ip_adapter_image_embeds": [token[None]], "negative_ip_adapter_image_embeds": [against[None]]}
            return text | back | both
        pair = [against, token] if settings.guidance > 1 else [token]
        if way == "joint":
            return text | back | {"ip_adapter_image_embeds": torch.cat(pair)}
        return text | back | {"ip_adapter_image_embeds": [torch.stack(pair)]}
