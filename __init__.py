"""MaskInversion for ComfyUI: registers the nodes, and nothing else."""

OLDEST = "0.15.0"  # ComfyUI; [tool.comfy] in pyproject.toml asks for the same
WEB_DIRECTORY = "./web"


def check_version(version: str) -> None:
    """Raises ImportError for a ComfyUI that lacks what the nodes are made of."""

    def numbers(of: str) -> list[int]:
        return [int(part) if part.isdecimal() else 0 for part in of.split(".")[:3]]

    if numbers(version) < numbers(OLDEST):
        raise ImportError(f"MaskInversion needs ComfyUI {OLDEST} or newer, and this is {version}: update ComfyUI, then restart it")


def check_alone() -> None:
    """Raises ImportError where another copy of the pack was loaded before this one."""
    from nodes import NODE_CLASS_MAPPINGS  # ComfyUI's

    other = NODE_CLASS_MAPPINGS.get("MaskInversion")
    if other is not None:
        where = getattr(other, "RELATIVE_PYTHON_MODULE", "another folder").replace("custom_nodes.", "custom_nodes/")
        raise ImportError(f"MaskInversion is here twice, and was loaded from {where}: delete one of the two, then restart ComfyUI")


try:
    from comfyui_version import __version__
except ImportError:  # outside of ComfyUI
    pass
else:
    check_version(__version__)


async def comfy_entrypoint():
    check_alone()
    from .nodes import MaskInversionExtension

    return MaskInversionExtension()
