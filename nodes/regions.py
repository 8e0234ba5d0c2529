"""Regions from whatever finds them: boxes, segments, lists and label maps, as masks; and some of many masks."""

import torch
from comfy_api.latest import io

from ..maskinversion import InputError
from ..maskinversion.pictures import colour_masks, is_segments
from .support.convert import mask_at, masks_of, one_picture
from .support.regions import Regions, as_bounding_boxes, frames_of
from .support.types import REGIONS_CATEGORY, RegionSockets
from .support.words import whole_numbers


class JoinRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionRegions",
            display_name="Boxes and Segments to Masks",
            category=REGIONS_CATEGORY,
            description="Makes one batch of masks of boxes, SEGS, masks of any size and lists of them; and boxes and a list of it.",
            search_aliases=["box to mask", "mask to box", "SEGS to mask", "mask list to batch", "join masks", "split masks"],
            inputs=[
                io.MultiType.Input(
                    "regions",
                    types=RegionSockets,
                    tooltip="Masks, ComfyUI's boxes (SAM 3, RT-DETR), SEGS of the Impact Pack, boxes of Florence-2; also lists.",
                ),
                io.MultiType.Input("more", types=RegionSockets, optional=True, tooltip="Regions to put after those."),
                io.Image.Input("image", optional=True, tooltip="The picture that they are of. Boxes need it; masks get its size."),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="All of them, one after the other, in one size."),
                io.Mask.Output(
                    display_name="list", is_output_list=True, tooltip="The same one by one: what follows runs once for each."
                ),
                io.BoundingBox.Output(display_name="boxes", tooltip="Around each, as SAM 3 takes them."),
                io.String.Output(display_name="labels", tooltip="What a detector called each, one a line; else empty lines."),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(cls, regions: list, more: list | None = None, image: list | None = None) -> io.NodeOutput:
        given = [*regions, *(more or [])]
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        if image:
            height, width = image[0].shape[1:3]
        elif tensors:
            height, width = tensors[0].shape[-2:]
        elif segments := [one for one in given if is_segments(one)]:
            height, width = segments[0][0][:2]
        else:
            raise InputError("boxes say nothing of the size of their picture: connect it to image")
        size = int(height), int(width)
        masks, labels = [], []
        for one in given:
            if isinstance(one, torch.Tensor):
                found = masks_of(one)
                masks.append(torch.stack([mask_at(mask, size).cpu() for mask in found]))
                labels += [""] * len(found)
            else:
                for frame in frames_of(one, size):
                    masks.append(frame.masks)
                    labels += frame.labels
        every = torch.cat(masks)
        if not len(every):
            raise InputError("there is no region: nothing was found. Lower the threshold of what looks for them")
        joined = Regions(every, labels)
        return io.NodeOutput(every, [mask[None] for mask in every], as_bounding_boxes(joined), "\n".join(labels))


class PickMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionPickMasks",
            display_name="Pick Masks",
            category=REGIONS_CATEGORY,
            description="Takes some masks of a batch by their numbers.",
            search_aliases=["select mask", "mask index", "mask from batch", "get mask"],
            inputs=[
                io.Mask.Input("mask", tooltip="Any number."),
                io.String.Input(
                    "numbers", default="0", tooltip="Which ones, counted from 0, with commas between: 0 or 2, 0. -1 is the last."
                ),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="The masks, in the order of the numbers.")],
        )

    @classmethod
    def execute(cls, mask: torch.Tensor, numbers: str) -> io.NodeOutput:
        masks, chosen = masks_of(mask), whole_numbers(numbers)
        count = len(masks)
        if not chosen:
            raise InputError(f"no mask is picked: give at least one number, from 0 to {count - 1}")
        for number in chosen:
            if not -count <= number < count:
                raise InputError(
                    f"there is no mask {number}: there are {count}, so use {f'0 to {count - 1}' if count > 1 else '0 only'}"
                )
        return io.NodeOutput(torch.stack([masks[number] for number in chosen]))


class LabelMapMasks(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLabelMap",
            display_name="Masks of a Label Map",
            category=REGIONS_CATEGORY,
            description="The masks of a picture in which every region has a flat colour of its own, or a grey that is its id.",
            search_aliases=["segmentation map to masks", "color to mask", "semantic segmentation", "id map"],
            inputs=[
                io.Image.Input("image", tooltip="One label map."),
                io.String.Input(
                    "labels",
                    default="",
                    tooltip="Which, with commas between: ids such as 1, 15, or colours such as #c00080. Empty: all but black.",
                ),
                io.Float.Input(
                    "least",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Percent of the picture that a region must fill. A little above 0 drops what blurred edges are.",
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="One for each label."),
                io.String.Output(display_name="labels", tooltip="Of each mask, one a line."),
            ],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, labels: str, least: float) -> io.NodeOutput:
        found = colour_masks(one_picture(image, "with labels"), labels.replace(",", " ").split(), least / 100)
        return io.NodeOutput(torch.stack(list(found.values())).float(), "\n".join(found))


NODES = (JoinRegions, PickMasks, LabelMapMasks)
