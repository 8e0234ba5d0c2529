"""A picture with masks to try things on, without a file of one's own."""

import numpy as np
import torch
from comfy_api.latest import io

from ..maskinversion.bundled import EXAMPLES, load_example
from .types import CATEGORY


class ExampleScene(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionExample",
            display_name="Example Scene",
            category=CATEGORY,
            description="A picture that comes with the pack, with a mask for every object in it.",
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
