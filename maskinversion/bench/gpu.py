"""`python -m maskinversion.bench.gpu`: whether a GPU gives what the CPU gives, waits for nothing in a step, and how fast it is.

Random weights, so it needs no network. `--device cpu --quick` tries the script itself where there is no GPU.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ..errors import InputError, MaskInversionError
from ..files import written_whole
from ..inverter import MaskInverter
from ..models.loading import best_device, load_clip, usable_device
from .run import Settings, sweep, tables
from .worker import inputs

SMALL = dict(image_size=48, patch_size=8, width=64, layers=3, head_width=32)
HIDDEN = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=48, patch_size=8)
FAMILIES: dict[str, dict[str, Any]] = {  # of open_clip's vision_cfg, or a class of transformers and its configuration
    "plain ViT": SMALL,
    "ViT with norms inside its blocks": SMALL | dict(block_type="custom", qk_norm=True, scale_attn_inner=True, scale_fc=True),
    "CoCa": SMALL | dict(attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=4),
    "SigLIP": dict(timm_model_name="vit_base_patch16_siglip_224", timm_pool="map", timm_proj="none", image_size=224),
    "transformers' CLIP": HIDDEN | dict(kind="CLIPVisionModelWithProjection", projection_dim=64),
    "transformers' SigLIP": HIDDEN | dict(kind="SiglipVisionModel"),
    "EVA-02": dict(timm_model_name="eva02_base_patch16_clip_224", timm_pool="token", timm_proj=None, image_size=224),
}
# The others have a torch.nn.MultiheadAttention: it reads weights of parts that it never calls, and accelerate brings them at calls.
OFFLOADED = ("SigLIP", "EVA-02", "transformers' CLIP")
QUICK_FAMILIES = ("plain ViT", "ViT with norms inside its blocks", "CoCa")
MODELS = ("ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "ViT-B-16-SigLIP")
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Way:
    """One way to compute: the precision of weights and products, and how far a token may turn, as 1 minus its cosine to the CPU's
    in float64 with weights rounded alike."""

    name: str
    dtype: torch.dtype
    limit: float
    precision: str = "exact"
    offloaded: bool = False


WAYS = (
    Way("float64", torch.float64, 1e-9),
    Way("float32", torch.float32, 1e-6),
    Way("fast", torch.float32, 1e-2, "fast"),
    Way("float16 weights", torch.float16, 2e-2),
    Way("bfloat16 weights", torch.bfloat16, 2e-2),
    Way("offloaded", torch.float32, 1e-6, offloaded=True),
)


class DiffersError(MaskInversionError):
    """A device gives another result than the CPU, or waits in a step."""


def small_model(family: str) -> nn.Module:
    """A model of random weights, in float64, with every weight away from its initial value."""
    vision = dict(FAMILIES[family])
    torch.manual_seed(0)
    if "kind" in vision:
        import transformers

        kind = getattr(transformers, vision.pop("kind"))
        model = kind(kind.config_class(**vision))
    else:
        import open_clip

        text: dict[str, Any] = dict(context_length=8, width=32, heads=2, layers=1)
        model = open_clip.CLIP(64 if "width" in vision else 768, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.double().eval().requires_grad_(False)


def tokens_of(model: nn.Module, precision: str, image: Tensor, masks: Tensor) -> Tensor:
    inverter = MaskInverter(load_clip(model), precision=precision, iterations=5)
    return inverter.invert(inverter.encode(image), masks).embeddings.double().cpu()


def compare(model: nn.Module, way: Way, device: torch.device) -> Tensor:
    """1 minus the cosine [M] of tokens on the device to the CPU's in float64."""
    image, masks = inputs(MaskInverter(load_clip(model)).image_size[0], 4)
    rounded = deepcopy(model).to(way.dtype)
    expected = tokens_of(deepcopy(rounded).double(), "exact", image, masks)
    if way.offloaded:
        from accelerate import cpu_offload

        cpu_offload(rounded, execution_device=device)
    else:
        rounded = rounded.to(device)
    return 1 - F.cosine_similarity(tokens_of(rounded, way.precision, image, masks), expected)


