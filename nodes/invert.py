"""The node that the pack is for; one that shows what it found; and a picture with masks to try it on."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import io
from PIL import Image

from ..maskinversion import InputError, MaskInverter
from ..maskinversion.bundled import EXAMPLES, load_example
from ..maskinversion.compute.memory import check_room
from ..maskinversion.drawing.overlay import overlay
from ..maskinversion.drawing.summary import MOST, Cell, as_tensor, draw_summary, map_size
from ..maskinversion.geometry import resize
from ..maskinversion.inverter import Callback
from ..maskinversion.settings import FITS, LR_UNITS, PRECISIONS, PRESETS, STARTS, InversionSettings
from .support.clip_vision import CHOICES, WAYS, HiddenStates, clip_vision_output
from .support.convert import mask_at, masks_from, masks_of, pair, pictures_of
from .support.managed import ManagedClip, encode, managed, memory_back
from .support.progress import ProgressBar, warnings_told, with_shown
from .support.types import CATEGORY, ClipSocket, RegionSockets, Tokens, TokensSocket

DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(InversionSettings)}
NEW = DEFAULTS | PRESETS["region"]  # what a new node has; a graph from before there was a choice keeps the defaults
PRESET_TITLES = {
    "region": "Region",
    "published": "Region, as published",
    "balanced": "Balanced",
    "context": "Keep context",
}
PREVIEW_PIXELS = 384
LEAVE_OUT = "leave out"
EMPTY_MASKS = ("stop", LEAVE_OUT)


class MaskInversion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversion",
            display_name="MaskInversion",
            category=CATEGORY,
            description="Turns the masked region of a picture into one embedding, as if the model looked at that region only.",
            search_aliases=["localized embedding", "region embedding", "mask to clip vision"],
            inputs=[
                io.Image.Input("image", tooltip="One picture, or a batch with a mask each."),
                io.MultiType.Input(
                    "mask",
                    types=RegionSockets,
                    tooltip="White where the region is. Several masks give several tokens. Boxes and SEGS are taken too.",
                ),
                io.MultiType.Input(
                    "clip",
                    types=[ClipSocket, io.ClipVision],
                    tooltip="From Load CLIP for MaskInversion, or ComfyUI's own Load CLIP Vision.",
                ),
                io.Int.Input(
                    "iterations",
                    default=NEW["iterations"],
                    min=1,
                    max=10000,
                    tooltip="Steps. More follow the mask more closely, and keep less of what the model knows of pictures.",
                ),
                io.Float.Input(
                    "lr",
                    default=NEW["lr"],
                    min=0.001,
                    max=10.0,
                    step=0.001,
                    tooltip="How far each step goes. Higher follows the mask faster; too high loses what the region looks like.",
                ),
                io.Float.Input(
                    "alpha",
                    default=NEW["alpha"],
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
                    tooltip="How the picture becomes what the model sees: squashed to a square, with bars, cut, or in its own "
                    "shape (aspect).",
                ),
                io.Combo.Input(
                    "region_hidden_states",
                    display_name="hidden states",
                    options=CHOICES,
                    default=HiddenStates.choice,
                    advanced=True,
                    tooltip="For nodes that read the hidden states in clip_vision_output, such as Redux and Wan: those of the "
                    "whole picture, or of the region.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default=DEFAULTS["precision"],
                    advanced=True,
                    tooltip="fast: large products in half precision, about twice as fast for many masks. At 10 steps nearly all "
                    "tokens stay the same.",
                ),
                io.Combo.Input(
                    "empty_masks",
                    options=list(EMPTY_MASKS),
                    default=EMPTY_MASKS[0],
                    optional=True,
                    advanced=True,
                    tooltip="A mask that is black all over has no region: stop, or leave it out and say which it was.",
                ),
                io.Combo.Input(
                    "start",
                    options=list(STARTS),
                    default=NEW["start"],
                    optional=True,
                    tooltip="Where the token starts: at the whole picture (as published), at the region's own patches (as quick), "
                    "at the region cut out (longer), or between these two (best for most).",
                    extra_dict={"presets": {PRESET_TITLES[name]: values for name, values in PRESETS.items()}},
                ),
                io.Combo.Input(
                    "lr_unit",
                    options=list(LR_UNITS),
                    default=NEW["lr_unit"],
                    optional=True,
                    advanced=True,
                    tooltip="relative: lr does the same on every model. absolute: as published, where it depends on how long the "
                    "model's embeddings are.",
                ),
                io.Float.Input(
                    "threshold",
                    default=HiddenStates.threshold,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="For hidden states of patches: how much of a patch must be covered. 0 is all that are touched.",
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
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, region_hidden_states: object) -> bool | str:
        """It was yes or no once, and graphs that were saved then still say so."""
        if region_hidden_states is None or region_hidden_states in WAYS:
            return True
        return f"region_hidden_states is {region_hidden_states!r}; it must be one of {', '.join(CHOICES)}"

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        mask: object,
        clip: ManagedClip | ClipVisionModel,
        iterations: int,
        lr: float,
        alpha: float,
        layers: int,
        image_size: int,
        fit: str,
        region_hidden_states: str | bool,
        precision: str,
        empty_masks: str = EMPTY_MASKS[0],
        start: str = DEFAULTS["start"],
        lr_unit: str = DEFAULTS["lr_unit"],
        threshold: float = HiddenStates.threshold,
    ) -> io.NodeOutput:
        settings = InversionSettings(
            iterations, lr, alpha, layers, image_size or None, fit, precision, start=start, lr_unit=lr_unit
        )
        encoded, tokens = [], []
        with warnings_told() as told, memory_back():
            pairs = pair(image, mask, leave_out_empty=empty_masks == LEAVE_OUT)
            model = managed(clip)
            inverter = MaskInverter(model.ready(), settings)
            check_maps(pairs)
            progress = Progress(cls.hidden.unique_id, len(pairs))
            for picture, masks in pairs:
                encoded.append(encode(model, inverter, picture))
                tokens.append(inverter.invert(encoded[-1], masks, progress.of(picture)))
            maps = [found.maps_for().to(image.device) for found in tokens]
            masks = [own for _, own in pairs]
            output = clip_vision_output(inverter, encoded, masks, tokens, HiddenStates(region_hidden_states, threshold))
        found = tokens, output, maps[0] if len(maps) == 1 else torch.cat(maps)
        return with_shown(*found, told=told, picture=lambda: summary(pairs, tokens))


def summary(pairs: list[tuple[torch.Tensor, list[torch.Tensor]]], tokens: Tokens) -> torch.Tensor:
    """What came of every mask, drawn: [h, w, 3]."""
    count, cells = sum(map(len, tokens)), []
    for (picture, masks), found in zip(pairs, tokens, strict=True):
        size = map_size(found.geometry.image_size, min(count, MOST))
        small = shrunk(picture, size).cpu()
        for index in range(min(len(masks), MOST - len(cells))):
            heat = found.geometry.from_model(found.maps[index : index + 1], size)[0].cpu()
            cells.append(
                Cell(small, heat, mask_at(masks[index], size).cpu(), float(found.iou[index]), found.losses[:, index].tolist())
            )
    return as_tensor(draw_summary(cells, count))


def shrunk(picture: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """A picture [h, w, C] as [*size, 3]."""
    return F.interpolate(picture.movedim(-1, 0)[None, :3], size=size, mode="area")[0].movedim(0, -1)


def check_maps(pairs: list[tuple[torch.Tensor, list[torch.Tensor]]]) -> None:
    """Raises MemoryLimitError where the maps that come out of pictures [h, w, 3] and their masks will not fit into memory."""
    copies = 1 if len(pairs) == 1 else 2
    size = sum(len(masks) * picture[..., 0].numel() * torch.float32.itemsize for picture, masks in pairs)
    check_room(copies * size, "the maps, as large as their pictures", "make the pictures smaller, or give fewer masks at a time")


class MapOverlay(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionOverlay",
            display_name="Map Overlay",
            category=CATEGORY,
            description="Paints the maps of MaskInversion on the picture: bright is where the token looks.",
            search_aliases=["heatmap", "attention map", "saliency", "show mask on image"],
            inputs=[
                io.Image.Input("image", tooltip="The picture that the maps belong to."),
                io.Mask.Input("maps", tooltip="From MaskInversion: one picture comes out per map."),
                io.Float.Input("strength", default=0.6, min=0.0, max=1.0, step=0.05, tooltip="0 is the picture, 1 is the map."),
                io.MultiType.Input(
                    "mask",
                    types=RegionSockets,
                    optional=True,
                    tooltip="The masks, boxes or SEGS that you gave: their outlines are drawn in white.",
                ),
            ],
            outputs=[io.Image.Output(display_name="overlays", tooltip="One for each map.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, maps: torch.Tensor, strength: float, mask: object = None) -> io.NodeOutput:
        heats, pictures = masks_of(maps), pictures_of(image)
        count, (height, width) = len(heats), heats[0].shape
        masks = None if mask is None else masks_from(mask, (image.shape[1], image.shape[2]))
        for what, given in (("images", pictures), ("masks", masks)):
            if given is not None and len(given) not in (1, count):
                raise InputError(f"{count} maps and {len(given)} {what} do not go together: give one, or as many as maps")
        many = f"{count} overlays of {width} x {height} px"
        check_room(3 * count * height * width * torch.float32.itemsize, many, "make the picture smaller, or give fewer maps")
        painted = image.new_empty(count, height, width, 3, dtype=torch.float32)
        for i, heat in enumerate(heats):
            picture = resize(pictures[i % len(pictures)].movedim(-1, 0)[None], (height, width), "bilinear")[0].movedim(0, -1)
            seen = None if masks is None else mask_at(masks[i % len(masks)], (height, width))
            painted[i] = overlay(picture, mask_at(heat, (height, width)), seen, strength)
        return io.NodeOutput(painted)


class ExampleScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionExample",
            display_name="Example Scene",
            category=CATEGORY,
            description="A picture that comes with the pack, with a mask for every object in it.",
            search_aliases=["sample image", "demo picture", "test masks"],
            inputs=[io.Combo.Input("scene", options=list(EXAMPLES), default=EXAMPLES[0], tooltip="Which of the pictures.")],
            outputs=[
                io.Image.Output(display_name="image", tooltip="One picture."),
                io.Mask.Output(display_name="masks", tooltip="The visible part of each object."),
                io.String.Output(display_name="names", tooltip="Of the objects, one a line, in the order of the masks."),
            ],
        )

    @classmethod
    def execute(cls, scene: str) -> io.NodeOutput:
        example = load_example(scene)
        image = torch.from_numpy(np.asarray(example.image, np.float32) / 255)[None]
        return io.NodeOutput(image, example.masks, "\n".join(example.names))


class Progress:
    """The progress bar over all pictures, with the first map of the current one."""

    def __init__(self, node: str, pictures: int):
        self.bar, self.pictures = ProgressBar(node), pictures
        self.done = -1

    def of(self, picture: torch.Tensor) -> Callback:
        """The callback for the next picture [h, w, 3]."""
        self.done += 1
        small: list[torch.Tensor] = []  # the picture as it is shown, once it is

        def painted(maps: torch.Tensor) -> Image.Image:
            if not small:
                scale = min(1.0, PREVIEW_PIXELS / max(picture.shape[:2]))
                size = [max(1, round(side * scale)) for side in picture.shape[:2]]
                small.append(shrunk(picture, (size[0], size[1])))
            heat = F.interpolate(maps[None, :1], size=small[0].shape[:2], mode="bilinear")[0, 0]
            return Image.fromarray((overlay(small[0], heat.to(small[0].device)) * 255).byte().cpu().numpy())

        def step(number: int, total: int, maps: torch.Tensor, losses: torch.Tensor) -> None:
            self.bar.show(self.done * total + number, self.pictures * total, lambda: painted(maps), surely=number == total)

        return step


NODES = (MaskInversion, MapOverlay, ExampleScene)
