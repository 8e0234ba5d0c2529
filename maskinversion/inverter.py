"""MaskInversion: learn one vector whose explainability map on a frozen model equals a mask.

Bousselham, Chaybouti, Rupprecht, Ferrari, Kuehne: "MaskInversion: Localized Embeddings via Optimization of Explainability
Maps", arXiv 2407.20034. It departs from the published package in cost only: the image is encoded once for any number of
masks, the gradient is a closed form (`decomposition`, `objective`), and the model is only read.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .clip import Clip
from .decomposition import LayerMap
from .errors import InputError, memory_advice
from .geometry import FITS, Geometry, canvas_size
from .objective import DiceObjective
from .pictures import as_masks, as_pixels, warn
from .products import bfloat16_is_faster, fastest
from .tokens import LocalizedTokens, overlap
from .working_set import WorkingSet, sliced

LESS = "lower image_size, or give fewer masks at a time"
PRECISIONS = ("exact", "fast")
PARAMETERS = ("iterations", "lr", "alpha", "layers", "image_size", "fit", "precision", "tolerance")

Callback = Callable[[int, int, Tensor, Tensor], None]


@dataclass(frozen=True)
class EncodedImage:
    """An image after its one pass through the model, ready for any number of masks."""

    maps: list[LayerMap]
    grid: tuple[int, int]
    global_embedding: Tensor  # [D]
    entering: Tensor  # [N, d]: the tokens that enter the last block
    leaving: Tensor  # [N, d]: the tokens that leave it
    states: list[Tensor]  # [N, d]: the tokens that leave every block, where the tower keeps them
    prefix: int  # tokens before the patches
    geometry: Geometry
    fingerprint: str  # of the CLIP


class MaskInverter:
    """Localized embedding tokens from masks.

    clip: what `load_clip` returns.
    iterations: K, steps of AdamW (paper: 10).
    lr: its rate. The published class's default is 0.1; its README example uses 0.5. Embeddings are not normalised, so what a
        rate does depends on the length of the model's embeddings.
    alpha: pulls the token towards the global embedding; 0 is the region only, 5 keeps context (paper, section 4).
    layers: how many of the last blocks the map sums over (reference: 1).
    image_size: side of the square that the model sees, in pixels; None is the model's own. A multiple of its patch size.
    fit: `stretch`, `pad`, `crop` or `aspect`, see `Geometry`.
    precision: `exact`, or `fast`: the large products in bfloat16, where that is faster on this device; the map, the loss and the
        steps stay in float32.
    tolerance: stop early, once no mask's loss has changed by this much in a step; 0 does all iterations, as the reference.

    Raises InputError for a value that cannot be used.
    """

    objective: type[DiceObjective] = DiceObjective

    def __init__(
        self,
        clip: Clip,
        iterations: int = 10,
        lr: float = 0.1,
        alpha: float = 0.0,
        layers: int = 1,
        image_size: int | None = None,
        fit: str = "stretch",
        precision: str = "exact",
        tolerance: float = 0.0,
    ):
        tower = clip.tower
        if not iterations >= 1:
            raise InputError(f"iterations is {iterations}; it must be at least 1")
        if not lr > 0:
            raise InputError(f"lr is {lr}; it must be above 0")
        if not alpha >= 0:
            raise InputError(f"alpha is {alpha}; it must not be negative")
        if not 1 <= layers <= tower.depth:
            raise InputError(f"layers is {layers}; {clip.name} has {tower.depth} blocks, so it must be 1 to {tower.depth}")
        if fit not in FITS:
            raise InputError(f"fit is {fit!r}; it must be one of {', '.join(FITS)}")
        if not tolerance >= 0:
            raise InputError(f"tolerance is {tolerance}; it must not be negative")
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}")
        self.clip = clip
        self.precision = precision
        self.tolerance = tolerance
        self.iterations = iterations
        self.lr = lr
        self.alpha = alpha
        self.layers = layers
        self.image_size = tower.image_size if image_size is None else (image_size, image_size)
        self.fit = fit
        for side, patch in zip(self.image_size, tower.patch_size, strict=True):
            if side < 2 * patch or side % patch:
                near = max(2, round(side / patch)) * patch
                raise InputError(
                    f"image_size is {side}; {clip.name} has patches of {patch} px, so use a multiple of it, such as {near}"
                )

    @torch.no_grad()
    def encode(self, image: object) -> EncodedImage:
        """Run the model once on an image: a file, PIL, or an array or tensor [h, w, 3] of uint8 or of floats in 0..1.

        See `pictures.as_pixels` for what else is taken. Raises InputError for anything else, MemoryLimitError when it does not fit.
        """
        pixels = as_pixels(image)
        tower = self.clip.tower
        size = tuple(pixels.shape[-2:])
        geometry = Geometry(size, canvas_size(size, self.image_size, tower.patch_size, self.fit), self.fit)
        with memory_advice(f"an image of {size[1]} x {size[0]} px seen at {geometry.model_size[0]} px", LESS):
            mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (tower.mean, tower.std))
            canvas = (geometry.to_model(pixels, tower.interpolation, fill=mean) - mean) / std
            with fastest(tower.device):
                layers = tower.encode(canvas.to(tower.device), self.layers)
        return EncodedImage(
            layers.maps,
            layers.grid,
            layers.global_embedding,
            layers.entering,
            layers.leaving,
            layers.states,
            layers.prefix,
            geometry,
            self.clip.fingerprint,
        )

    @torch.no_grad()
    def invert(self, encoded: EncodedImage, masks: object, callback: Callback | None = None) -> LocalizedTokens:
        """Learn one token per mask; each is optimised independently of the others.

        encoded: by an inverter with the same CLIP, as far as its fingerprint tells, and as many layers.
        masks: [M, h, w] or [h, w], bool, float in 0..1 or uint8, or any number of such, files or PIL images, of which one at a
        time is held; see `pictures.as_masks`. A mask of another size than the image is taken to cover the whole image. Soft,
        coarse and overlapping masks are fine.
        callback(step, total, maps, losses): after every step, from 1; maps [M, H, W] in 0..1 and losses [M] before its update.
        It may raise to stop.

        Raises InputError for a mask that is empty, not in range or of the wrong shape, with its index.
        """
        if encoded.fingerprint != self.clip.fingerprint or len(encoded.maps) != self.layers:
            raise InputError("this image was encoded by another inverter: encode it with the one that inverts")
        start = encoded.global_embedding
        with memory_advice("the masks", LESS):
            masks = self.masks_for(encoded, masks).to(start)
        with memory_advice(f"{len(masks)} masks at {encoded.geometry.model_size[0]} px", LESS):
            return self._invert(encoded, masks, callback)

    def masks_for(self, encoded: EncodedImage, masks: object) -> Tensor:
        """The masks as the model sees them: [M, H, W] float32 in 0..1, on the canvas of the encoded image."""
        geometry = encoded.geometry
        seen = []
        for index, mask in enumerate(as_masks(masks)):
            height, width = mask.shape
            if (width, height) == geometry.image_size != (height, width):
                warn(
                    f"mask {index} is {width} x {height} px and the picture {height} x {width}: was the mask made for the picture "
                    f"as it is stored, not turned upright?"
                )
            seen.append(geometry.to_model(mask[None, None], "bilinear")[0, 0].cpu())
            if seen[-1].max() == 0:
                advice = "use 'stretch', 'pad' or 'aspect'" if geometry.fit == "crop" else "raise image_size"
                raise InputError(f"mask {index} lies outside of what the model sees with fit={geometry.fit!r}: {advice}")
        return torch.stack(seen)

    def _invert(self, encoded: EncodedImage, masks: Tensor, callback: Callback | None) -> LocalizedTokens:
        objective = self.objective(masks, encoded.grid)
        start = encoded.global_embedding
        tokens = start.repeat(len(masks), 1)
        update = AdamW(tokens, self.lr)
        anchor = F.normalize(start, dim=0)
        losses = tokens.new_empty(self.iterations, len(masks))
        memory = WorkingSet.of(start.device)
        exact = [m.within(memory) for m in encoded.maps]
        lowered = self.precision == "fast" and bfloat16_is_faster(start.device)
        maps_of = [m.lowered(torch.bfloat16) for m in exact] if lowered else exact
        maps_of = [m.cheapest(len(masks), self.iterations) for m in maps_of]
        common = [m.queries(anchor[None]).clone() for m in exact]  # all tokens start alike
        relevance = tokens.new_empty(len(masks), encoded.grid[0] * encoded.grid[1])
        for step in range(self.iterations):
            gradient = torch.empty_like(tokens)
            for chunk in sliced(slice(0, len(masks)), memory.wide // max(m.wide for m in maps_of)):
                length = tokens[chunk].norm(dim=1, keepdim=True)
                unit = tokens[chunk] / length
                if step:
                    queries = [m.queries(unit) for m in maps_of]
                else:
                    queries = [m.room(len(unit)).copy_(u) for m, u in zip(maps_of, common, strict=True)]
                for part in sliced(chunk, memory.narrow // sum(m.narrow for m in maps_of)):
                    here = slice(part.start - chunk.start, part.stop - chunk.start)
                    found = [m.relevance(u[here]) for m, u in zip(maps_of, queries, strict=True)]
                    relevance[part] = sum(r for r, _ in found)
                    losses[step, part], pull = objective.select(part).evaluate(relevance[part])
                    for m, u, (_, rectified) in zip(maps_of, queries, found, strict=True):
                        u[here] = m.transpose(pull, rectified)  # the queries make room for their gradient
                by_unit = sum(m.gather(du) for m, du in zip(maps_of, queries, strict=True)) - self.alpha * anchor
                losses[step, chunk] += self.alpha * (1 - unit @ anchor)
                gradient[chunk] = (by_unit - (by_unit * unit).sum(1, keepdim=True) * unit) / length
            if callback is not None:
                callback(step + 1, self.iterations, objective.render(relevance), losses[step])
            if self.tolerance and step and (losses[step] - losses[step - 1]).abs().max() < self.tolerance:
                losses = losses[: step + 1]
                break
            update(tokens, gradient)
        maps = objective.render(relevance)
        parameters = {
            name: getattr(self, name) for name in ("iterations", "lr", "alpha", "layers", "image_size", "fit", "precision")
        }
        return LocalizedTokens(
            embeddings=tokens,
            maps=maps,
            losses=losses,
            iou=overlap(maps, masks),
            global_embedding=start,
            geometry=encoded.geometry,
            model=self.clip.name,
            fingerprint=self.clip.fingerprint,
            parameters=parameters,
        )


class AdamW:
    """torch.optim.AdamW without weight decay, on one tensor, without its machinery: it works under inference mode."""

    def __init__(self, like: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.lr, self.betas, self.eps = lr, betas, eps
        self.step = 0
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)

    def __call__(self, parameter: Tensor, gradient: Tensor) -> None:
        self.step += 1
        self.mean.lerp_(gradient, 1 - self.betas[0])
        self.square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        first, second = (1 - beta**self.step for beta in self.betas)
        parameter.addcdiv_(self.mean, (self.square.sqrt() / second**0.5).add_(self.eps), value=-self.lr / first)
