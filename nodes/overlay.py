"""Show where a token looks."""

import torch
from comfy_api.latest import io

from ..maskinversion import InputError
from ..maskinversion.geometry import resize
from ..maskinversion.overlay import overlay
from .convert import masks_of, pictures_of
from .types import CATEGORY


class MapOverlay(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionOverlay",
            display_name="Map Overlay",
            category=CATEGORY,
            description="Paints the maps of MaskInversion on the picture: bright is where the token looks.",
            inputs=[
                io.Image.Input("image", tooltip="The picture that the maps belong to."),
                io.Mask.Input("maps", tooltip="From MaskInversion: one picture comes out per map."),
                io.Float.Input("strength", default=0.6, min=0.0, max=1.0, step=0.05, tooltip="0 is the picture, 1 is the map."),
                io.Mask.Input("mask", optional=True, tooltip="The masks you gave: their outlines are drawn in white."),
            ],
            outputs=[io.Image.Output(display_name="overlays")],
        )

    @classmethod
    def execute(cls, image, maps, strength, mask=None) -> io.NodeOutput:
        maps = masks_of(maps)
        count, size = len(maps), maps.shape[1:]
        if mask is not None:
            mask = resize(masks_of(mask)[:, None], size, "bilinear")[:, 0]
        pictures = [resize(picture.movedim(-1, 0)[None], size, "bilinear")[0].movedim(0, -1) for picture in pictures_of(image)]
        for what, given in (("images", pictures), ("masks", mask)):
            if given is not None and len(given) not in (1, count):
                raise InputError(f"{count} maps and {len(given)} {what} do not go together: give one, or as many as maps")
        painted = [
            overlay(pictures[min(i, len(pictures) - 1)], heat, None if mask is None else mask[min(i, len(mask) - 1)], strength)
            for i, heat in enumerate(maps)
        ]
        return io.NodeOutput(torch.stack(painted))
