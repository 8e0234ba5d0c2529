"""The explainability map as a rectified linear function of the token, and its transpose, both in closed form.

LeGrad (arXiv 2404.03214) explains a score by its gradient with respect to attention. MaskInversion's gradient
decomposition (arXiv 2407.20034, section 3.3) uses that this gradient is linear in the token, so that what does not depend
on the token is computed once per image. Here the linear function is kept in factored form: the score depends on the
attention A_h only through W_O [A_h V_h], hence

    dscore/dA_h[i, j] = U_h[i] . V_h[j],      U_h[i] = (W_O^T dscore/dy_i)_h,      y = the tokens after the attention

and dscore/dy_i is the gradient through the MLP, the mean over the tokens, the last norm, the projection and the
normalisation, all of which have short derivatives. Nothing of size tokens x tokens x embedding is ever formed, and no
autograd goes through the model, so all of it works under `torch.inference_mode`.

Shapes: M masks, N tokens, P = N - prefix patches, d width, m width of the MLP, h heads, D embedding.

`BlockMap` is the usual block, with its products folded; `ChainMap` is any other block that treats every token by itself
after the attention; `PoolerMap` is for models that pool with attention.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .pieces import Linear, Piece, pull_through, push_through
from .products import KeptProduct, linear
from .working_set import WorkingSet, sliced

TABLE_BYTES = 320 * 2**20  # what a TabulatedMap may take
# Multiply-adds that take as long as reading one number from memory: about 20 was measured on a server's CPU (products of 1, 13,
# 40 and 100 rows with a table of 310 MB), and a GPU's ratio of arithmetic to bandwidth is of the same order.
READ_COST = 20


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
    multiplied into `output` and `contract`. `folded` keeps a product of this block's weights between images.
    """

    values: Tensor
    after_attention: Tensor
    output: Tensor
    norm: Norm
    expand: tuple[Tensor, Tensor]
    activation: Callable[[Tensor], Tensor]
    contract: tuple[Tensor, Tensor]
    folded: KeptProduct


@dataclass(frozen=True)
class Head:
    """From the mean token to the joint space: f = LN(p) @ projection + bias, with projection [d, D]."""

    norm: Norm
    projection: Tensor
    bias: Tensor | None = None


