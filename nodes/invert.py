"""The node that the pack is for."""

import inspect

import torch
from comfy_api.latest import io
from PIL import Image

from ..maskinversion import MaskInverter
from ..maskinversion.geometry import FITS
from ..maskinversion.inverter import PRECISIONS
from ..maskinversion.overlay import overlay
from .convert import clip_vision_output, pair
from .managed_clip import ManagedClip, memory_back
from .progress import ProgressBar
from .types import CATEGORY, ClipSocket, TokensSocket

DEFAULTS = {name: p.default for name, p in inspect.signature(MaskInverter).parameters.items()}
PREVIEW_PIXELS = 384


class MaskInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversion",
            display_name="MaskInversion",
            category=CATEGORY,
            description="Turns the masked region of a picture into one embedding, as if the model looked at that region only.",
            search_aliases=["localized embedding", "region embedding", "mask to clip vision"],
            inputs=[
                io.Image.Input("image", tooltip="One picture, or a batch with a mask each."),
                io.Mask.Input("mask", tooltip="White where the region is. Several masks give several tokens."),
                io.MultiType.Input(
                    "clip",
                    types=[ClipSocket, io.ClipVision],
                    tooltip="From Load CLIP for MaskInversion, or ComfyUI's own Load CLIP Vision.",
                ),
                io.Int.Input(
                    "iterations",
                    default=DEFAULTS["iterations"],
                    min=1,
                    max=10000,
                    tooltip="Steps. 10 is what the paper uses; more follow the mask more closely.",
                ),
                io.Float.Input(
                    "lr",
                    default=DEFAULTS["lr"],
                    min=0.001,
                    max=10.0,
                    step=0.001,
                    tooltip="How far each step goes. Higher follows the mask faster; too high loses what the region looks like.",
                ),
                io.Float.Input(
                    "alpha",
                    default=DEFAULTS["alpha"],
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="0 is the region only. Higher keeps more of the whole picture; the paper uses 5 to keep context.",
                ),
                io.Int.Input(
                    "layers",
                    default=DEFAULTS["layers"],
                    min=1,
                    max=48,
                    advanced=True,
                    tooltip="How many of the model's last layers the map looks at. 1 is what the paper uses.",
                ),
                io.Int.Input(
                    "image_size",
                    default=0,
                    min=0,
                    max=4096,
                    advanced=True,
                    tooltip="Pixels that the model sees; 0 is its own size. Larger finds smaller things, and takes longer.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=DEFAULTS["fit"],
                    advanced=True,
                    tooltip="How the picture becomes a square: squashed, with bars, or cut.",
                ),
                io.Boolean.Input(
                    "region_hidden_states",
                    default=False,
                    advanced=True,
                    tooltip="Also weight the hidden states in clip_vision_output by the map, for nodes that read those, such as "
                    "Redux and Wan.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=DEFAULTS["precision"],
                    advanced=True,
                    tooltip="fast: large products in bfloat16, about twice as fast for many masks. At 10 steps nearly all tokens "
                    "stay the same.",
                ),
            ],
            outputs=[
                TokensSocket.Output(display_name="tokens", tooltip="What Classify Region reads."),
                io.ClipVisionOutput.Output(
                    display_name="clip_vision_output",
                    tooltip="The tokens, one per mask, for nodes such as unCLIPConditioning that take a CLIP vision output.",
                ),
                io.Mask.Output(display_name="maps", tooltip="Where each token looks: what came of each mask."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, image, mask, clip, iterations, lr, alpha, layers, image_size, fit, region_hidden_states, precision
    ) -> io.NodeOutput:
        pairs = pair(image, mask)
        managed = ManagedClip.of(clip)
        inverter = MaskInverter(managed.ready(), iterations, lr, alpha, layers, image_size or None, fit, precision)
        progress = Progress(cls.hidden.unique_id, len(pairs))
        encoded, tokens = [], []
        with memory_back():
            for picture, masks in pairs:
                encoded.append(managed.encode(inverter, picture))
                tokens.append(inverter.invert(encoded[-1], masks, progress.of(picture)))
        maps = torch.cat([t.maps_for().to(image.device) for t in tokens])
        return io.NodeOutput(tokens, clip_vision_output(inverter.clip.model, encoded, tokens, region_hidden_states), maps)


class Progress:
    """The progress bar over all pictures, with the first map of the current one."""

    def __init__(self, node: str, pictures: int):
        self.bar, self.pictures = ProgressBar(node), pictures
        self.done = -1

    def of(self, picture: torch.Tensor):
        """The callback for the next picture [h, w, 3]."""
        self.done += 1
        scale = min(1.0, PREVIEW_PIXELS / max(picture.shape[:2]))
        size = [max(1, int(side * scale)) for side in picture.shape[:2]]
        small = torch.nn.functional.interpolate(picture.movedim(-1, 0)[None], size=size, mode="area")[0].movedim(0, -1)

        def painted(maps: torch.Tensor) -> Image.Image:
            heat = torch.nn.functional.interpolate(maps[None, :1], size=small.shape[:2], mode="bilinear")[0, 0]
            return Image.fromarray((overlay(small, heat.to(small.device)) * 255).byte().cpu().numpy())

        def step(number: int, total: int, maps: torch.Tensor, losses: torch.Tensor) -> None:
            self.bar.show(self.done * total + number, self.pictures * total, lambda: painted(maps), surely=number == total)

        return step
