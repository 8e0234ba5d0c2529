"""Reading modules of any vision transformer: weights in full precision, positions on another grid, derivatives.

Modules are known by their very class, and what is not known is refused, see `opening`. The libraries that they come from are not
imported for that.

Their modules are typed `Any`: torch types whatever a module has as `Tensor | Module`, and here the very class is checked.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...explain.base import Norm
from ...explain.linearized import AddHalves, Linear, LinearizedLayer, NormSlope, Slope, value_and_slope
from .opening import held, is_a, opened

NOTHING = (nn.Identity, nn.Dropout)
LINEARS = (nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear)  # the second is what nn.MultiheadAttention has
NORMS = (nn.LayerNorm, "open_clip.LayerNorm", "open_clip.LayerNormFp32", "timm.LayerNorm", "timm.LayerNormFp32")
LAYER_SCALES = ("open_clip.LayerScale", "timm.LayerScale")
ACTIVATIONS = (  # all of them work element by element
    *(nn.GELU, nn.SiLU, nn.ReLU, nn.ReLU6, nn.Mish, nn.Hardswish, nn.Tanh, nn.Sigmoid),
    *("timm.GELU", "timm.GELUTanh", "timm.QuickGELU", "timm.Swish", "timm.Mish", "timm.HardSwish", "timm.Tanh", "timm.Sigmoid"),
    *("open_clip.QuickGELU", "transformers.QuickGELUActivation", "transformers.SiLUActivation", "transformers.MishActivation"),
    *("transformers.GELUActivation", "transformers.NewGELUActivation", "transformers.FastGELUActivation"),
    *("transformers.GELUTanh", "transformers.PytorchGELUTanh"),
)


def at_least_float32(tensor: Tensor) -> Tensor:
    """In float32 or better: half-precision weights take part in the map and the loss at full precision."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def full(module: Any, name: str) -> Any:
    """A weight of a module at full precision, see `held`; None where it has none."""
    weight = held(module, name)
    return None if weight is None else at_least_float32(weight)


def read_linear(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Weight [out, in] and bias [out]. Raises ModelError for anything but a linear layer."""
    layer = opened(layer, *LINEARS)
    return full(layer, "weight"), full(layer, "bias")


def read_activation(module: Any) -> Any:
    """The module itself. Raises ModelError for one that is not known to work element by element."""
    return opened(module, *ACTIVATIONS)


def read_norm(norm: Any) -> Norm:
    """Raises ModelError for anything but a layer norm."""
    norm = opened(norm, *NORMS)
    weight, bias = full(norm, "weight"), full(norm, "bias")
    weight = torch.ones(norm.normalized_shape) if weight is None else weight
    return Norm(weight, torch.zeros_like(weight) if bias is None else bias, norm.eps)


def layer_scale(module: Any) -> Tensor | None:
    """Its factors [d]; None for the identity, which stands where a model has none. Raises ModelError for anything else."""
    if is_a(module, nn.Identity):
        opened(module)
        return None
    return full(opened(module, *LAYER_SCALES), "gamma")


def scaled_rows(scale: Tensor | None, weight: Tensor) -> Tensor:
    """A LayerScale [d] multiplied into the rows of the linear layer before it."""
    if scale is None:
        return weight
    return scale[:, None] * weight if weight.ndim == 2 else scale * weight


def positions(embedding: Tensor, grid: tuple[int, int], native: tuple[int, int], prefix: int) -> Tensor:
    """The position embedding [1, prefix + P, d] for another grid of patches, on a copy, as the published package does it."""
    if grid == tuple(native):
        return embedding
    from timm.layers.pos_embed import resample_abs_pos_embed

    return resample_abs_pos_embed(
        embedding, new_size=list(grid), old_size=list(native), num_prefix_tokens=prefix, interpolation="bicubic", antialias=True
    )


def linearise(module: Any, x: Tensor) -> tuple[Sequence[LinearizedLayer], Tensor]:
    """A token-wise module at x [N, width]: its derivative as a chain of linearised layers, and its output, at x's precision.

    Raises ModelError for a module that it does not know.
    """
    module = opened(module)
    if is_a(module, *NOTHING):
        return [], x
    if is_a(module, *LINEARS):
        weight, bias = read_linear(module)
        return [Linear(weight)], nn.functional.linear(x, weight, bias)
    if is_a(module, *NORMS):
        norm = read_norm(module)
        normal, inverse = norm.normalised(x)
        return [NormSlope(norm.weight, normal, inverse)], normal * norm.weight + norm.bias
    if is_a(module, *LAYER_SCALES):
        gamma = full(module, "gamma")
        return [Slope(gamma)], x * gamma
    if is_a(module, nn.Sequential):
        return linearise_all(module, x)
    if is_a(module, "timm.Mlp"):
        return linearise_all([module.fc1, module.act, module.norm, module.fc2], x)
    if is_a(module, "timm.SwiGLU"):
        layers = (module.fc1_g, module.fc1_x)
        weight = torch.cat([read_linear(layer)[0] for layer in layers])
        gate, value = (linearise(layer, x)[1] for layer in layers)
        chain, product = linearise_gate(module.act, gate, value)
        rest, out = linearise_all([module.norm, module.fc2], product)
        return [Linear(weight), *chain, *rest], out
    if is_a(module, "timm.GluMlp") and not module.gate_last:
        first, both = linearise(module.fc1, x)
        chain, product = linearise_gate(module.act, *both.chunk(2, -1))
        rest, out = linearise_all([module.norm, module.fc2], product)
        return [*first, *chain, *rest], out
    value, slope = value_and_slope(read_activation(module), x)
    return [Slope(slope)], value


def linearise_all(modules: Iterable[Any], x: Tensor) -> tuple[Sequence[LinearizedLayer], Tensor]:
    chain: list[LinearizedLayer] = []
    for module in modules:
        more, x = linearise(module, x)
        chain += more
    return chain, x


def linearise_gate(activation: Any, gate: Tensor, value: Tensor) -> tuple[Sequence[LinearizedLayer], Tensor]:
    """act(gate) * value, of the concatenation of gate and value."""
    active, slope = value_and_slope(read_activation(activation), gate)
    return [Slope(torch.cat([slope * value, active], -1)), AddHalves()], active * value
