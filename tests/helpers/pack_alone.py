"""The pack in ComfyUI's own process, without its server: what it adds to the start, and what it keeps. Prints what was found.

A program of its own, because ComfyUI is set up when it is imported, and has modules called `nodes` and `tests`.
Usage: python -m tests.helpers.pack_alone COMFYUI_FOLDER
"""

import asyncio
import gc
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

PACK = Path(__file__).resolve().parents[2]
sys.path.insert(0, sys.argv[1])

from comfy.cli_args import args  # noqa: E402

args.cpu = True

import utils.extra_config  # noqa: E402, F401  # as its own start does: later, older ones would find another `utils`

import server  # noqa: E402, F401  # isort: skip
import torch  # noqa: E402
from comfy.clip_vision import ClipVisionModel  # noqa: E402
from comfy.model_management import InterruptProcessingException  # noqa: E402

import nodes as comfyui  # noqa: E402

CONFIG = dict(
    model_type="clip_vision_model", hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, patch_size=8,
    num_channels=3, image_size=48, projection_dim=40, hidden_act="quick_gelu",
)  # fmt: skip
LAST = "vision_model.encoder.layers.2"
PATCHED = (f"{LAST}.self_attn.out_proj.weight", f"{LAST}.mlp.fc1.weight", "visual_projection.weight")


def added_by(step) -> tuple[float, list[str]]:
    """Seconds that it takes, and the top-level modules that are there after it and were not before."""
    before = set(sys.modules)
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started
    return seconds, sorted({name.split(".")[0] for name in set(sys.modules) - before})


def describe_every_node() -> None:
    """What ComfyUI does for its page."""
    for name, node in comfyui.NODE_CLASS_MAPPINGS.items():
        if name.startswith("MaskInversion"):
            node.GET_NODE_INFO_V1()


def starting() -> dict:
    seconds, added = added_by(lambda: asyncio.run(comfyui.load_custom_node(str(PACK))))
    again, more = added_by(describe_every_node)
    return {
        "seconds": seconds,
        "seconds of the page": again,
        "added": sorted({*added, *more} - {package().split(".")[0]}),
        "nodes": sum(name.startswith("MaskInversion") for name in comfyui.NODE_CLASS_MAPPINGS),
    }


def package() -> str:
    """The name that ComfyUI gives the pack."""
    return str(PACK).replace(".", "_x_")


def part(name: str):
    return sys.modules[f"{package()}.{name}"]


def build() -> ClipVisionModel:
    model = ClipVisionModel(CONFIG)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.model.named_parameters():
        scale = 1 if "norm" in name and "weight" in name else 0
        parameter.data = scale + 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def changes(model: ClipVisionModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = model.model.state_dict()
    return {name: 0.1 * torch.randn(weights[name].shape, generator=generator) for name in PATCHED}


def execution(model: ClipVisionModel, picture: int = 0):
    """The token of a made-up picture, and who made it, as the node MaskInversion finds it."""
    managed, library = part("nodes.support.managed"), part("maskinversion")
    clip = managed.managed(model)
    inverter = library.MaskInverter(clip.ready(), iterations=3)
    image = torch.rand(60, 80, 3, generator=torch.Generator().manual_seed(picture))
    mask = torch.zeros(60, 80)
    mask[20:40, 30:60] = 1
    tokens = inverter.invert(managed.encode(clip, inverter, image), mask)
    return tokens.embeddings, tokens.fingerprint


def product(model: ClipVisionModel) -> torch.Tensor:
    """What is kept of the last block."""
    return part("maskinversion.compute.cached_product").products[model.model.vision_model.encoder.layers[-1]].kept[0]


def native() -> dict:
    """A CLIP_VISION from execution to execution."""
    found = {}
    model = build()
    first, fingerprint = execution(model)
    kept = product(model)
    execution(model, picture=1)
    found["product is kept"] = product(model) is kept

    changed = build()
    for name, change in changes(changed).items():
        changed.model.get_parameter(name).data += change
    expected, name = execution(changed)
    original = model.patcher
    model.patcher = original.clone()
    model.patcher.add_patches({name: ("diff", (change,)) for name, change in changes(model).items()})
    patched, patched_name = execution(model)
    found["patched"] = difference(patched, expected)
    found["by patching"] = difference(patched, first)
    found["fingerprints"] = [patched_name == name, patched_name != fingerprint]
    model.patcher = original
    back, back_name = execution(model)
    found["patched and back"] = difference(back, first)
    found["fingerprints"].append(back_name == fingerprint)

    model.load_sd(changed.get_sd())
    execution(model, picture=2)
    found["in place"] = difference(execution(model, picture=3)[0], execution(changed, picture=3)[0])

    watched = {"model": ref(model), "weights": ref(model.model), "product": ref(product(model))}
    del model, original, kept
    gc.collect()
    found["still there"] = [name for name, seen in watched.items() if seen() is not None]
    return found


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def loaders() -> dict:
    """How often a model is loaded: for two loaders at a time, and again when it is no longer in use."""
    in_use, times = part("nodes.support.managed").InUse(), []

    def load():
        times.append(1)
        return torch.nn.Identity()

    model, same = in_use.get(("a",), load), in_use.get(("a",), load)
    found = {"shared": model is same, "once": len(times)}
    in_use.get(("b",), load)
    del model, same
    in_use.get(("a",), load)
    return found | {"again": len(times)}


def progress() -> dict:
    """What comes of failures in what a node shows."""
    module = part("nodes.support.progress")
    shown = []

    def bar(show):
        made = module.ProgressBar("1")
        made.api = SimpleNamespace(execution=SimpleNamespace(set_progress=show))
        return made

    def failing(error: BaseException):
        def show(*given, **more):
            raise error

        return show

    def outcome(step) -> str:
        try:
            step()
        except BaseException as error:
            return type(error).__name__
        return "goes on"

    seen = bar(lambda done, total, **more: shown.append(more["preview_image"]))
    found = {"preview": outcome(lambda: seen.show(1, 2, failing(ValueError("no picture")), surely=True)), "shown": shown}
    found["bar"] = outcome(lambda: bar(failing(OSError("no page"))).show(1, 2, lambda: None))
    found["interrupt in the preview"] = outcome(lambda: seen.show(1, 2, failing(InterruptProcessingException()), surely=True))
    found["interrupt in the bar"] = outcome(lambda: bar(failing(InterruptProcessingException())).show(1, 2, lambda: None))
    return found


def main() -> None:
    report = {"starting": starting()}
    with torch.inference_mode():  # as ComfyUI runs nodes
        report |= {"native": native(), "loaders": loaders(), "progress": progress()}
    print(json.dumps(report))


main()
