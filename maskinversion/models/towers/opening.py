"""Whether a module computes what its class and its weights say: the one check before a module is taken apart or read.

Modules that are called may be anything, since they compute for themselves. What a tower computes in a module's place goes through
`opened`, and every weight through `held`. Adapters of PEFT are merged, in a copy and by PEFT itself; weights that accelerate or
ComfyUI keeps elsewhere are fetched from there; all else is refused. None of these libraries is imported.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError

USE = "use a ViT such as ViT-L-14"
OWN = ("comfy", "open_clip", "timm", "transformers")  # libraries whose hooks only watch their own models (transformers does)
PLAIN = (Tensor, nn.Parameter)
OFFLOADERS = ("accelerate.AlignDevicesHook", "accelerate.CpuOffload")  # they move weights and inputs, and change nothing
QUANTISERS = ("bitsandbytes", "quantized", "torchao", "quanto", "gptq", "awq", "hqq", "eetq", "aqlm")
ADAPTERS = "merge the adapters before (PEFT: model = model.merge_and_unload())"
UNQUANTISED = "load the model without quantisation, in float32, float16 or bfloat16"


class Unreadable(ModelError):
    """A module that cannot be read. why: what is with it. advice: the way out."""

    def __init__(self, module: object, why: str, advice: str, name: str = ""):
        self.module, self.why, self.advice = module, why, advice
        super().__init__(f"{name or f'a {type(module).__name__} of this model'} {why}: {advice}")


@contextmanager
def named(root: object) -> Iterator[None]:
    """Says of a module that cannot be read where in the model it is."""
    try:
        yield
    except Unreadable as error:
        names = {id(module): name for name, module in root.named_modules()} if isinstance(root, nn.Module) else {}
        name = names.get(id(error.module)) or f"the {type(error.module).__name__}"
        raise Unreadable(error.module, error.why, error.advice, f"{name} of this model") from error


def name_of(module: object) -> str:
    """The package that a module's class comes from, and the class: "timm.Mlp", wherever it is in that version of timm."""
    return f"{package_of(type(module))}.{type(module).__qualname__}"


def package_of(defined: object) -> str:
    return (getattr(defined, "__module__", None) or "").partition(".")[0]


def is_a(module: object, *classes: type | str) -> bool:
    """Whether a module is of one of these classes, and not of a subclass: types, or names as `name_of` gives them; "timm.*" is
    any class of timm."""
    return type(module) in classes or not {name_of(module), f"{package_of(type(module))}.*"}.isdisjoint(classes)


def opened(module: Any, *classes: type | str) -> Any:
    """A module whose parts may be computed with in its place: itself, or a copy of it with its adapters merged.

    Raises Unreadable for one of none of these classes, where any are given, and for one that computes something else than its
    class says.
    """
    if package_of(type(module)) == "peft":
        return opened(merged(module), *classes)
    if classes and not is_a(module, *classes):
        raise Unreadable(module, f"is of class {type(module).__name__}, which is not supported", way_out(module))
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()] if isinstance(module, nn.Module) else []
    foreign = [hook for hook in hooks if package_of(hook if hasattr(hook, "__qualname__") else type(hook)) not in OWN]
    if foreign:
        called = getattr(foreign[0], "__qualname__", type(foreign[0]).__name__)
        raise Unreadable(module, f"has a forward hook ({called}), which may change what it computes", "remove the hook before")
    if "forward" in getattr(module, "__dict__", ()) and not offloaders(module):
        raise Unreadable(module, "has a forward of its own instead of its class's", "load the model anew, without that change")
    return module


def held(module: Any, name: str) -> Any:
    """A weight of a module as it computes with it, detached; None where it has none. name: may be dotted.

    Raises Unreadable for one that is quantised, or not there.
    """
    tensor = attrgetter(name)(module)
    if tensor is None:
        return None
    if not isinstance(tensor, Tensor):
        raise Unreadable(module, f"keeps its {name} as a {type(tensor).__name__}", UNQUANTISED)
    if tensor.device.type == "meta":
        tensor = fetched(module, name)
    if type(tensor) not in PLAIN or not tensor.is_floating_point():
        kind = type(tensor).__name__ if type(tensor) not in PLAIN else str(tensor.dtype).removeprefix("torch.")
        raise Unreadable(module, f"keeps its {name} in another form ({kind})", UNQUANTISED)
    return patched(module, name, tensor.detach())


