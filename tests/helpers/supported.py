"""The table of supported models in docs/models.md, from what the tests run.

    python -m tests.helpers.supported        # prints it

test_readme.py compares it with the README.
"""

import open_clip

from maskinversion.models.catalogue import readable_architectures
from tests.comfy import test_native_clip_vision
from tests.unit import test_families, test_transformers


def table() -> str:
    files = ", ".join(test_native_clip_vision.ARCHITECTURES)
    rows = [
        ("ComfyUI `CLIP_VISION`", "Load CLIP Vision (its own node)", files),
        ("open_clip: ViT", "name and tag, folder, file", "OpenAI, LAION, DataComp, DFN, MetaCLIP; class token or mean; LayerScale"),
        ("open_clip: other image sides", "name and tag, folder, file", "; ".join(test_families.MODELS)),
        ("transformers", "a live module, in Python", ", ".join(f"`{kind}`" for kind in test_transformers.KINDS)),
    ]
    names = f"{len(readable_architectures())} of open_clip's {len(open_clip.list_models())} architectures can be loaded by name.\n"
    head = "| family | how it comes | tested against autograd |\n|---|---|---|\n"
    return head + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n\n" + names


if __name__ == "__main__":
    print(table(), end="")
