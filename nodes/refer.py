"""Find the region that a phrase means."""

import comfy.model_management
import torch
from comfy_api.latest import io

from ..maskinversion import InputError
from ..maskinversion.operations import embeddings_of
from ..maskinversion.tasks.refer import DEFAULT_TEMPLATE, refer
from .convert import masks_of
from .managed_clip import ManagedClip
from .progress import with_text
from .types import CATEGORY, ClipSocket, TokensSocket
from .words import check_made_with, phrases_input

NONE = "(none left)"


class FindRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionRefer",
            display_name="Find Regions by Phrase",
            category=CATEGORY,
            description="Which region each of your phrases means, and which phrase means each region.",
            search_aliases=["referring expression", "grounding", "text to mask", "select mask by text"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="Of one picture's masks. In MaskInversion, alpha 5 keeps what is around."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                phrases_input("One a line."),
                io.Boolean.Input(
                    "one_to_one",
                    default=False,
                    tooltip="Every region belongs to one phrase at most, so that all fit best together.",
                ),
                io.String.Input("template", default=DEFAULT_TEMPLATE, advanced=True, tooltip="Each phrase is read in place of {}."),
                io.Mask.Input("mask", optional=True, tooltip="The masks that the tokens are of, to choose from; else their maps."),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks", tooltip="The region of each phrase that has one, in the order of the phrases."
                ),
                io.String.Output(display_name="numbers", tooltip="Of the same regions, counted from 0, for Pick Tokens."),
                io.String.Output(display_name="phrases", tooltip="The phrase of each region, one a line."),
                io.String.Output(display_name="scores", tooltip="Tab-separated: region, phrase, cosine."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, tokens, clip: ManagedClip, phrases, one_to_one, template, mask=None) -> io.NodeOutput:
        ready = clip.ready()
        check_made_with(tokens, ready)
        embeddings = embeddings_of(tokens)
        if mask is None:
            if len({t.geometry.image_size for t in tokens}) > 1:
                raise InputError("the tokens are of pictures of several sizes: connect the masks to choose from")
            device = comfy.model_management.intermediate_device()
            mask = torch.cat([t.maps_for().to(device) for t in tokens])
        mask = masks_of(mask)
        if len(mask) != len(embeddings):
            raise InputError(f"there are {len(mask)} masks and {len(embeddings)} tokens: connect the masks that the tokens are of")
        found = refer(embeddings, ready, phrases.splitlines(), template, one_to_one)
        regions = [region for region in found.region_of if region is not None]
        summary = "\n".join(
            f"{phrase}: {NONE if region is None else f'region {region + 1}'}"
            for phrase, region in zip(found.phrases, found.region_of, strict=True)
        )
        of_regions = "\n".join(NONE if text is None else found.phrases[text] for text in found.phrase_of)
        scores = "\n".join(
            f"{region + 1}\t{phrase}\t{cosine:.4f}"
            for region, row in enumerate(found.similarities.tolist())
            for phrase, cosine in zip(found.phrases, row, strict=True)
        )
        numbers = ", ".join(map(str, regions))
        return with_text(summary, cls.hidden.unique_id, mask[regions], numbers, of_regions, scores)
