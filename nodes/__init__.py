"""The nodes, one file a group: each translates ComfyUI's types into the library's, calls it, and translates back."""

from comfy_api.latest import ComfyExtension, io

from . import (
    captions,
    classifier,
    clip,
    collection,
    diffusion,
    hidden_states,
    invert,
    naming,
    prior,
    prompts,
    regions,
    token_files,
    tokens,
)


class MaskInversionExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        about_regions = (clip, invert, regions, naming, classifier, captions, prompts, collection)
        groups = (*about_regions, tokens, token_files, diffusion, prior, hidden_states)
        return [node for group in groups for node in group.NODES]
