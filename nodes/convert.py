"""ComfyUI's batches to the library's images and masks, and back."""

import comfy.clip_vision
import comfy.model_management
import torch
from torch import Tensor

from ..maskinversion import EncodedImage, InputError, LocalizedTokens
from ..maskinversion.geometry import as_masks, check_range


def pair(images: Tensor, masks: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
    """Every image [h, w, 3] with its masks [h, w]: one image takes all masks; equal numbers pair up; one mask is for all.

    Raises InputError for other numbers or dimensions, and for an image or mask that cannot be used, with its place in the batch.
    """
    if images.ndim != 4:
        raise InputError(f"the image has shape {tuple(images.shape)}; it must be batch x height x width x 3")
    for index, image in enumerate(images):
        check_range(image, f"image {index}")
    seen = as_masks(masks)
    b, m = len(images), len(seen)
    if b == 1:
        return [(images[0], seen)]
    if m in (1, b):
        return [(image, [seen[index % m]]) for index, image in enumerate(images)]
    raise InputError(
        f"{b} images and {m} masks do not go together: give one image with any number of masks, as many masks as images, or one "
        f"mask for all"
    )


def clip_vision_output(encoded: list[EncodedImage], tokens: list[LocalizedTokens]) -> comfy.clip_vision.Output:
    """What CLIP Vision Encode would give for M pictures, with the M tokens as `image_embeds`.

    The hidden states are those of each token's whole picture.
    """
    device = comfy.model_management.intermediate_device()
    counts = [len(t) for t in tokens]

    def of_each(name: str) -> Tensor:
        rows = [getattr(e, name).expand(n, -1, -1) for e, n in zip(encoded, counts, strict=True)]
        return torch.cat(rows).float().to(device)

    output = comfy.clip_vision.Output()
    output["image_embeds"] = torch.cat([t.embeddings for t in tokens]).float().to(device)
    output["last_hidden_state"] = of_each("leaving")
    output["penultimate_hidden_states"] = of_each("entering")
    output["image_sizes"] = [(3, *e.geometry.model_size) for e, n in zip(encoded, counts, strict=True) for _ in range(n)]
    output["mm_projected"] = None
    return output
