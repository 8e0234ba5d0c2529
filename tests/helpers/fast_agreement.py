"""How near the tokens of `precision="fast"` come to the exact ones, with half-precision arithmetic, or an imitation of it.

    python -m tests.helpers.fast_agreement --clip bundled --tokens 500     # on drawn scenes, of recipes/build/sprites.npz
    python -m tests.helpers.fast_agreement --clip ViT-B-32/random ViT-B-16/random --tokens 500

    python -m tests.helpers.fast_agreement --precision float16            # what GPUs take, instead of bfloat16
    python -m tests.helpers.fast_agreement --precision float64            # tokens of `exact` in float32 and in float64

Imitated: operands rounded, products and sums in float32, results rounded, which is what processors do that have the arithmetic.
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
HALVES = (torch.bfloat16, torch.float16)
aten = torch.ops.aten
PRODUCTS = (aten.mm.default, aten.bmm.default, aten.bmm.out, aten.linear.default)


class Imitated(TorchDispatchMode):
    """Half-precision products on a processor that takes a hundred times as long for them."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function not in PRODUCTS or args[0].dtype not in HALVES:
            return function(*args, **kwargs)
        first, second = args[0].float(), args[1].float()
        product = first @ (second.mT if function is aten.linear.default else second)
        return kwargs["out"].copy_(product) if "out" in kwargs else product.to(args[0].dtype)


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


def differences(name: str, tokens: int, wide: bool) -> np.ndarray:
    """1 - cosine of the fast token to the exact one, of each of at least so many; wide: of float32 to float64 instead."""
    clips = [loaded(name, torch.float32), *([loaded(name, torch.float64)] if wide else [])]
    inverters = [mi.MaskInverter(clips[0]), mi.MaskInverter(clips[-1], precision="exact" if wide else "fast")]
    found = []
    for picture, masks in scenes(tokens) if name == "bundled" else noise(tokens, inverters[0].image_size[0]):
        encoded = [inverter.encode(picture) for inverter in inverters[: len(clips)]]
        ours, theirs = (one.invert(seen, masks).embeddings.double() for one, seen in zip(inverters, [*encoded, encoded[0]]))
        found += (1 - F.cosine_similarity(ours, theirs)).tolist()
    return np.array(found)


def loaded(name: str, dtype: torch.dtype) -> mi.Clip:
    torch.manual_seed(0)  # for random weights
    return mi.load_clip(name, device="cpu", dtype=dtype)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.helpers.fast_agreement", description=__doc__)
    parser.add_argument("--clip", nargs="+", default=["bundled"])
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--precision", choices=("bfloat16", "float16", "float64"), default="bfloat16")
    args = parser.parse_args()
    plan.low_precision = lambda device: getattr(torch, args.precision)
    imitate = args.precision == "float16" or not has_bfloat16()
    for name in args.clip:
        with Imitated() if imitate else torch.no_grad():
            found = differences(name, args.tokens, args.precision == "float64")
        print(
            f"{name}, {args.precision}: {len(found)} tokens, {(found > 1 - LIMIT).sum()} below {LIMIT}, "
            f"worst cosine {1 - found.max():.5f}; "
            f"1 - cosine: half below {np.median(found):.1e}, 99 of 100 below {np.quantile(found, 0.99):.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