def agreement(device: torch.device, quick: bool) -> Iterator[tuple[str, float, float]]:
    """What was compared, the largest 1 minus cosine, and how large it may be."""
    for family in QUICK_FAMILIES if quick else FAMILIES:
        if "kind" in FAMILIES[family] and find_spec("transformers") is None:
            continue
        model = small_model(family)
        for way in WAYS:
            if device.type == "mps" and way.dtype == torch.float64:
                continue
            if way.offloaded and (find_spec("accelerate") is None or family not in OFFLOADED):
                continue
            yield f"{family}, {way.name}", float(compare(model, way, device).max()), way.limit


def waits(device: torch.device, steps: int) -> int:
    """How many times the whole inversion of three masks waits for the device, in so many steps, by PyTorch's profiler."""
    image, masks = inputs(48, 3)
    inverter = MaskInverter(load_clip(small_model("plain ViT").float().to(device)), iterations=steps, alpha=1.0)
    encoded = inverter.encode(image)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as found:
        inverter.invert(encoded, masks)
    return sum(event.count for event in found.key_averages() if event.key in WAITS)


def timings(args: argparse.Namespace, device: torch.device, say: Callable[[str], None]) -> list[dict]:
    methods = ("exact", "fast", "reference") if args.reference else ("exact", "fast")
    many: dict[str, Any] = dict(model=MODELS, size=(224, 448), masks=(1, 10, 100), methods=methods, slow_masks=100)
    few: dict[str, Any] = dict(model=("ViT-S-32",), size=(64,), masks=(1,), methods=("exact",), iterations=(1,), repeats=1)
    chosen: dict[str, Any] = few if args.quick else many | ({"model": tuple(args.model)} if args.model else {})
    rows: list[dict] = []
    sweep(Settings(**chosen, reference=args.reference, device=str(device)), rows, lambda _: None)
    if rows:
        say(tables(rows))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Print what was found, write gpu.json; returns the exit status, 1 where something differs or waits."""
    parser = argparse.ArgumentParser(prog="python -m maskinversion.bench.gpu", description=__doc__)
    parser.add_argument("--device", help="cuda, mps, xpu or cpu (default: the best one here)")
    parser.add_argument("--quick", action="store_true", help="small models and one timing, to try the script")
    parser.add_argument("--model", nargs="+", help=f"to time (default: {' '.join(MODELS)})")
    parser.add_argument("--reference", type=Path, help="folder of the published package; tests/reference/compare.py installs it")
    parser.add_argument("--out", type=Path, default=Path("maskinversion-gpu"), help="folder for gpu.json")
    args = parser.parse_args(argv)
    try:
        run(args)
    except MaskInversionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace) -> None:
    """Raises DiffersError where something differs or waits, after all was done; InputError without a GPU, unless one is not asked
    for."""
    device = usable_device(args.device)
    if args.device is None and best_device().type == "cpu":
        raise InputError("there is no GPU here that PyTorch can use: `--device cpu --quick` tries the script without one")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"{name}, torch {torch.__version__}")
    wrong, compared = [], {}
    for what, turned, limit in agreement(device, args.quick):
        compared[what] = turned
        words = f"{what}: tokens turn by up to {turned:.1e} (1 - cosine; {limit:.0e} is allowed)"
        print(words, flush=True)
        wrong += [] if turned <= limit else [words]  # also where it is no number
    counted = [waits(device, steps) for steps in (5, 15)]
    words = f"waits for the device in 5 and in 15 steps: {counted[0]} and {counted[1]}"
    print(words, flush=True)
    wrong += [words] if counted[0] != counted[1] else []
    rows = timings(args, device, print)
    found = {"device": name, "turned": compared, "waits": counted, "timings": rows}
    with written_whole(args.out / "gpu.json") as path:
        path.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if wrong:
        raise DiffersError("not as on the CPU: " + "; ".join(wrong))


if __name__ == "__main__":
    sys.exit(main())