class LayerMap(ABC):
    """The map of one layer for a fixed image, a rectified linear function of the unit token e.

    In two stages, with a transpose each: `queries` and `gather` do the large products, for many masks at once; `relevance` and
    `transpose` the many small ones, for as many masks as the cache holds.

    wide, narrow: about the bytes that one mask takes in the first stage and in the second. forming: multiply-adds that it took to
    make this map of an image's tokens, beyond the encoder's own. step_products: multiply-adds of one step of one mask.
    """

    wide: int
    narrow: int
    forming: int
    step_products: int
    memory: WorkingSet

    def within(self, memory: WorkingSet) -> "LayerMap":
        """The same map, working in this memory."""
        form = copy(self)
        form.memory = memory
        return form

    def lowered(self, dtype: torch.dtype) -> "LayerMap":
        """The same map with its products at this precision, where that pays. Sums, the map and the loss keep theirs."""
        return self

    def cheapest(self, masks: int, iterations: int) -> "LayerMap":
        """The form of this map that takes the fewest operations for so many masks and steps."""
        return self

    @abstractmethod
    def room(self, masks: int) -> Tensor:
        """Memory for the queries of so many masks [M, ...]."""

    @abstractmethod
    def queries(self, direction: Tensor) -> Tensor:
        """U(e) [M, ...] of unit tokens [M, D]: what meets the image, linear in the token."""

    @abstractmethod
    def relevance(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Relevance [M, P], and the rectified gradient that `transpose` takes."""

    @abstractmethod
    def transpose(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        """Gradient with respect to the queries, of dloss/drelevance [M, P]. Overwrites `rectified`."""

    @abstractmethod
    def gather(self, du: Tensor) -> Tensor:
        """Gradient [M, D] with respect to the unit tokens, of that with respect to the queries."""


class SelfAttentionMap(LayerMap):
    """relevance[j] = mean over heads and query rows i of max(dscore/dA[i, j], 0)   (LeGrad, equation 8)

    values [N, h, d_h]: the rows that the attention mixes. Queries are [M, h, N, d_h].
    """

    def __init__(self, values: Tensor, prefix: int):
        self.prefix, self.tokens = prefix, len(values)
        self.heads, self.head_width = values.shape[1:]
        self.values = values.transpose(0, 1).contiguous()  # [h, N, d_h]
        self.narrow = self.heads * self.tokens**2 * values.element_size()
        self.memory = WorkingSet.of(values.device)

    @property
    def value_products(self) -> int:
        """Multiply-adds of U(e) with the values, for one mask."""
        return self.heads * self.tokens * (self.tokens - self.prefix) * self.head_width

    def relevance(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        by_head = queries.transpose(0, 1).flatten(1, 2)  # one product a head for all masks
        scores = self.memory.array("scores", *by_head.shape[:2], self.tokens - self.prefix, dtype=by_head.dtype, of=self)
        torch.bmm(by_head, self.values[:, self.prefix :].mT, out=scores)
        rectified = scores.relu_().unflatten(1, (len(queries), -1))  # [h, M, N, P]
        return rectified.sum(2).sum(0) / (self.heads * self.tokens), rectified

    def transpose(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        by_score = rectified.sign_().mul_(gradient[:, None] / (self.heads * self.tokens))
        du = by_score.flatten(1, 2) @ self.values[:, self.prefix :]
        return du.unflatten(1, rectified.shape[1:3]).transpose(0, 1)


class DirectMap(SelfAttentionMap):
    """U(e) computed through the block at every step.

    seed [d, D]: dscore/dz_i of any token, linear in e. unit [D]: the image's feature, at which the score is largest, so that
    seed @ unit is zero. precision: of the large products. pull_products: multiply-adds of one `pull` or `push` of one mask.
    """

    precision: torch.dtype
    pull_products: int

    def __init__(self, values: Tensor, seed: Tensor, unit: Tensor, prefix: int):
        super().__init__(values, prefix)
        self.seed, self.unit = seed, unit
        self.precision = seed.dtype

    @property
    def step_products(self) -> int:
        return 2 * (self.pull_products + self.value_products)

    def cheapest(self, masks: int, iterations: int) -> LayerMap:
        return TabulatedMap(self) if TabulatedMap.worthwhile(self, masks, iterations) else self

    @abstractmethod
    def pull(self, g: Tensor) -> Tensor:
        """dscore/d(concatenated heads) [M, N, h * d_h], of dscore/dz_i = g [M, d], the same for every token."""

    @abstractmethod
    def push(self, du: Tensor) -> Tensor:
        """The transpose of `pull`: [M, N, h * d_h] to [M, d]."""

    def room(self, masks: int) -> Tensor:
        shape = (masks, self.tokens, self.heads * self.head_width)
        return self.by_head(self.memory.array("queries", *shape, dtype=self.seed.dtype, of=self))

    def queries(self, direction: Tensor) -> Tensor:
        return self.by_head(self.pull(linear(direction, self.seed)))

    def by_head(self, u: Tensor) -> Tensor:
        """[M, N, h * d_h] as [M, h, N, d_h]."""
        return u.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)

    def gather(self, du: Tensor) -> Tensor:
        return self.push(du.transpose(1, 2).flatten(2)) @ self.seed


class BlockMap(DirectMap):
    """The map of a block whose MLP is two linear layers with an activation between them.

    leaving [N, d]: the tokens that leave the block.
    """

    def __init__(self, block: Block, head: Head, prefix: int):
        y = block.after_attention
        tokens, width = y.shape
        self.output = block.output

        normal, inverse = block.norm.normalised(y)
        weight, bias = block.expand
        varying = (normal * block.norm.weight) @ weight.T  # [N, m]
        active, slope = value_and_slope(block.activation, varying + F.linear(block.norm.bias, weight, bias))
        self.contract = block.contract[0]
        self.leaving = y + F.linear(active, *block.contract)

        # W1^T, the norm's weight, its subtraction of the mean and W_O fold into one matrix; what is left of the norm has rank one.
        centred = block.output - block.output.mean(0)
        self.folded = block.folded.of((centred * block.norm.weight[:, None]).T, weight.T)  # [h * d_h, m]
        self.folded_back = block.folded.transposed  # [m, h * d_h]
        self.slope = slope * inverse  # [N, m]
        self.factor = self.slope  # at the precision of the large products
        self.corr_weight = varying.mul_(self.slope).div_(width)  # [N, m]: its product with W2^T g is mean(c_i * normal_i)
        self.corr_row = normal @ block.output  # [N, h * d_h]
        super().__init__(block.values, *pooled_gradient(self.leaving.mean(0), head, tokens), prefix)

    @property
    def wide(self) -> int:
        return self.corr_row.numel() * self.corr_row.element_size()

    @property
    def forming(self) -> int:
        return self.corr_row.numel() * len(self.output)

    def lowered(self, dtype: torch.dtype) -> "BlockMap":
        form = copy(self)
        form.precision, form.factor = dtype, self.slope.to(dtype)
        form.folded, form.folded_back = self.folded.to(dtype), self.folded_back.to(dtype)
        return form

    @property
    def pull_products(self) -> int:
        return self.slope.numel() * len(self.folded)

    def parts(self, masks: int) -> list[slice]:
        """As many masks at a time as the cache holds the hidden layer of."""
        return sliced(slice(0, masks), self.memory.narrow // (self.slope.numel() * self.precision.itemsize))

    def pull(self, g: Tensor) -> Tensor:
        hidden = g @ self.contract  # [M, m]
        lowered = hidden.to(self.precision)
        u = self.room(len(g)).transpose(1, 2).flatten(2)
        for part in self.parts(len(g)):
            of_all = self.memory.array("hidden", len(lowered[part]), *self.slope.shape, dtype=self.precision)
            u[part] = linear(torch.mul(self.factor, lowered[part, None], out=of_all), self.folded)
        u.addcmul_(linear(hidden, self.corr_weight)[..., None], self.corr_row, value=-1)
        return u.add_((g @ self.output)[:, None])

    def push(self, du: Tensor) -> Tensor:
        dhidden = du.new_empty(len(du), len(self.folded_back))
        corrected = du.new_empty(len(du), self.tokens)
        for part in self.parts(len(du)):
            dhidden[part] = linear(du[part].to(self.precision), self.folded_back).mul_(self.factor).sum(1)
            product = self.memory.array("corrected", *du[part].shape, dtype=du.dtype)
            corrected[part] = torch.mul(du[part], self.corr_row, out=product).sum(-1)
        dhidden -= corrected @ self.corr_weight
        return linear(du.sum(1), self.output) + linear(dhidden, self.contract)


class ChainMap(DirectMap):
    """The map of any block that treats every token by itself after the attention, as a chain of linearised `pieces`.

    pieces: from the concatenated heads to the tokens that leave the block. leaving: those tokens [N, d].
    """

    def __init__(self, values: Tensor, pieces: list[Piece], leaving: Tensor, head: Head, prefix: int):
        super().__init__(values, *pooled_gradient(leaving.mean(0), head, len(leaving)), prefix)
        self.pieces = pieces

    @property
    def wide(self) -> int:
        widest = max(self.seed.shape[0], self.heads * self.head_width) * 4
        return 4 * self.tokens * widest * self.values.element_size()

    @property
    def forming(self) -> int:
        return self.pull_products

    def lowered(self, dtype: torch.dtype) -> "ChainMap":
        form = copy(self)
        form.precision = dtype
        form.pieces = [piece.lowered(dtype) for piece in self.pieces]
        return form

    @property
    def pull_products(self) -> int:
        return self.tokens * sum(piece.products for piece in self.pieces)

    def pull(self, g: Tensor) -> Tensor:
        return pull_through(self.pieces, g[:, None].expand(-1, self.tokens, -1))

    def push(self, du: Tensor) -> Tensor:
        return push_through(self.pieces, du).sum(1)


class TabulatedMap(SelfAttentionMap):
    """The map of any block, with U(e) of every token as one matrix, formed once per image: cheaper for many masks.

    U(e) is linear in e, so its matrix, for every head [D, N * d_h], is U of the D axes. `worthwhile` says when it pays.
    """

    def __init__(self, source: DirectMap):
        super().__init__(source.values.transpose(0, 1), source.prefix)
        self.memory = source.memory
        self.unit = source.unit
        self.forming = source.forming + source.seed.shape[1] * source.pull_products
        width, entries = source.seed.shape[1], self.tokens * self.head_width
        self.table = source.seed.new_empty(self.heads, width, entries, dtype=source.precision)
        # What the tokens share is large: it keeps its digits.
        self.common = source.seed.new_empty(self.heads, width, 1, self.head_width)
        rows = max(1, self.memory.wide // source.wide)
        for first in range(0, width, rows):
            chosen = slice(first, first + rows)
            u = source.by_head(source.pull(source.seed.T[chosen])).transpose(0, 1)  # [h, rows, N, d_h]
            self.common[:, chosen] = u.mean(2, keepdim=True)
            self.table[:, chosen].unflatten(2, (self.tokens, -1)).copy_(u.sub_(self.common[:, chosen]))

    @staticmethod
    def worthwhile(source: DirectMap, masks: int, iterations: int) -> bool:
        """Whether the table fits into TABLE_BYTES, and takes fewer operations to form and use than it saves.

        Its products read the whole table for a chunk of masks at a time, so reading is counted, at READ_COST.
        """
        width = source.seed.shape[1]
        entries = source.tokens * source.heads * source.head_width
        if entries * width * source.precision.itemsize > TABLE_BYTES:
            return False
        at_once = max(1, min(masks, source.memory.wide // (entries * source.precision.itemsize)))
        reads = READ_COST * entries * width * -(-masks // at_once)
        table = width * source.pull_products + 2 * iterations * (masks * entries * width + reads)
        return table < 2 * iterations * masks * source.pull_products

    @property
    def step_products(self) -> int:
        return 2 * (self.table.numel() + self.value_products)

    @property
    def wide(self) -> int:
        return self.values.numel() * self.table.dtype.itemsize

    def room(self, masks: int) -> Tensor:
        shape = (self.heads, masks, self.tokens, self.head_width)
        return self.memory.array("queries", *shape, dtype=self.values.dtype, of=self).transpose(0, 1)

    def queries(self, direction: Tensor) -> Tensor:
        # U is blind to what is taken away, on which bfloat16 would spend its digits.
        direction = direction - (direction @ self.unit)[:, None] * self.unit
        room = self.room(len(direction))
        u = room.transpose(0, 1)  # [h, M, N, d_h]
        varying = self.at_precision(u.flatten(2))
        torch.bmm(direction.to(varying.dtype).expand(self.heads, -1, -1), self.table, out=varying)
        u.flatten(2).copy_(varying)
        u.add_((direction @ self.common[:, :, 0])[:, :, None])
        return room

    def gather(self, du: Tensor) -> Tensor:
        du = du.transpose(0, 1)  # [h, M, N, d_h]
        flat = du.flatten(2)
        varying = self.at_precision(flat).copy_(flat) @ self.table.mT
        return (varying.to(du.dtype) + du.sum(2) @ self.common[:, :, 0].mT).sum(0)

    def at_precision(self, like: Tensor) -> Tensor:
        """Itself, or room for it at the precision of the table."""
        if like.dtype == self.table.dtype:
            return like
        return self.memory.array("hidden", *like.shape, dtype=self.table.dtype)


class PoolerMap(LayerMap):
    """The map of a model that pools with attention: the gradient with respect to the pooler's one row of attention.

    relevance[j] = mean over heads of max(dscore/dA_h[j], 0)

    values [N, h, d_h]: the rows that the pooler mixes. pieces: from its one row of concatenated heads [1, h * d_h] to the
    feature f. slope [D, D]: row i is dscore/df for the i-th unit token, see `cosine_slope`; the score is linear in the token.
    Queries are [M, h, d_h].
    """

    def __init__(self, values: Tensor, pieces: list[Piece], slope: Tensor, prefix: int):
        self.values = values[prefix:].transpose(0, 1).contiguous()  # [h, P, d_h]
        self.heads, _, self.head_width = self.values.shape
        self.pieces = [*pieces, Linear(slope)]  # the last: dscore/df of a unit token
        self.width = len(slope)
        self.forming = 0
        self.wide = 8 * values[0].numel() * values.element_size()
        self.narrow = 2 * self.values.shape[0] * self.values.shape[1] * values.element_size()
        self.memory = WorkingSet.of(values.device)

    @property
    def query_products(self) -> int:
        return sum(piece.products for piece in self.pieces)

    @property
    def step_products(self) -> int:
        return 2 * (self.query_products + self.values.numel())

    def cheapest(self, masks: int, iterations: int) -> LayerMap:
        """With all pieces multiplied out to one matrix, where that saves more than it costs."""
        whole = self.width * self.heads * self.head_width
        forming = self.width * self.query_products
        if forming >= 2 * iterations * masks * (self.query_products - whole):
            return self
        folded = copy(self)
        folded.pieces = [Linear(self.queries(torch.eye(self.width).to(self.values)).flatten(1))]
        folded.forming += forming
        return folded

    def room(self, masks: int) -> Tensor:
        return self.values.new_empty(masks, self.heads, self.head_width)

    def queries(self, direction: Tensor) -> Tensor:
        return pull_through(self.pieces, direction[:, None])[:, 0].unflatten(-1, (self.heads, self.head_width))

    def relevance(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        rectified = (queries.transpose(0, 1) @ self.values.mT).relu_()  # [h, M, P]
        return rectified.mean(0), rectified

    def transpose(self, gradient: Tensor, rectified: Tensor) -> Tensor:
        return (rectified.sign_().mul_(gradient / self.heads) @ self.values).transpose(0, 1)

    def gather(self, du: Tensor) -> Tensor:
        return push_through(self.pieces, du.flatten(1)[:, None])[:, 0]


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """x @ matrix at the matrix's precision, given back at that of x."""
    return (x.to(matrix.dtype) @ matrix).to(x.dtype)


def cosine_slope(feature: Tensor) -> Tensor:
    """d/df of cos(e, f) at f [D], for the unit tokens e along each axis: a symmetric matrix [D, D]."""
    length = feature.norm()
    unit = feature / length
    return (torch.eye(len(unit)).to(unit) - torch.outer(unit, unit)) / length


def pooled_gradient(pooled: Tensor, head: Head, tokens: int) -> tuple[Tensor, Tensor]:
    """d/dz of cos(e, f), f = LN(p) @ projection, at the mean token p [d] of `tokens` tokens z; and f / |f| [D].

    It is linear in the unit token e: a matrix [d, D].
    """
    normal, inverse = head.norm.normalised(pooled)
    feature = (normal * head.norm.weight + head.norm.bias) @ head.projection
    if head.bias is not None:
        feature = feature + head.bias
    length = feature.norm()
    unit = feature / length
    through = head.norm.weight[:, None] * (head.projection - (head.projection @ unit)[:, None] * unit) / length
    by_mean = inverse * (through - through.mean(0) - normal[:, None] * (normal @ through) / len(normal))
    return by_mean / tokens, unit


def value_and_slope(activation: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """An element-wise function and its derivative, any one: the only derivative that is left to autograd.

    Forward-mode differentiation needs no graph, but takes half a second to start.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        value = activation(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope
