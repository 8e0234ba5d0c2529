"""MaskInversion for ComfyUI: registers the nodes, and nothing else."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import MaskInversionExtension

    return MaskInversionExtension()
