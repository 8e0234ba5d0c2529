"""Tokens for IP-Adapter: the EMBEDS of ComfyUI_IPAdapter_plus, and the token to lead away from."""

import torch
from comfy_api.latest import io

from ..maskinversion.operations import NOTHINGS, nothing, stack
from .managed_clip import ManagedClip
from .operations import SUBCATEGORY
from .token_outputs import image_embeds, outputs, result
from .types import ClipSocket, TokensSocket

EmbedsSocket = io.Custom("EMBEDS")  # [M, D], as IPAdapter_plus has it for the basic adapters


class TokensToEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionEmbeds",
            display_name="Tokens to IP-Adapter Embeds",
            category=SUBCATEGORY,
            description="Hands tokens to the IPAdapter Embeds node of ComfyUI_IPAdapter_plus. For the basic adapters.",
            search_aliases=["ipadapter embeds", "IPAdapter mask reference"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="Of the CLIP that the adapter was trained with, mostly ViT-H."),
                TokensSocket.Input(
                    "negative", optional=True, tooltip="What to lead away from. Without it: zeros, as IPAdapter does."
                ),
            ],
            outputs=[
                EmbedsSocket.Output(display_name="pos_embed", tooltip="For pos_embed of IPAdapter Embeds."),
                EmbedsSocket.Output(display_name="neg_embed", tooltip="For neg_embed of IPAdapter Embeds."),
            ],
        )

    @classmethod
    def execute(cls, tokens, negative=None) -> io.NodeOutput:
        positive = image_embeds(tokens)
        if negative is None:
            return io.NodeOutput(positive, torch.zeros_like(positive))
        stack(tokens, negative)
        return io.NodeOutput(positive, image_embeds(negative))


class TokenOfNothing(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionNothing",
            display_name="Token of Nothing",
            category=SUBCATEGORY,
            description="What a CLIP says of a picture with nothing on it: the negative token that Kandinsky 2.2 expects.",
            search_aliases=["zero image embedding", "negative token"],
            inputs=[
                io.MultiType.Input("clip", types=[ClipSocket, io.ClipVision], tooltip="The one that made your tokens."),
                io.Combo.Input(
                    "picture",
                    options=list(NOTHINGS),
                    default=NOTHINGS[0],
                    tooltip="grey is what the model sees as zeros (Kandinsky 2.2), black is a black picture.",
                ),
            ],
            outputs=outputs("One token."),
        )

    @classmethod
    def execute(cls, clip, picture) -> io.NodeOutput:
        token = nothing(ManagedClip.of(clip).ready(), picture)
        return result([token])
