"""Tokens for IP-Adapter: the EMBEDS of ComfyUI_IPAdapter_plus."""

import torch
from comfy_api.latest import io

from ..maskinversion.operations import stack
from .token_outputs import image_embeds
from .types import TOKENS_CATEGORY, EmbedsSocket, TokensSocket


class TokensToEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionEmbeds",
            display_name="Tokens to IP-Adapter Embeds",
            category=TOKENS_CATEGORY,
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
