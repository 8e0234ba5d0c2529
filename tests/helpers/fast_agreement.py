"""How near the tokens of `precision="fast"` come to the exact ones, with bfloat16 arithmetic, or imitated where there is none.

    python -m tests.helpers.fast_agreement --clip bundled --tokens 500     # on drawn scenes, of recipes/build/sprites.npz
    python -m tests.helpers.fast_agreement --clip ViT-B-32/random ViT-B-16/random --tokens 500

Imitated: operands rounded to bfloat16, products and sums in float32, results rounded, which is what processors do that have it.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import maskinversion as mi
from maskinversion.compute.processor import has_bfloat16
from maskinversion.explain import plan

AT_ONCE = 20  # masks of a picture of noise
LIMIT = 0.999
aten = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.bmm.default, aten.bmm.out, aten.linear.default)


class Imitated(TorchDispatchMode):
    """bfloat16 products on a processor that takes a hundred times as long for them."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in PRODUCTS or args[0].dtype != torch.bfloat16:
            return function(*args, **kwargs)
        first, second = args[0].float(), args[1].float()
        product = first @ (second.mT if function is aten.linear.default else second)
        return kwargs["out"].copy_(product) if "out" in kwargs else product.bfloat16()


def scenes(tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures [h, w, 3] and masks [M, h, w] as the bundled CLIP was trained with, and held-out kinds."""
    from recipes.common.scenes import KINDS, Scenes, usual_counts
    from recipes.common.sprites import TRAINING_STYLES

    drawn, rng, done = Scenes(TRAINING_STYLES), np.random.default_rng(0), 0
    while done < tokens:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        scene = drawn.draw(rng, kind, int(rng.choice(usual_counts(kind))))
        masks = scene.masks[(scene.masks > 0.5).sum((1, 2)) > 20]
        done += len(masks)
        if len(masks):
            yield torch.from_numpy(scene.image), torch.from_numpy(masks)


def noise(tokens: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for number in range(-(-tokens // AT_ONCE)):
        generator = torch.Generator().manual_seed(number)
        masks = F.interpolate(torch.rand(AT_ONCE, 1, 6, 6, generator=generator), size=size, mode="bilinear")[:, 0] > 0.5
        masks[:, size // 3 : size // 2, size // 3 : size // 2] = True  # none is empty
        yield torch.rand(size, size, 3, generator=generator), masks.float()


def differences(clip: mi.Clip, tokens: int) -> np.ndarray:
    """1 - cosine of the fast token to the exact one, of each of at least so many."""
    exact, fast = (mi.MaskInverter(clip, precision=precision) for precision in ("exact", "fast"))
    found = []
    for picture, masks in scenes(tokens) if clip.name == "bundled" else noise(tokens, exact.image_size[0]):
        encoded = exact.encode(picture)
        ours, theirs = (inverter.invert(encoded, masks).embeddings.double() for inverter in (exact, fast))
        found += (1 - F.cosine_similarity(ours, theirs)).tolist()
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.helpers.fast_agreement", description=__doc__)
    parser.add_argument("--clip", nargs="+", default=["bundled"])
    parser.add_argument("--tokens", type=int, default=500)
    args = parser.parse_args()
    imitate = not has_bfloat16(torch.device("cpu"))
    if imitate:
        plan.has_bfloat16 = lambda device: True
    for name in args.clip:
        torch.manual_seed(0)
        clip = mi.load_clip(name, device="cpu")
        with Imitated() if imitate else torch.no_grad():
            found = differences(clip, args.tokens)
        print(
            f"{name}: {len(found)} tokens, {(found > 1 - LIMIT).sum()} below {LIMIT}, worst cosine {1 - found.max():.5f}; "
            f"1 - cosine: half below {np.median(found):.1e}, 99 of 100 below {np.quantile(found, 0.99):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
