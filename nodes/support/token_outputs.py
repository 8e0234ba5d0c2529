"""Tokens on their own, as what other nodes take: there is no picture any more, only the embeddings."""

from typing import NoReturn

import comfy.clip_vision
import comfy.model_management
import torch
from comfy_api.latest import io

from .types import Tokens, TokensSocket


class TokensOnly(comfy.clip_vision.Output):
    """A CLIP vision output that has `image_embeds` and nothing else."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"these tokens were changed or loaded, so they carry an embedding but not the {name} that this node reads: connect "
            f"clip_vision_output of the MaskInversion node itself"
        )


def image_embeds(tokens: Tokens) -> torch.Tensor:
    """All tokens [M, D], where ComfyUI keeps what goes from node to node."""
    embeds = torch.cat([found.embeddings.cpu() for found in tokens])
    return embeds.float().to(comfy.model_management.intermediate_device())


def outputs(tokens_tooltip: str) -> list[io.Output]:
    return [
        TokensSocket.Output(display_name="tokens", tooltip=tokens_tooltip),
        io.ClipVisionOutput.Output(
            display_name="clip_vision_output", tooltip="The same tokens, for nodes such as unCLIPConditioning. Embeddings only."
        ),
    ]


def result(tokens: Tokens, *more: object, states: torch.Tensor | None = None) -> io.NodeOutput:
    """What every node with `outputs` gives, and what it gives more. states [M, N, d]: hidden states before the last block, where
    there are any.
    """
    output = TokensOnly()
    output["image_embeds"] = image_embeds(tokens)
    if states is not None:
        output["penultimate_hidden_states"] = states
    return io.NodeOutput(tokens, output, *more)
