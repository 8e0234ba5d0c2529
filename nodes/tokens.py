"""Arithmetic on tokens, the token of nothing, and tokens as IP-Adapter takes them."""

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import io

from ..maskinversion import operations
from .support.managed import ManagedClip, managed
from .support.token_outputs import image_embeds, outputs, result
from .support.types import TOKENS_CATEGORY, ClipSocket, EmbedsSocket, Tokens, TokensSocket, seed_input
from .support.words import whole_numbers


class BlendTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionBlend",
            display_name="Blend Tokens",
            category=TOKENS_CATEGORY,
            description="Mixes two regions: a token on the way from one to the other.",
            search_aliases=["slerp tokens", "mix regions", "interpolate embeddings"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="What weight 0 is."),
                TokensSocket.Input("other", tooltip="What weight 1 is: one token for all, or as many as tokens. Of the same CLIP."),
                io.Float.Input("weight", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="How far to go to the other."),
            ],
            outputs=outputs("The mixtures, as many as tokens."),
        )

    @classmethod
    def execute(cls, tokens: Tokens, other: Tokens, weight: float) -> io.NodeOutput:
        return result(operations.blend(tokens, other, weight))


class PullTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionPull",
            display_name="Pull Tokens to Whole Picture",
            category=TOKENS_CATEGORY,
            description="Gives a region's token back some of its picture, as alpha does, but afterwards.",
            search_aliases=["region context", "global embedding"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="The regions, from MaskInversion."),
                io.Float.Input(
                    "strength", default=0.3, min=0.0, max=1.0, step=0.01, tooltip="0 is the region only, 1 the whole picture."
                ),
            ],
            outputs=outputs("The tokens, nearer to their whole pictures."),
        )

    @classmethod
    def execute(cls, tokens: Tokens, strength: float) -> io.NodeOutput:
        return result(operations.pull(tokens, strength))


class SubtractTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionSubtract",
            display_name="Subtract Tokens",
            category=TOKENS_CATEGORY,
            description="Makes a token less like another one: this region, but not what that one is.",
            search_aliases=["negative token", "remove concept"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="The regions to change."),
                TokensSocket.Input(
                    "other", tooltip="What to go away from: one token for all, or as many as tokens. Of the same CLIP."
                ),
                io.Float.Input("strength", default=0.5, min=0.0, max=10.0, step=0.01, tooltip="0 changes nothing."),
            ],
            outputs=outputs("The tokens, as long as before, less like the other."),
        )

    @classmethod
    def execute(cls, tokens: Tokens, other: Tokens, strength: float) -> io.NodeOutput:
        return result(operations.subtract(tokens, other, strength))


class VaryTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionVary",
            display_name="Vary Tokens",
            category=TOKENS_CATEGORY,
            description="Variations of a region: tokens close to it, each in a direction of its own.",
            search_aliases=["token variations", "sample around token", "latent augmentation"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="The regions to vary."),
                io.Int.Input("count", default=4, min=1, max=256, tooltip="How many variations of each token."),
                io.Float.Input(
                    "angle", default=20.0, min=0.0, max=90.0, step=0.5, tooltip="How far away, in degrees. 0 changes nothing."
                ),
                seed_input("The same seed gives the same variations."),
            ],
            outputs=outputs("All variations of the first token, then of the second, and so on."),
        )

    @classmethod
    def execute(cls, tokens: Tokens, count: int, angle: float, seed: int) -> io.NodeOutput:
        return result(operations.vary(tokens, count, angle, seed))


class StackTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionStack",
            display_name="Stack Tokens",
            category=TOKENS_CATEGORY,
            description="Puts tokens from several places one after the other.",
            search_aliases=["combine tokens", "batch tokens"],
            inputs=[
                io.Autogrow.Input(
                    "sets",
                    tooltip="Tokens, from as many places as you like.",
                    template=io.Autogrow.TemplatePrefix(
                        TokensSocket.Input("tokens", tooltip="All of the same CLIP."), prefix="tokens", min=1, max=32
                    ),
                )
            ],
            outputs=outputs("All tokens, in the order of the inputs."),
        )

    @classmethod
    def execute(cls, sets: dict[str, Tokens | None]) -> io.NodeOutput:
        return result(operations.stack(*(group for group in sets.values() if group is not None)))


class PickTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionPick",
            display_name="Pick Tokens",
            category=TOKENS_CATEGORY,
            description="Takes some of the tokens: a region of several, or several in another order.",
            search_aliases=["select token", "token index"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="All of them, from MaskInversion."),
                io.String.Input(
                    "numbers", default="0", tooltip="Which ones, counted from 0, with commas between: 0 or 2, 0. -1 is the last."
                ),
            ],
            outputs=outputs("The tokens, in the order of the numbers."),
        )

    @classmethod
    def execute(cls, tokens: Tokens, numbers: str) -> io.NodeOutput:
        return result(operations.pick(tokens, whole_numbers(numbers)))


class TokenOfNothing(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionNothing",
            display_name="Token of Nothing",
            category=TOKENS_CATEGORY,
            description="What a CLIP says of a picture with nothing on it: the negative token that Kandinsky 2.2 expects, and the "
            "negative hidden states that IP-Adapter Plus expects.",
            search_aliases=["zero image embedding", "negative token"],
            inputs=[
                io.MultiType.Input("clip", types=[ClipSocket, io.ClipVision], tooltip="The one that made your tokens."),
                io.Combo.Input(
                    "picture",
                    options=list(operations.NOTHINGS),
                    default=operations.NOTHINGS[0],
                    tooltip="grey is what the model sees as zeros (Kandinsky 2.2, IP-Adapter Plus), black is a black picture.",
                ),
            ],
            outputs=outputs("One token."),
        )

    @classmethod
    def execute(cls, clip: ManagedClip | ClipVisionModel, picture: str) -> io.NodeOutput:
        ready = managed(clip).ready()
        encoded = operations.empty(ready, picture)
        rows = encoded.entering[None].float().to(comfy.model_management.intermediate_device())
        return result([operations.nothing(ready, picture, encoded)], states=rows)


class TokensToEmbeds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
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
    def execute(cls, tokens: Tokens, negative: Tokens | None = None) -> io.NodeOutput:
        positive = image_embeds(tokens)
        if negative is None:
            return io.NodeOutput(positive, torch.zeros_like(positive))
        operations.stack(tokens, negative)
        return io.NodeOutput(positive, image_embeds(negative))


NODES = (
    *(BlendTokens, PullTokens, SubtractTokens, VaryTokens, StackTokens, PickTokens),
    *(TokenOfNothing, TokensToEmbeds),
)
