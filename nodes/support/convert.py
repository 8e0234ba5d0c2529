"""ComfyUI's batches to the library's images and masks."""

import comfy.model_management
import torch
from torch import Tensor

from ...maskinversion import InputError, LocalizedTokens
from ...maskinversion.geometry import resize
from ...maskinversion.pictures import as_masks, in_range, read_mask, warn
from .regions import Regions, frames_of


def pictures_of(images: Tensor) -> list[Tensor]:
    """Every picture [h, w, 3] of ComfyUI's IMAGE [B, h, w, C], in 0..1: what resizing left beyond is clamped.

    Raises InputError for other dimensions, and for a picture that cannot be used, with its place in the batch.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise InputError(f"the image has shape {tuple(images.shape)}; it must be batch x height x width x 3")
    if 0 in images.shape:
        raise InputError(f"there is no image: the batch is empty, {tuple(images.shape)}. Look at the node that gives it")
    found = (in_range(image[..., :3], f"image {index}") for index, image in enumerate(images))
    return [image.expand(-1, -1, 3) for image in found]


def one_picture(images: Tensor, what_for: str) -> Tensor:
    """The one picture [h, w, 3] of an IMAGE. Raises InputError for more. what_for: as in `to paint into`."""
    if len(images) != 1:
        raise InputError(f"there are {len(images)} pictures {what_for}; give one")
    return pictures_of(images)[0]


def masks_of(masks: Tensor, empty: bool = True) -> list[Tensor]:
    """The masks [h, w] of ComfyUI's MASK of any shape that ends in [h, w], as `as_masks` takes them. empty: whether one may be.

    They are views of the batch, of which no copy is held, but for those that had to be clamped. Raises InputError for one that
    cannot be used, with its place in the batch.
    """
    if masks.ndim < 2 or 0 in masks.shape:
        raise InputError(f"there is no mask: the batch is empty, {tuple(masks.shape)}. Look at the node that gives it")
    given = list(masks.reshape(-1, *masks.shape[-2:]))
    found = zip(given, as_masks(given, empty=empty), strict=True)
    return [mask if not mask.is_floating_point() or in_bounds(mask) else region for mask, region in found]


def mask_at(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """One of `masks_of` in 0..1 [h, w], at another size (height, width)."""
    return resize(read_mask(mask)[None, None], size, "bilinear")[0, 0]


def in_bounds(mask: Tensor) -> bool:
    low, high = mask.aminmax()
    return bool(low >= 0) and bool(high <= 1)


def masks_from(regions: object, size: tuple[int, int], empty: bool = True) -> list[Tensor]:
    """The masks [h, w] of a MASK, or of boxes or segments of one picture of this (height, width), as `masks_of`."""
    if not isinstance(regions, Tensor):
        regions = torch.cat([found.masks for found in frames_of(regions, size)])
    return masks_of(regions, empty)


def masks_or_maps(regions: object, tokens: list[LocalizedTokens]) -> list[Tensor]:
    """The masks [h, w] of what tokens are of, or where there are none, the tokens' maps.

    Raises InputError for tokens of pictures of several sizes, where their size is needed.
    """
    if isinstance(regions, Tensor):
        return masks_of(regions)
    sizes = {found.geometry.image_size for found in tokens}
    if len(sizes) > 1:
        raise InputError("the tokens are of pictures of several sizes: connect the masks to choose from")
    if regions is not None:
        return masks_from(regions, sizes.pop())
    device = comfy.model_management.intermediate_device()
    return [one for found in tokens for one in found.maps_for().to(device)]


def pair(images: Tensor, regions: object, leave_out_empty: bool = False) -> list[tuple[Tensor, list[Tensor]]]:
    """Every image [h, w, 3] with its masks [h, w], as `masks_of` gives them: one image takes all masks; equal numbers pair up; one
    mask is for all.

    regions: a MASK; or boxes or segments, as `frames_of` reads them, of which every image has any number of its own.
    leave_out_empty: masks that are black all over are left out, with a warning that says which, and so are images that have no
    other; else they are refused. Raises InputError for other numbers or dimensions, for an image or mask that cannot be used, with
    its place in the batch, and when all masks are empty.
    """
    pictures = pictures_of(images)
    if not isinstance(regions, Tensor):
        height, width = images.shape[1:3]
        return pair_boxes(pictures, frames_of(regions, (height, width)), leave_out_empty)
    seen = masks_of(regions, empty=leave_out_empty)
    b, m = len(pictures), len(seen)
    if b != 1 and m not in (1, b):
        raise InputError(
            f"{b} images and {m} masks do not go together: give one image with any number of masks, as many masks as images, or "
            f"one mask for all"
        )
    filled = [bool(mask.max() > 0) for mask in seen]
    if not any(filled):
        raise InputError("all masks are empty (black): there is nothing to localise. Paint the region white")
    if not all(filled):
        empty = ", ".join(str(index) for index, there in enumerate(filled) if not there)
        warn(f"left out, because the mask is empty (all black): {empty}")
    if b == 1:
        return [(pictures[0], [mask for mask, there in zip(seen, filled, strict=True) if there])]
    return [(image, [seen[index % m]]) for index, image in enumerate(pictures) if filled[index % m]]


def pair_boxes(pictures: list[Tensor], frames: list[Regions], leave_out_empty: bool) -> list[tuple[Tensor, list[Tensor]]]:
    """Every picture with the masks of its own boxes, or all with those of the one set that there is."""
    if len(frames) not in (1, len(pictures)):
        raise InputError(
            f"the boxes are of {len(frames)} pictures, and there are {len(pictures)} images: give the images that they are of"
        )
    pairs, empty = [], []
    for index, picture in enumerate(pictures):
        masks = frames[index % len(frames)].masks
        there = masks.amax((1, 2)) > 0
        empty += [f"box {box} of image {index}" for box in (~there).nonzero()[:, 0].tolist()] if len(masks) else [f"image {index}"]
        if there.any():
            pairs.append((picture, list(masks[there])))
    if not pairs and any(len(found.masks) for found in frames):
        raise InputError("the boxes are all outside of their pictures: give the images that they were found in, at the same size")
    if not pairs:
        raise InputError("there is no box: nothing was found. Lower the threshold of what looks for them")
    if empty and not leave_out_empty:
        raise InputError(f"there is nothing to localise in {', '.join(empty)}: give boxes in their pictures, or leave it out")
    if empty:
        warn(f"left out, because no box is in the picture: {', '.join(empty)}")
    return pairs
