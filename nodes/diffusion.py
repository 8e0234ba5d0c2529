"""Pictures from tokens, with pipelines of diffusers."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_management
import torch
from comfy.clip_vision import Output
from comfy_api.latest import io
from latent_preview import Latent2RGBPreviewer
from PIL import Image

from ..maskinversion import InputError
from ..maskinversion.models.content import is_weights
from ..maskinversion.tasks.diffusion.decoder import Decoder, Regions
from ..maskinversion.tasks.diffusion.settings import Settings
from .support.convert import masks_from, one_picture
from .support.files import NOTHING_FOUND, every_file, located, relative, stamp
from .support.managed import InUse, ManagedDecoder, memory_back
from .support.progress import ProgressBar, counter
from .support.types import CATEGORY, PipelineSocket, RegionSockets, Tokens, TokensSocket, seed_input

SUBCATEGORY = f"{CATEGORY}/diffusers"

BUNDLED_FOR = {"new pictures": "bundled", "painting into a picture": "bundled-inpaint"}
NO_ADAPTER = "(none)"
DTYPES = {"auto": None, "float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
MAX_PIXELS = 8192
ROWS = "penultimate_hidden_states"
SPACES: dict[str, type[comfy.latent_formats.LatentFormat]] = {
    "StableDiffusionXL": comfy.latent_formats.SDXL,
    "Kolors": comfy.latent_formats.SDXL,
    "StableDiffusion3": comfy.latent_formats.SD3,
}  # of latents, by the beginnings of pipelines' names; SD 1.5's of the others

in_use: InUse[ManagedDecoder] = InUse()


class LoadPipeline(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadPipeline",
            display_name="Load Pipeline for Tokens",
            category=SUBCATEGORY,
            description="Loads a diffusers pipeline that makes pictures of regions: Kandinsky 2.2, Stable unCLIP, or Stable "
            "Diffusion 1.5 / XL / 3.5, FLUX, Chroma or Kolors with an IP-Adapter. Nothing in a file is run.",
            search_aliases=["kandinsky loader", "diffusers loader", "unclip loader", "flux ip-adapter", "ip-adapter plus"],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option(
                            "bundled",
                            [
                                io.Combo.Input(
                                    "use",
                                    options=list(BUNDLED_FOR),
                                    tooltip="New pictures are for Generate from Tokens, the other is for Inpaint from Tokens.",
                                )
                            ],
                        ),
                        *folder_or_hub(
                            found_folders(),
                            "A folder with a model_index.json, in models/diffusers.",
                            "kandinsky-community/kandinsky-2-2-decoder",
                        ),
                    ],
                    tooltip="'bundled' is a miniature of Kandinsky 2.2 that comes with this pack: 64 px, for tokens of "
                    "the bundled CLIP. 'folder' is a pipeline in ComfyUI's models/diffusers. 'hub' is downloaded the first time.",
                ),
                io.Combo.Input(
                    "ip_adapter",
                    options=[NO_ADAPTER, *found_adapters()],
                    tooltip="For pipelines that read text: an IP-Adapter in models/ipadapter. The basic ones and XLabs's for FLUX "
                    "and Chroma read tokens; Plus (SD 1.5, XL, Kolors) and InstantX's for SD 3.5 read hidden states.",
                ),
                io.Combo.Input(
                    "dtype", options=list(DTYPES), advanced=True, tooltip="auto is what ComfyUI takes for this machine."
                ),
                io.Boolean.Input(
                    "offload",
                    default=False,
                    advanced=True,
                    tooltip="Bring each part to the graphics card only while it computes: slower, and needs much less memory.",
                ),
            ],
            outputs=[PipelineSocket.Output(display_name="pipeline", tooltip="For Generate and Inpaint from Tokens.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, source: dict, ip_adapter: str, dtype: str, offload: bool) -> tuple:
        return identity(chosen(source), adapter_file(ip_adapter), dtype, offload)

    @classmethod
    def execute(cls, source: dict, ip_adapter: str, dtype: str, offload: bool) -> io.NodeOutput:
        name, adapter = chosen(source), adapter_file(ip_adapter)
        key = identity(name, adapter, dtype, offload)
        progress = counter(cls.hidden.unique_id)
        return io.NodeOutput(in_use.get(key, lambda: ManagedDecoder.load(name, adapter, DTYPES[dtype], offload, progress)))


def folder_or_hub(folders: list[str], tooltip: str, published: str) -> list[io.DynamicCombo.Option]:
    """Where something is loaded from: one of these folders, or the hub. tooltip: of the folders. published: a name on the hub."""
    named = "OWNER/NAME on the Hugging Face hub. Downloaded once, and kept in its usual cache."
    return [
        io.DynamicCombo.Option("folder", [io.Combo.Input("folder", options=folders or [NOTHING_FOUND], tooltip=tooltip)]),
        io.DynamicCombo.Option("hub", [io.String.Input("name", default=published, tooltip=named)]),
    ]


def conditioning_inputs() -> list[io.Input]:
    return [
        PipelineSocket.Input("pipeline", tooltip="From Load Pipeline for Tokens."),
        TokensSocket.Input("tokens", tooltip="Every token makes its own pictures. Of the CLIP that the pipeline was trained with."),
    ]


def sampling_inputs(sides: str) -> list[io.Input]:
    return [
        io.Int.Input("width", default=0, min=0, max=MAX_PIXELS, step=8, tooltip=sides),
        io.Int.Input("height", default=0, min=0, max=MAX_PIXELS, step=8, tooltip=sides),
        io.Int.Input("steps", default=30, min=1, max=1000, tooltip="More take longer and are cleaner."),
        io.Float.Input("guidance", default=4.0, min=0.0, max=50.0, step=0.1, tooltip="How strictly to follow the token."),
        io.Int.Input("count", default=1, min=1, max=64, tooltip="Pictures for each token, made one after the other."),
        seed_input("Of the first picture; the next ones take the next numbers."),
        io.String.Input("prompt", default="", multiline=True, tooltip="Kandinsky reads no text; the others add it to the token."),
        io.String.Input("negative_prompt", default="", multiline=True, tooltip="Kandinsky reads no text."),
        io.Float.Input(
            "adapter_scale", default=1.0, min=0.0, max=2.0, step=0.05, advanced=True, tooltip="How much an IP-Adapter counts."
        ),
        TokensSocket.Input(
            "negative",
            optional=True,
            tooltip="One token to lead away from. For Kandinsky connect Token of Nothing. Without it: zeros.",
        ),
        io.ClipVisionOutput.Input(
            "hidden_states",
            optional=True,
            tooltip="For IP-Adapter Plus, Kolors and SD 3.5, which read these and no tokens: clip_vision_output of MaskInversion "
            "with hidden states of the region, as many regions as tokens.",
        ),
        io.ClipVisionOutput.Input(
            "negative_hidden_states",
            optional=True,
            tooltip="For the same: what to lead away from, clip_vision_output of Token of Nothing. SD 3.5 needs none.",
        ),
    ]


class GenerateFromTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionGenerate",
            display_name="Generate from Tokens",
            category=SUBCATEGORY,
            description="Makes new pictures of what is in a region.",
            search_aliases=["kandinsky", "unclip", "image variations"],
            inputs=[*conditioning_inputs(), *sampling_inputs("In pixels; 0 is what the pipeline was made for.")],
            outputs=[io.Image.Output(display_name="images", tooltip="All pictures of the first token, then of the second, ...")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        pipeline: ManagedDecoder,
        tokens: Tokens,
        negative: Tokens | None = None,
        hidden_states: Output | None = None,
        negative_hidden_states: Output | None = None,
        **sampling: Any,
    ) -> io.NodeOutput:
        decoder = pipeline.ready()
        regions, against = read_by(decoder, tokens, negative, hidden_states, negative_hidden_states)
        steps = PreviewSteps(cls.hidden.unique_id, decoder)
        with memory_back():
            return finished(decoder.generate(regions, settings(sampling), against, steps))


class InpaintFromTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionInpaint",
            display_name="Inpaint from Tokens",
            category=SUBCATEGORY,
            description="Paints what is in one region into another place. Outside the mask the picture stays exactly as it was.",
            search_aliases=["kandinsky inpaint", "object transfer", "edit region"],
            inputs=[
                *conditioning_inputs(),
                io.Image.Input("image", tooltip="The picture to paint into; one."),
                io.MultiType.Input("mask", types=RegionSockets, tooltip="White where to paint, or a box; one."),
                io.Int.Input(
                    "feather", default=8, min=0, max=256, tooltip="Over how many pixels, inside the mask, the painting fades in."
                ),
                *sampling_inputs("In pixels; 0 is the picture's shape, as large as the pipeline was made for at most."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="As large as the picture; one for each token and count.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        pipeline: ManagedDecoder,
        tokens: Tokens,
        image: torch.Tensor,
        mask: object,
        feather: int,
        negative: Tokens | None = None,
        hidden_states: Output | None = None,
        negative_hidden_states: Output | None = None,
        **sampling: Any,
    ) -> io.NodeOutput:
        picture = one_picture(image, "to paint into")
        height, width = picture.shape[:2]
        hole = masks_from(mask, (height, width), empty=False)
        decoder = pipeline.ready()
        regions, against = read_by(decoder, tokens, negative, hidden_states, negative_hidden_states)
        steps = PreviewSteps(cls.hidden.unique_id, decoder)
        with memory_back():
            return finished(decoder.inpaint(regions, picture, hole, settings(sampling), feather, against, steps))


def read_by(
    decoder: Decoder, tokens: Tokens, negative: Tokens | None, states: Output | None, negative_states: Output | None
) -> tuple[Regions, Regions | None]:
    """What the pipeline reads of the regions, and what it leads away from. Raises InputError where hidden states are missing."""
    if not decoder.reads_states:
        return tokens, negative
    if states is None:
        raise InputError(f"{decoder.name} reads hidden states: connect clip_vision_output of MaskInversion to hidden_states")
    rows, count = states[ROWS], sum(map(len, tokens))
    if len(rows) != count:
        raise InputError(f"there are {count} tokens and hidden states of {len(rows)} regions: connect both of one node")
    return rows, None if negative_states is None else negative_states[ROWS]


def settings(sampling: dict) -> Settings:
    """The widgets as the library takes them, where no size is None."""
    sides: dict[str, Any] = {side: sampling[side] or None for side in ("width", "height")}
    return Settings(**sampling | sides)


def finished(images: torch.Tensor) -> io.NodeOutput:
    return io.NodeOutput(images.to(comfy.model_management.intermediate_device()))


class PreviewSteps:
    """The progress bar over all pictures, with what is there so far of the current one."""

    def __init__(self, node: str, decoder: Decoder):
        self.bar, self.kind, self.way = ProgressBar(node), decoder.kind, decoder.called.way

    @cached_property
    def previewer(self) -> Latent2RGBPreviewer | None:
        """None for Kandinsky, whose latents are near to colours."""
        if self.way == "decoder":
            return None
        space = next((make for kind, make in SPACES.items() if self.kind.startswith(kind)), comfy.latent_formats.SD15)()
        return Latent2RGBPreviewer(space.latent_rgb_factors, space.latent_rgb_factors_bias)

    def __call__(self, picture: int, pictures: int, step: int, steps: int, latents: torch.Tensor) -> None:
        done = (picture - 1) * steps + step
        self.bar.show(done, pictures * steps, lambda: self.picture(latents[:1].float()), surely=step == steps)

    def picture(self, latents: torch.Tensor) -> Image.Image | None:
        """None of FLUX and Chroma, whose latents are packed as they work."""
        if self.way == "apart":
            return None
        if self.previewer is not None:
            return self.previewer.decode_latent_to_preview(latents)
        channels = latents[0, :3].movedim(0, -1)
        low, high = channels.aminmax()
        return Image.fromarray(((channels - low) / (high - low).clamp(min=1e-6) * 255).byte().cpu().numpy())


def chosen(source: dict) -> str:
    """What `load_decoder` takes. Raises InputError for a name that cannot be one, ModelError for a folder that is gone."""
    if source["source"] == "bundled":
        return BUNDLED_FOR[source["use"]]
    if source["source"] == "hub":
        return hub_name(source["name"])
    return str(located(source["folder"], ("diffusers",), "a folder of a diffusers pipeline"))


def hub_name(written: str) -> str:
    """Raises InputError for what cannot be a name on the hub."""
    name = written.strip()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
        raise InputError(f"{name!r} is not a name on the Hugging Face hub: write OWNER/NAME")
    return name


def adapter_file(name: str) -> Path | None:
    return None if name == NO_ADAPTER else located(name, ("ipadapter",), "an IP-Adapter")


def found_folders() -> list[str]:
    found = [(base, file.parent) for base, file in every_file("diffusers") if file.name == "model_index.json"]
    return relative([(base, folder) for base, folder in found if folder != base])


def found_adapters() -> list[str]:
    return relative([(base, file) for base, file in every_file("ipadapter") if is_weights(file)])


def identity(name: str, adapter: Path | None, dtype: str, offload: bool) -> tuple:
    """Changes when the weights do."""
    return name, str(adapter), dtype, offload, *stamp(Path(name)), *(stamp(adapter) if adapter else ())


NODES = (LoadPipeline, GenerateFromTokens, InpaintFromTokens)
