"""Reading modules of any vision transformer: weights in full precision, positions on another grid, derivatives."""

import torch
from open_clip.transformer import LayerScale
from timm.layers import GluMlp, Mlp, SwiGLU, resample_abs_pos_embed
from timm.layers import LayerScale as TimmLayerScale
from torch import Tensor, nn

from ...errors import ModelError
from ...explain.base import Norm
from ...explain.linearized import AddHalves, Linear, LinearizedLayer, NormSlope, Slope, value_and_slope

NOTHING = (nn.Identity, nn.Dropout)


def at_least_float32(tensor: Tensor) -> Tensor:
    """In float32 or better: half-precision weights take part in the map and the loss at full precision."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def read_norm(norm: nn.Module) -> Norm:
    """Raises ModelError for anything but a layer norm."""
    if not isinstance(norm, nn.LayerNorm):
        raise ModelError(f"this model's norm is {type(norm).__name__}, which is not supported: use a ViT such as ViT-L-14")
    weight = at_least_float32(torch.ones(norm.normalized_shape) if norm.weight is None else norm.weight)
    return Norm(weight, torch.zeros_like(weight) if norm.bias is None else at_least_float32(norm.bias), norm.eps)


def layer_scale(module: nn.Module) -> Tensor | None:
    return at_least_float32(module.gamma) if isinstance(module, (LayerScale, TimmLayerScale)) else None


def scaled_rows(scale: Tensor | None, weight: Tensor) -> Tensor:
    """A LayerScale [d] multiplied into the rows of the linear layer before it."""
    if scale is None:
        return weight
    return scale[:, None] * weight if weight.ndim == 2 else scale * weight


def positions(embedding: Tensor, grid: tuple[int, int], native: tuple[int, int], prefix: int) -> Tensor:
    """The position embedding [1, prefix + P, d] for another grid of patches, on a copy, as the published package does it."""
    if grid == tuple(native):
        return embedding
    return resample_abs_pos_embed(
        embedding, new_size=list(grid), old_size=list(native), num_prefix_tokens=prefix, interpolation="bicubic", antialias=True
    )


def linearise(module: nn.Module, x: Tensor) -> tuple[list[LinearizedLayer], Tensor]:
    """A token-wise module at x [N, width]: its derivative as a chain of linearised layers, and its output, at x's precision.

    Raises ModelError for a module that it does not know.
    """
    if isinstance(module, NOTHING):
        return [], x
    if isinstance(module, nn.Linear):
        weight = at_least_float32(module.weight)
        return [Linear(weight)], nn.functional.linear(x, weight, None if module.bias is None else at_least_float32(module.bias))
    if isinstance(module, nn.LayerNorm):
        norm = read_norm(module)
        normal, inverse = norm.normalised(x)
        return [NormSlope(norm.weight, normal, inverse)], normal * norm.weight + norm.bias
    if (gamma := layer_scale(module)) is not None:
        return [Slope(gamma)], x * gamma
    if isinstance(module, nn.Sequential):
        return linearise_all(list(module), x)
    if isinstance(module, Mlp):
        return linearise_all([module.fc1, module.act, module.norm, module.fc2], x)
    if isinstance(module, SwiGLU):
        gate, value = (linearise(layer, x) for layer in (module.fc1_g, module.fc1_x))
        weight = torch.cat([gate[0][0].weight, value[0][0].weight])
        chain, product = linearise_gate(module.act, gate[1], value[1])
        rest, out = linearise_all([module.norm, module.fc2], product)
        return [Linear(weight), *chain, *rest], out
    if isinstance(module, GluMlp) and not module.gate_last:
        first, both = linearise(module.fc1, x)
        chain, product = linearise_gate(module.act, *both.chunk(2, -1))
        rest, out = linearise_all([module.norm, module.fc2], product)
        return [*first, *chain, *rest], out
    if not list(module.parameters()):  # an activation
        value, slope = value_and_slope(module, x)
        return [Slope(slope)], value
    raise ModelError(f"this model has a {type(module).__name__} in its blocks, which is not supported: use a ViT such as ViT-L-14")


def linearise_all(modules: list[nn.Module], x: Tensor) -> tuple[list[LinearizedLayer], Tensor]:
    chain: list[LinearizedLayer] = []
    for module in modules:
        more, x = linearise(module, x)
        chain += more
    return chain, x


def linearise_gate(activation: nn.Module, gate: Tensor, value: Tensor) -> tuple[list[LinearizedLayer], Tensor]:
    """act(gate) * value, of the concatenation of gate and value."""
    active, slope = value_and_slope(activation, gate)
    return [Slope(torch.cat([slope * value, active], -1)), AddHalves()], active * value