def merged(layer: Any) -> Any:
    """What a layer of PEFT wraps, with the adapters that are active in it, as PEFT itself merges them; the layer is left alone."""
    if not hasattr(layer, "get_base_layer") or not hasattr(layer, "merge"):
        raise Unreadable(layer, f"is of PEFT's class {type(layer).__name__}", ADAPTERS)
    if any("forward" in vars(part) for part in layer.modules()):
        raise Unreadable(layer, "has adapters, and is offloaded or changed besides", ADAPTERS)
    try:
        with torch.no_grad():
            twin = deepcopy(layer)
            if twin.disable_adapters and twin.merged:
                twin.unmerge()
            elif not (twin.disable_adapters or twin.merged):
                twin.merge()
    except Exception as error:  # of any kind of adapter and base
        raise Unreadable(layer, f"has adapters that PEFT cannot merge ({error!r})", ADAPTERS) from error
    base = twin.get_base_layer()
    if base.training != layer.training:
        base.train(layer.training)
    return base


def unwrapped(model: Any) -> Any:
    """The model inside of what torch.compile, PEFT and PyTorch's own parallel modules wrap around it."""
    while True:
        if is_a(model, "torch.OptimizedModule"):
            model = model._orig_mod
        elif is_a(model, "torch.DataParallel", "torch.DistributedDataParallel"):
            model = model.module
        elif package_of(type(model)) == "peft" and hasattr(model, "get_base_model"):
            model = model.get_base_model()
        else:
            return model


def offloaders(module: Any) -> list:
    """accelerate's hooks on a module, where all of them only move things; else none."""
    hook = getattr(module, "_hf_hook", None)
    hooks = [hook for hook in getattr(hook, "hooks", (hook,)) if hook is not None]
    return hooks if all(is_a(hook, *OFFLOADERS) for hook in hooks) else []


def check_there(module: nn.Module) -> None:
    """Raises Unreadable for weights that are not loaded, and that nobody fetches when they are needed."""
    keepers = [hook for hook in offloaders(module) if getattr(hook, "weights_map", None) is not None]
    for name, weight in [*module._parameters.items(), *module._buffers.items()]:
        if weight is not None and weight.device.type == "meta" and not keepers:
            raise missing(module, name)
    if not any(hook.place_submodules for hook in keepers):
        for part in module.children():
            check_there(part)


def fetched(module: Any, name: str) -> Tensor:
    """A weight that is not loaded, from where accelerate keeps it, to where it computes."""
    for hook in offloaders(module):
        if getattr(hook, "weights_map", None) is not None:
            with suppress(KeyError):
                return hook.weights_map[name].to(hook.execution_device)
    raise missing(module, name)


def missing(module: Any, name: str) -> Unreadable:
    return Unreadable(
        module,
        f"has no {name} in memory (it is on the device 'meta')",
        "load the model with its weights, or offload it with accelerate.cpu_offload or disk_offload, from where they are fetched, "
        "and without preload_module_classes",
    )


def patched(module: Any, name: str, weight: Tensor) -> Tensor:
    """With what ComfyUI adds when the layer computes: patches that had no room in memory."""
    late = getattr(module, f"{name}_lowvram_function", None)
    for function in [*([late] if late is not None else []), *getattr(module, f"{name}_function", ())]:
        weight = function(weight.to(torch.promote_types(weight.dtype, torch.float32), copy=True))
    return weight


def way_out(module: object) -> str:
    """What to do about a module of a class that is not known."""
    where = f"{type(module).__module__}.{type(module).__qualname__}".lower()
    if any(word in where for word in QUANTISERS):
        return UNQUANTISED
    if hasattr(module, "parametrizations"):
        return "remove its parametrisation before (torch.nn.utils.parametrize.remove_parametrizations)"
    return USE
