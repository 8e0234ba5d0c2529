"""Embeddings of regions, by MaskInversion and by the other ways that need no training, all of the same frozen model.

Each way takes a `Picture`, masks [M, h, w] in 0..1 of its size, and a `MaskInverter`, which says how the model sees pictures; it
gives embeddings [M, D]. `pictures` has those that change the picture, `patches` those that pool its patches.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ...errors import ModelError
from ...inverter import MaskInverter
from ...models.towers import Tower
from ...starts import maskclip
from .patches import clip_surgery, masked_in_last_blocks, plain_blocks, sclip, textregion
from .pictures import Picture, blur, by_changed_picture, crop, grey, masked_crop, red_circle

GLOBAL_SHARE = 0.95  # RIS: of the global half, for RefCOCO, RefCOCO+ and PhraseCut (its authors took 0.85 for RefCOCOg)
PLAIN_ONLY = ("sclip", "clip-surgery")


def whole(picture: Picture, masks: Tensor, inverter: MaskInverter) -> Tensor:
    """The model's plain embedding of the picture, the same for every region."""
    return picture.encoded(inverter).global_embedding.expand(len(masks), -1)


@torch.no_grad()
def by_patches(
    way: Callable[[Tower, Tensor, Tensor, Tensor], Tensor], picture: Picture, masks: Tensor, inverter: MaskInverter
) -> Tensor:
    """What the patches of the picture as a whole say of each mask, by the tokens around the last block."""
    encoded = picture.encoded(inverter)
    return way(inverter.clip.tower, encoded.entering, encoded.leaving, inverter.masks_for(encoded, masks).to(encoded.entering))


@torch.no_grad()
def by_canvas(way: Callable[[Tower, Tensor, Tensor], Tensor], picture: Picture, masks: Tensor, inverter: MaskInverter) -> Tensor:
    """The same, by a further pass of the picture through the model."""
    encoded = picture.encoded(inverter)
    return way(inverter.clip.tower, encoded.canvas, inverter.masks_for(encoded, masks).to(encoded.entering))


def ris(picture: Picture, masks: Tensor, inverter: MaskInverter) -> Tensor:
    """The weighted sum of what the model says of the picture when its last blocks see the mask only, and of the masked crop.

    Yu, Seo, Son, "Zero-shot Referring Image Segmentation with Global-Local Context Features" (arXiv 2303.17811); its image side.
    """
    context = by_canvas(masked_in_last_blocks, picture, masks, inverter)
    return GLOBAL_SHARE * context + (1 - GLOBAL_SHARE) * by_changed_picture(masked_crop, picture, masks, inverter)


WAYS: dict[str, Callable[[Picture, Tensor, MaskInverter], Tensor]] = {
    "global": whole,
    "crop": partial(by_changed_picture, crop),
    "masked-crop": partial(by_changed_picture, masked_crop),
    "grey": partial(by_changed_picture, grey),
    "red-circle": partial(by_changed_picture, red_circle),
    "blur": partial(by_changed_picture, blur),
    "maskclip": partial(by_patches, maskclip),
    "clip-surgery": partial(by_canvas, clip_surgery),
    "sclip": partial(by_patches, sclip),
    "textregion": partial(by_patches, textregion),
    "ris": ris,
}


def cannot(method: str, tower: Tower) -> str | None:
    """Why a method cannot be used with a model; None where it can."""
    try:
        if method in PLAIN_ONLY:
            plain_blocks(tower, method)
    except ModelError as error:
        return str(error)
    return None


def embeddings(method: str, picture: Picture, masks: Tensor, inverter: MaskInverter) -> tuple[Tensor, Tensor | None]:
    """Embeddings [M, D] of regions by one of `settings.METHODS`; and how well MaskInversion's maps cover the masks (IoU [M]).

    Raises ModelError for a method that cannot be used with the model.
    """
    if method == "maskinversion":
        tokens = inverter.invert(picture.encoded(inverter), masks)
        return tokens.embeddings, tokens.iou
    return WAYS[method](picture, masks, inverter), None
