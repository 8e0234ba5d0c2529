"""Hidden states of regions, and tokens, for models of ComfyUI's own nodes or of other packs: Redux, SVD, IP-Adapter Plus, Wan."""

import comfy.clip_vision
import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import StyleModel
from comfy_api.latest import io

from ..maskinversion import InputError, MaskInverter
from .support.attention import Conditioning, with_rows
from .support.convert import masks_of
from .support.managed import ManagedClip, managed
from .support.token_outputs import image_embeds
from .support.types import CONSUMERS_CATEGORY, ClipSocket, EmbedsSocket, Tokens, TokensSocket, WanEmbedsSocket

CAMERA = 4  # numbers that Stable Zero123 has after the embedding


class ApplyRegionStyle(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionStyle",
            display_name="Apply Region Style",
            category=CONSUMERS_CATEGORY,
            description="FLUX Redux of regions: how strong each is, and where in the new picture it may be seen. Put several after "
            "each other for regions of several pictures.",
            search_aliases=["redux mask", "regional redux", "style model mask", "apply style model"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The text, or what another Apply Region Style gives."),
                io.StyleModel.Input("style_model", tooltip="FLUX Redux, from Load Style Model."),
                io.ClipVisionOutput.Input(
                    "clip_vision_output", tooltip="From MaskInversion with SigLIP and hidden states of the region; one or several."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How much the new picture looks at the regions. 1 is as Apply Style Model; 0 is next to nothing.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where in the new picture: one mask for all regions, or one for each. Grey is weaker. Open: all of it.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="The same, with the regions.")],
        )

    @classmethod
    def execute(
        cls,
        conditioning: Conditioning,
        style_model: StyleModel,
        clip_vision_output: comfy.clip_vision.Output,
        strength: float,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        rows = style_model.get_cond(clip_vision_output)
        if mask is None:
            return io.NodeOutput(with_rows(conditioning, rows, strength))
        masks = masks_of(mask)
        if len(masks) not in (1, len(rows)):
            raise InputError(f"{len(rows)} regions and {len(masks)} masks do not go together: give one mask, or one for each")
        return io.NodeOutput(with_rows(conditioning, rows, strength, masks * (len(rows) // len(masks))))


class TokensIntoConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionCondition",
            display_name="Token into Conditioning",
            category=CONSUMERS_CATEGORY,
            description="Puts a token where SVD_img2vid_Conditioning, StableZero123_Conditioning and SV3D_Conditioning put the "
            "embedding of the whole picture.",
            search_aliases=["SVD region", "stable video diffusion token", "zero123 region", "SV3D region"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="positive, of one of those nodes."),
                TokensSocket.Input("tokens", tooltip="One token, of the CLIP vision of the same checkpoint."),
            ],
            outputs=[io.Conditioning.Output(tooltip="For positive of the sampler. The picture to start from stays as it is.")],
        )

    @classmethod
    def execute(cls, conditioning: Conditioning, tokens: Tokens) -> io.NodeOutput:
        embeds = image_embeds(tokens)
        if len(embeds) != 1:
            raise InputError(f"there are {len(embeds)} tokens, and the model takes one: use Pick Tokens or Blend Tokens")
        (token,) = embeds
        result = []
        for vectors, more in conditioning:
            width = vectors.shape[-1]
            if width not in (len(token), len(token) + CAMERA):
                raise InputError(
                    f"the conditioning has vectors of {width} numbers and the token has {len(token)}: connect MaskInversion to the "
                    f"CLIP vision of the checkpoint that the conditioning is for"
                )
            replaced = vectors.clone()
            replaced[..., : len(token)] = token.to(vectors)
            result.append([replaced, more.copy()])
        return io.NodeOutput(result)


class StatesToEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionPlusEmbeds",
            display_name="Hidden States to IP-Adapter Embeds",
            category=CONSUMERS_CATEGORY,
            description="Hands hidden states of regions to the IPAdapter Embeds node of ComfyUI_IPAdapter_plus. For Plus "
            "adapters and Kolors; the basic adapters take tokens.",
            search_aliases=["ipadapter plus embeds", "kolors ipadapter", "IPAdapter mask reference"],
            inputs=[
                io.ClipVisionOutput.Input("clip_vision_output", tooltip="From MaskInversion, with hidden states of the region."),
                io.MultiType.Input(
                    "clip",
                    types=[ClipSocket, io.ClipVision],
                    tooltip="The one that made it: ViT-H, for Kolors ViT-L 336. It encodes the negative, a black picture.",
                ),
            ],
            outputs=[
                EmbedsSocket.Output(display_name="pos_embed", tooltip="For pos_embed of IPAdapter Embeds."),
                EmbedsSocket.Output(display_name="neg_embed", tooltip="For neg_embed of IPAdapter Embeds: a black picture."),
            ],
        )

    @classmethod
    def execute(cls, clip_vision_output: comfy.clip_vision.Output, clip: ManagedClip | ClipVisionModel) -> io.NodeOutput:
        positive = clip_vision_output["penultimate_hidden_states"]
        inverter = MaskInverter(managed(clip).ready())
        negative = inverter.encode(torch.zeros(*inverter.image_size, 3)).entering[None].to(positive)
        if positive.shape[-1] != negative.shape[-1]:
            raise InputError(
                f"hidden states are {positive.shape[-1]} wide, and those of this CLIP {negative.shape[-1]}: connect the one that "
                "made them"
            )
        return io.NodeOutput(positive, negative)


class StatesToWan(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionWanEmbeds",
            display_name="Hidden States to WanVideo Embeds",
            category=CONSUMERS_CATEGORY,
            description="Hands hidden states of regions to the nodes of ComfyUI-WanVideoWrapper. ComfyUI's own Wan nodes take "
            "clip_vision_output itself.",
            search_aliases=["WanVideo ClipVision Encode", "kijai wan", "clip_embeds"],
            inputs=[
                io.ClipVisionOutput.Input(
                    "clip_vision_output", tooltip="From MaskInversion with ViT-H. Rows of several regions come one after the other."
                ),
                io.Float.Input("strength", default=1.0, min=0.0, max=10.0, step=0.001, tooltip="What they are multiplied by."),
                io.ClipVisionOutput.Input("negative", optional=True, tooltip="What to lead away from; mostly left open."),
            ],
            outputs=[WanEmbedsSocket.Output(display_name="clip_embeds", tooltip="For WanVideo ImageToVideo Encode.")],
        )

    @classmethod
    def execute(
        cls, clip_vision_output: comfy.clip_vision.Output, strength: float, negative: comfy.clip_vision.Output | None = None
    ) -> io.NodeOutput:
        device = comfy.model_management.get_torch_device()

        def joined(output: comfy.clip_vision.Output) -> torch.Tensor:
            return output["penultimate_hidden_states"].flatten(0, 1)[None].to(device)

        return io.NodeOutput(
            {
                "clip_embeds": joined(clip_vision_output) * strength,
                "negative_clip_embeds": None if negative is None else joined(negative),
            }
        )


NODES = (ApplyRegionStyle, TokensIntoConditioning, StatesToEmbeds, StatesToWan)
