"""Graphs in the format of ComfyUI's API."""

from pathlib import Path

WORKFLOWS = Path(__file__).parents[2] / "workflows"
WORKFLOW = WORKFLOWS / "localize_a_region.json"


def node(graph, kind):
    return next(name for name, entry in graph.items() if entry["class_type"] == kind)


def inversion(defaults, images=1, masks=1, kind="box", mask_size=(48, 64), **settings):
    """A graph of made-up images [images, 48, 64] and masks, with a report of what comes out."""
    return {
        "image": {"class_type": "TestImage", "inputs": {"count": images, "height": 48, "width": 64}},
        "mask": {
            "class_type": "TestMask",
            "inputs": {"count": masks, "height": mask_size[0], "width": mask_size[1], "kind": kind},
        },
        "clip": {"class_type": "MaskInversionLoadCLIP", "inputs": {"source": "bundled"}},
        "inversion": {
            "class_type": "MaskInversion",
            "inputs": defaults | settings | {"image": ["image", 0], "mask": ["mask", 0], "clip": ["clip", 0]},
        },
        "report": {
            "class_type": "TestReport",
            "inputs": {"tokens": ["inversion", 0], "output": ["inversion", 1], "maps": ["inversion", 2]},
        },
    }
