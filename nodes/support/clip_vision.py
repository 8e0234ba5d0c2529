"""What comes of an inversion, as ComfyUI's CLIP_VISION_OUTPUT."""

from dataclasses import dataclass
from typing import Any

import comfy.clip_vision
import comfy.model_management
import torch
from torch import Tensor

from ...maskinversion import EncodedImage, LocalizedTokens, MaskInverter
from ...maskinversion.hidden_states import BY_MAP, THRESHOLD, coverage, region_rows

# By what a user chooses; before there was a choice, it was whether to fade them by the map.
WAYS: dict[object, str] = {
    "whole picture": "whole",
    "faded by the map": "map",
    "faded by the mask": "mask",
    "patches of the region only": "patches",
    "patches of the map only": "map patches",
    "patches of its box": "box",
    False: "whole",
    True: "map",
}
CHOICES = [choice for choice in WAYS if isinstance(choice, str)]


@dataclass(frozen=True)
class HiddenStates:
    """Whose hidden states an output has. choice: of WAYS. threshold: see `hidden_states.region_rows`."""

    choice: Any = CHOICES[0]
    threshold: float = THRESHOLD


def clip_vision_output(
    inverter: MaskInverter,
    encoded: list[EncodedImage],
    masks: list[list[Tensor]],
    tokens: list[LocalizedTokens],
    hidden: HiddenStates,
) -> comfy.clip_vision.Output:
    """What CLIP Vision Encode would give for M pictures, with the M tokens as `image_embeds`, and hidden states as `hidden` says.

    masks: of each picture, from which its tokens are.
    """
    device = comfy.model_management.intermediate_device()
    model = inverter.clip.model
    native = model.model if isinstance(model, comfy.clip_vision.ClipVisionModel) else None
    way = WAYS[hidden.choice]
    if way == "whole" or way in BY_MAP:
        seen = [found.maps for found in tokens]
    else:
        seen = [inverter.masks_for(image, own) for image, own in zip(encoded, masks, strict=True)]
    covered = [coverage(one, image.grid) for one, image in zip(seen, encoded, strict=True)]
    rows = region_rows(way, covered, encoded[0].prefix, hidden.threshold)

    def of_each(states: list[Tensor]) -> Tensor:
        """States [..., N, d] of every image as those of its tokens: [M, ..., K, d]."""
        parts = [one.of(state.float()) for one, state in zip(rows, states, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    leaving = [image.leaving for image in encoded]
    if native is not None and native.vision_model.output_layernorm:
        leaving = [native.vision_model.post_layernorm(state) for state in leaving]
    entering = of_each([image.entering for image in encoded])
    projector = None if native is None else native.multi_modal_projector

    output = comfy.clip_vision.Output()
    output["image_embeds"] = torch.cat([found.embeddings for found in tokens]).float().to(device)
    output["last_hidden_state"] = of_each(leaving).to(device)
    output["penultimate_hidden_states"] = entering.to(device)
    if encoded[0].states:
        output["all_hidden_states"] = of_each([torch.stack(image.states) for image in encoded]).to(device)
    height, width = inverter.clip.tower.patch_size
    output["image_sizes"] = []
    for image, own in zip(encoded, rows, strict=True):
        size = (own.grid[0] * height, own.grid[1] * width) if own.grid else image.geometry.model_size
        output["image_sizes"] += [torch.Size((3, *size))] * own.count
    output["mm_projected"] = None if projector is None else projector(entering).to(device)
    return output
