"""Write labels on regions."""

import torch
from comfy_api.latest import io

from ..maskinversion.geometry import resize
from ..maskinversion.labels import draw_labels
from .convert import masks_of, one_picture
from .types import CATEGORY


class LabelRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionLabels",
            display_name="Label Regions",
            category=CATEGORY,
            description="Draws each region in a colour of its own, with its label on it.",
            search_aliases=["draw labels", "annotate", "segmentation overlay"],
            inputs=[
                io.Image.Input("image", tooltip="One picture."),
                io.Mask.Input("mask", tooltip="The regions."),
                io.String.Input(
                    "labels",
                    multiline=True,
                    default="",
                    tooltip="One a line, in the order of the regions: from Classify Region, Caption Region, or your own.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image")],
        )

    @classmethod
    def execute(cls, image, mask, labels) -> io.NodeOutput:
        picture = one_picture(image)
        masks = resize(masks_of(mask)[:, None], tuple(picture.shape[:2]), "bilinear")[:, 0]
        lines = [line.strip() for line in labels.split("\n")]
        if len(lines) == len(masks) + 1 and not lines[-1]:
            lines.pop()  # what follows the last line break
        drawn = draw_labels(picture, masks, lines)
        return io.NodeOutput(torch.stack([drawn]).to(image))
