"""The explainability map as a rectified linear function of the token, and its transpose, both in closed form.

LeGrad (arXiv 2404.03214) explains a score by its gradient with respect to attention. MaskInversion's gradient
decomposition (arXiv 2407.20034, section 3.3) uses that this gradient is linear in the token, so that what does not depend
on the token is computed once per image. Here the linear function is kept in factored form: the score depends on the
attention A_h only through W_O [A_h V_h], hence

    dscore/dA_h[i, j] = U_h[i] . V_h[j],      U_h[i] = (W_O^T dscore/dy_i)_h,      y = the tokens after the attention

and dscore/dy_i is the gradient through the MLP, the mean over the tokens, the last norm, the projection and the
normalisation, all of which have short derivatives. Nothing of size tokens x tokens x embedding is ever formed, and no
autograd is used, so all of it works under `torch.inference_mode`.

Shapes: M masks, N tokens, P = N - prefix patches, d width, m width of the MLP, h heads, D embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """A layer norm: weight [d], bias [d] and eps."""

    weight: Tensor
    bias: Tensor
    eps: float

    def normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of x [..., d]: the normalised input before weight and bias [..., d], and 1 / standard deviation [..., 1]."""
        centred = x - x.mean(-1, keepdim=True)
        inverse = (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return centred * inverse, inverse


@dataclass(frozen=True)
class Block:
    """What the map needs of one transformer block, y = x + attention(x), z = y + W2 act(W1 LN(y) + b1) + b2.

    `values` [N, h, d_h] are the rows that the attention mixes, `after_attention` [N, d] is y, `output` [d, h * d_h] is W_O.
    `norm`, `expand` (W1 [m, d], b1 [m]), `activation`, `contract` (W2 [d, m], b2 [d]) are the MLP. A LayerScale is already
    multiplied into `output` and `contract`.
    """

    values: Tensor
    after_attention: Tensor
    output: Tensor
    norm: Norm
    expand: tuple[Tensor, Tensor]
    activation: Callable[[Tensor], Tensor]
    contract: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Head:
    """From the mean token to the joint space: f = LN(p) @ projection, with projection [d, D]."""

    norm: Norm
    projection: Tensor


class BlockMap:
    """The map of one block for a fixed image: `relevance` is R(e), `transpose` pulls a gradient of R back to e."""

    def __init__(self, block: Block, head: Head, prefix: int):
        y = block.after_attention
        tokens, width = y.shape
        self.prefix, self.tokens = prefix, tokens
        self.heads, self.head_width = block.values.shape[1:]
        self.values = block.values.transpose(0, 1).contiguous()  # [h, N, d_h]
        self.output = block.output

        normal, self.inverse = block.norm.normalised(y)
        weight, bias = block.expand
        hidden = F.linear(normal * block.norm.weight + block.norm.bias, weight, bias)
        active, self.slope = value_and_slope(block.activation, hidden)  # [N, m]
        self.contract = block.contract[0]
        pooled = (y + F.linear(active, *block.contract)).mean(0)

        # W1^T, the norm's weight and W_O fold into one matrix; the norm's two corrections have rank one each.
        scaled = weight * block.norm.weight  # [m, d]
        self.folded = scaled @ block.output  # [m, h * d_h]
        self.mean_weight = self.slope * scaled.mean(1)  # [N, m]: its product with W2^T g is mean(c_i)
        self.corr_weight = self.slope * (normal @ scaled.T) / width  # [N, m]: ... mean(c_i * normal_i)
        self.mean_row = block.output.sum(0)  # [h * d_h]
        self.corr_row = normal @ block.output  # [N, h * d_h]
        self.seed = pooled_gradient(pooled, head) / tokens  # [d, D]

    def relevance(self, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Map of unit tokens [M, D]: relevance [M, P], and the rectified gradient [M, h, N, P] that `transpose` takes.

        relevance[j] = mean over heads and query rows i of max(dscore/dA[i, j], 0)   (LeGrad, equation 8)
        """
        g = direction @ self.seed.T  # [M, d]
        hidden = g @ self.contract  # [M, m]
        u = (self.slope * hidden[:, None]) @ self.folded
        u -= (hidden @ self.mean_weight.T)[..., None] * self.mean_row
        u -= (hidden @ self.corr_weight.T)[..., None] * self.corr_row
        u *= self.inverse
        u += (g @ self.output)[:, None]
        u = u.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)
        rectified = (u @ self.values[:, self.prefix :].mT).relu_()  # [M, h, N, P]
        return rectified.sum((1, 2)) / (self.heads * self.tokens), rectified

    def transpose(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        """Gradient [M, D] with respect to the unit tokens, of dloss/drelevance [M, P]. Overwrites `rectified`."""
        active = rectified.sign_()
        weighted = gradient[:, None, :, None] * self.values[:, self.prefix :] / (self.heads * self.tokens)
        du = (active @ weighted).transpose(1, 2).flatten(2)  # [M, N, h * d_h]
        dg = du.sum(1) @ self.output.T
        du = du * self.inverse
        dhidden = ((du @ self.folded.T) * self.slope).sum(1)
        dhidden -= (du @ self.mean_row) @ self.mean_weight
        dhidden -= (du * self.corr_row).sum(-1) @ self.corr_weight
        dg += dhidden @ self.contract.T
        return dg @ self.seed


def pooled_gradient(pooled: Tensor, head: Head) -> Tensor:
    """d/dp of cos(e, LN(p) @ projection), linear in the unit token e: a matrix [d, D], at the mean token p [d]."""
    normal, inverse = head.norm.normalised(pooled)
    feature = (normal * head.norm.weight + head.norm.bias) @ head.projection
    length = feature.norm()
    unit = feature / length
    through = head.norm.weight[:, None] * (head.projection - (head.projection @ unit)[:, None] * unit) / length
    return inverse * (through - through.mean(0) - normal[:, None] * (normal @ through) / len(normal))


def value_and_slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An element-wise function and its derivative, by forward-mode differentiation: any activation will do."""
    return torch.func.jvp(activation, (x,), (torch.ones_like(x),))
