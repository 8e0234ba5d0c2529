"""By how many degrees each preset turns a token, on random weights of architectures whose embeddings differ in length.

    python -m tests.helpers.angles ViT-B-32 ViT-B-16-SigLIP ViT-L-14 ViT-H-14 ViT-bigG-14

Prints a Markdown table, of the mean over three masks: after the first step, and after all. The text tower plays no part, and of the
vision tower's blocks the first twelve are enough: the length of an embedding comes from its last norm and projection.
"""

import sys

import open_clip
import torch
import torch.nn.functional as F

import maskinversion as mi
from maskinversion.settings import PRESETS
from tests.helpers.pictures import picture

DEPTH = 12  # blocks, at most


def clip_of(name: str) -> mi.Clip:
    torch.manual_seed(0)
    configuration = open_clip.get_model_config(name)
    configuration["text_cfg"] |= {"layers": 1}
    if "layers" in configuration["vision_cfg"]:
        configuration["vision_cfg"]["layers"] = min(configuration["vision_cfg"]["layers"], DEPTH)
    configuration.pop("custom_text", None)
    return mi.load_clip(open_clip.CustomTextCLIP(**configuration).eval(), device="cpu")


def degrees(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.rad2deg(F.cosine_similarity(a, b).clamp(-1, 1).acos()).mean().item()


def row(name: str) -> str:
    clip = clip_of(name)
    image, masks = picture(clip.tower.image_size[0], 3)
    encoded = mi.MaskInverter(clip).encode(image)
    cells = []
    for values in PRESETS.values():
        still, first, last = (
            mi.MaskInverter(clip, **values | changes).invert(encoded, masks).embeddings
            for changes in ({"iterations": 1, "lr": 1e-9}, {"iterations": 1}, {})
        )
        cells.append(f"{degrees(still, first):.1f}, {degrees(still, last):.1f}")
    return " | ".join((f"| {name}", f"{encoded.global_embedding.norm():.1f}", *cells)) + " |"


def main() -> None:
    print(f"| random weights of | length | {' | '.join(PRESETS)} |\n|{'---|' * (2 + len(PRESETS))}")
    for name in sys.argv[1:]:
        print(row(name), flush=True)


if __name__ == "__main__":
    main()
