"""MaskInversion: learn one vector whose explainability map on a frozen model equals a mask.

Bousselham, Chaybouti, Rupprecht, Ferrari, Kuehne: "MaskInversion: Localized Embeddings via Optimization of Explainability
Maps", arXiv 2407.20034. It departs from the published package in cost only: the image is encoded once for any number of
masks, the gradient is a closed form (`explain`), and the model is only read.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from math import isqrt
from typing import Any, TypeGuard, TypeVar, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from .compute.adamw import AdamW
from .compute.ambient import settled
from .compute.matmul import arithmetic, fast_linears
from .compute.memory import check_room
from .errors import InputError, memory_advice
from .explain.base import LayerMap
from .explain.objective import DiceObjective, Objective
from .explain.plan import Plan, joined, pictures_at_once
from .geometry import LARGEST, Geometry
from .models.clip import Clip
from .pictures import as_masks, as_pixels, is_picture, warn
from .settings import InversionSettings
from .starts import CLOSEST, from_cutouts, from_patches
from .tokens import LocalizedTokens, overlap

# Of a mask's share of the picture, and of the picture's border, from which on it looks like the background of a region.
MOST, NEARLY_ALL = 0.5, 0.95
LESS = "lower image_size, or give fewer masks at a time"
ROWS = 800  # of patches that a processor's products take well at a time: more pictures together are no faster
DETAIL = 1024  # pixels, the longer side of what is kept of a picture for what is enlarged of it
PICTURES = 32  # that go through a model together on other devices
AT_ONCE = 3  # as much as all masks on the canvas: their maps, twice while these are drawn, and the loss's share

# (step, of how many, maps [M, H, W] in 0..1, losses [M]), step from 1. It may raise to stop.
Callback = Callable[[int, int, Tensor, Tensor], None]

Kind = TypeVar("Kind", bound=Hashable)


@dataclass(frozen=True)
class Seen:
    """A picture as a model sees it, and not yet encoded: the normalised canvas [3, H, W], the same with more detail
    [3, k * H, k * W] where the picture has more, and how the canvas came about."""

    canvas: Tensor
    detail: Tensor
    geometry: Geometry


@dataclass(frozen=True)
class EncodedImage:
    """An image after its one pass through the model, ready for any number of masks."""

    maps: list[LayerMap]
    grid: tuple[int, int]
    prefix: int  # tokens before the patches
    global_embedding: Tensor  # [D]
    entering: Tensor  # [N, d]: the tokens that enter the last block
    leaving: Tensor  # [N, d]: the tokens that leave it
    states: list[Tensor]  # [N, d]: the tokens that leave every block, where the tower keeps them
    canvas: Tensor  # [3, H, W]: what the model saw
    detail: Tensor  # [3, k * H, k * W]: the same, larger where the picture has more to show
    geometry: Geometry
    fingerprint: str  # of the CLIP


class MaskInverter:
    """Localized embedding tokens from masks.

    clip: what `load_clip` returns. settings: how; or its fields as keywords, such as `MaskInverter(clip, iterations=20)`.
    objective: what is minimised; the published Dice loss.

    Raises InputError for a setting that cannot be used, or not with this CLIP.
    """

    def __init__(
        self,
        clip: Clip,
        settings: InversionSettings | None = None,
        *,
        objective: type[Objective] = DiceObjective,
        **fields: Any,
    ):
        if not isinstance(clip, Clip):
            raise InputError(f"there is a {type(clip).__name__} where a CLIP should be: give what load_clip returns")
        self.clip = clip
        self.settings = replace(settings or InversionSettings(), **fields)
        self.objective = objective
        self.image_size = square_for(self.settings, clip)

    @settled()
    def see(self, image: object) -> Seen:
        """The first half of `encode`: reads and resizes a picture, without the model, so that threads can do it meanwhile."""
        pixels = as_pixels(image)
        tower = self.clip.tower
        height, width = pixels.shape[-2:]
        geometry = Geometry.for_image((height, width), self.image_size, tower.patch_size, self.settings.fit)
        what = f"an image of {width} x {height} px seen at {geometry.model_size[0]} px"
        check_room(3 * geometry.model_size[0] * geometry.model_size[1] * torch.float32.itemsize, what, LESS, tower.device)
        finer = geometry.finer(most=max(1, min(CLOSEST, DETAIL // max(geometry.model_size))))
        with memory_advice(what, LESS):
            canvas = tower.canvas(pixels, geometry)[0]
            return Seen(canvas, canvas if finer == geometry else tower.canvas(pixels, finer)[0], geometry)

    @overload
    def encode(self, image: list[Any] | tuple[Any, ...]) -> list[EncodedImage]: ...
    @overload
    def encode(self, image: object) -> EncodedImage: ...

    @settled()
    def encode(self, image: object) -> EncodedImage | list[EncodedImage]:
        """Run the model once on an image: a file, PIL, or an array or tensor [h, w, 3] of uint8 or of floats in 0..1.

        A list or tuple of such gives a list: those whose canvases have the same size go through the model together, a few at a
        time. They are what each alone gives, but for how products are rounded.
        See `pictures.as_pixels` for what else is taken; or what `see` made of it. Raises InputError for anything else,
        MemoryLimitError when it does not fit.
        """
        if not is_several(image):
            return self._encode([image if isinstance(image, Seen) else self.see(image)])[0]
        seen = []
        for number, one in enumerate(image):
            with of_several(number):
                seen.append(one if isinstance(one, Seen) else self.see(one))
        found: dict[int, EncodedImage] = {}
        for some in together([one.geometry.model_size for one in seen], self.pictures_at_once):
            found.update(zip(some, self._encode([seen[index] for index in some])))
        return [found[index] for index in range(len(seen))]

    def pictures_at_once(self, size: tuple[int, int]) -> int:
        """How many of this canvas go through the model together."""
        tower = self.clip.tower
        if tower.device.type != "cpu":
            return PICTURES
        return max(1, ROWS * tower.patch_size[0] * tower.patch_size[1] // (size[0] * size[1]))

    def _encode(self, seen: list[Seen]) -> list[EncodedImage]:
        """Of pictures with canvases of one size."""
        tower = self.clip.tower
        with memory_advice(f"{len(seen)} images seen at {seen[0].geometry.model_size[0]} px", LESS), fast_linears(tower.device):
            layers = tower.encode(torch.stack([one.canvas for one in seen]).to(tower.device), self.settings.layers)
        return [
            EncodedImage(**vars(found), **vars(one), fingerprint=self.clip.fingerprint)
            for found, one in zip(layers, seen)
        ]

    @overload
    def invert(
        self, encoded: list[EncodedImage] | tuple[EncodedImage, ...], masks: Iterable[object]
    ) -> list[LocalizedTokens]: ...
    @overload
    def invert(self, encoded: EncodedImage, masks: object, callback: Callback | None = None) -> LocalizedTokens: ...

    @settled()
    def invert(
        self, encoded: EncodedImage | list[EncodedImage] | tuple[EncodedImage, ...], masks: Any, callback: Callback | None = None
    ) -> LocalizedTokens | list[LocalizedTokens]:
        """Learn one token per mask; each is optimised independently of the others.

        A list of pictures, with as many of masks, gives a list. Those with as many masks (about as many, but on a CPU), seen at the
        same size, go through the steps together, where there is no callback or tolerance: as each alone, but for rounding.
        encoded: by an inverter with the same CLIP, as far as its fingerprint tells, and as many layers.
        masks: [M, h, w] or [h, w], bool, float in 0..1 or uint8, or any number of such, files or PIL images, of which one at a
        time is held; see `pictures.as_masks`. A mask of another size than the image is taken to cover the whole image. Soft,
        coarse and overlapping masks are fine.
        callback(step, total, maps, losses): after every step, from 1; maps [M, H, W] in 0..1 and losses [M] before its update.
        It may raise to stop.

        Warns of a map without contrast, and of a mask that is probably inverted.
        Raises InputError for a mask that is empty, not in range or of the wrong shape, with its index.
        """
        is_one = not isinstance(encoded, list | tuple)
        several, each = ([encoded], [masks]) if is_one else (list(encoded), list(masks))
        for one in several:
            if not isinstance(one, EncodedImage):
                raise InputError(f"there is a {type(one).__name__} where an encoded picture should be: give what encode returns")
        if len(several) != len(each):
            raise InputError(f"there are {len(several)} pictures and masks of {len(each)}: give a list of masks for each picture")
        seen = []
        for number, (one, own) in enumerate(zip(several, each)):
            with memory_advice("the masks", LESS), nullcontext() if is_one else of_several(number):
                seen.append(self.masks_for(one, own))
        found = self.invert_seen(several, seen, callback)
        return found[0] if is_one else found

    @settled()
    def invert_seen(
        self, encoded: list[EncodedImage], masks: list[Tensor], callback: Callback | None = None
    ) -> list[LocalizedTokens]:
        """The second half of `invert`: of masks [M, H, W] on the canvas of each picture, as `masks_for` gives them."""
        for one in encoded:
            if one.fingerprint != self.clip.fingerprint or len(one.maps) != self.settings.layers:
                raise InputError("this image was encoded by another inverter: encode it with the one that inverts")
        masks = [own.to(one.global_embedding) for one, own in zip(encoded, masks, strict=True)]
        kinds = [(one.geometry.model_size, filled_up(len(own), own.device)) for one, own in zip(encoded, masks)]
        examples = dict(zip(kinds, encoded))
        by_itself = callback is not None or self.settings.tolerance  # since it stops by itself

        def most(kind: tuple[tuple[int, int], int]) -> int:
            return 1 if by_itself else pictures_at_once(examples[kind].maps, kind[1], self.settings.iterations)

        found: dict[int, LocalizedTokens] = {}
        for some in together(kinds, most):
            maps = joined([encoded[index].maps for index in some]) if len(some) > 1 else None
            for group in [some] if maps else [[index] for index in some]:
                own = [masks[index] for index in group]
                many = f"{sum(map(len, own))} masks at {encoded[group[0]].geometry.model_size[0]} px"
                check_room(AT_ONCE * sum(one.nbytes for one in own), many, LESS, own[0].device)
                with memory_advice(many, LESS):
                    made = self._optimise([encoded[index] for index in group], maps or encoded[group[0]].maps, own, callback)
                found.update(zip(group, made))
        for index, own in enumerate(masks):
            warn_of_doubtful(own, found[index].maps)
        return [found[index] for index in range(len(encoded))]

    @settled()
    def masks_for(self, encoded: EncodedImage | Seen, masks: object) -> Tensor:
        """The masks as the model sees them: [M, H, W] float32 in 0..1, on the canvas of the encoded image."""
        geometry = encoded.geometry
        seen = []
        canvas = geometry.model_size[0] * geometry.model_size[1] * torch.float32.itemsize
        for index, mask in enumerate(as_masks(masks)):
            check_room((index + 1) * canvas, f"{index + 1} masks as the model sees them", LESS)
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

    def _optimise(
        self, several: list[EncodedImage], maps: list[LayerMap], each: list[Tensor], callback: Callback | None
    ) -> list[LocalizedTokens]:
        """The paper's algorithm (arXiv 2407.20034, section 3): gradient descent on the tokens alone, of a frozen model.

        Of one picture, or of several whose maps are joined. each: the masks of every picture.
        """
        settings, lengths = self.settings, [len(own) for own in each]
        count = max(lengths)
        filled = [torch.cat([own, own[-1:].expand(count - len(own), -1, -1)]) if len(own) < count else own for own in each]
        masks = filled[0] if len(each) == 1 else torch.cat(filled)  # [M, H, W]
        whole = torch.stack([one.global_embedding for one in several])  # [B, D]
        anchors = F.normalize(whole, dim=1)
        anchor = anchors.repeat_interleave(count, 0)  # [M, D]
        starts = torch.cat([self._starts(one, own) for one, own in zip(several, filled)])
        scale = whole.square().mean(1, keepdim=True).sqrt().repeat_interleave(count, 0) if settings.lr_unit == "relative" else 1.0
        plan = Plan(
            maps, self.objective(masks, several[0].grid), anchors if settings.start == "picture" else None,
            len(masks), settings.iterations, settings.precision, len(several),
        )
        tokens = starts / scale  # [M, D]
        optimizer = AdamW(tokens, settings.lr)
        losses: list[Tensor] = []
        going: Tensor | None = None  # [M], those that have not settled
        for step in range(1, settings.iterations + 1):
            length = tokens.norm(dim=1, keepdim=True)
            unit = tokens / length
            loss, gradient = plan.evaluate(unit, going)  # of the explainability map and the mask
            loss += settings.alpha * (1 - (unit * anchor).sum(1))
            gradient -= settings.alpha * anchor
            if going is not None:
                loss = torch.where(going, loss, losses[-1])
            losses.append(loss)
            if callback is not None:
                callback(step, settings.iterations, plan.render(), loss)
            if settings.tolerance and step > 1:
                going = (loss - losses[-2]).abs() >= settings.tolerance
                if not going.any():
                    break
                gradient[~going] = 0
                optimizer.rest(~going)
            optimizer.step((gradient - (gradient * unit).sum(1, keepdim=True) * unit) / length)
        rendered = plan.render()
        results = tokens * scale, rendered, torch.stack(losses, 1), overlap(rendered, masks)
        parts = (parts_of(whole, count, lengths) for whole in results)
        return [
            LocalizedTokens(
                embeddings=embeddings,
                maps=own_maps,
                losses=own_losses.T.contiguous(),
                iou=iou,
                global_embedding=one.global_embedding,
                geometry=one.geometry,
                model=self.clip.name,
                fingerprint=self.clip.fingerprint,
                parameters=asdict(settings) | {"image_size": self.image_size, "loss": self.objective.name}
                | {"arithmetic": arithmetic(masks.device)},
            )
            for one, embeddings, own_maps, own_losses, iou in zip(several, *parts, strict=True)
        ]

    def _starts(self, encoded: EncodedImage, masks: Tensor) -> Tensor:
        """Where the tokens start [M, D], all as long as the embedding of the whole image."""
        whole, start, tower = encoded.global_embedding, self.settings.start, self.clip.tower
        if start == "picture":
            return whole.repeat(len(masks), 1)
        found = []
        if start in ("patches", "both"):
            found.append(F.normalize(from_patches(tower, encoded.entering, encoded.leaving, masks), dim=1))
        if start in ("cutout", "both"):
            found += from_cutouts(tower, encoded.detail, masks)
        return F.normalize(torch.stack(found).sum(0), dim=1) * whole.norm()


def is_several(image: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether it is a list of pictures, or of none, not one that is written as a list of numbers."""
    return isinstance(image, list | tuple) and (not image or any(isinstance(one, Seen) or is_picture(one) for one in image))


@contextmanager
def of_several(number: int) -> Iterator[None]:
    """Says of which picture an InputError is, where there are several."""
    try:
        yield
    except InputError as error:
        raise InputError(f"picture {number}: {error}") from error


def filled_up(masks: int, device: torch.device) -> int:
    """As how many a picture's masks count, where pictures with as many take their steps together: up to a power of two, on devices
    on which a step takes as long for some more."""
    return masks if device.type == "cpu" else 1 << (masks - 1).bit_length()


def parts_of(whole: Tensor, size: int, lengths: list[int]) -> list[Tensor]:
    """The first of every `size` in a tensor, as many as `lengths` say; they do not keep each other in memory."""
    if len(lengths) == 1:
        return [whole]
    return [part[:length].clone() for part, length in zip(whole.split(size), lengths, strict=True)]


def together(kinds: Sequence[Kind], most: Callable[[Kind], int]) -> Iterator[list[int]]:
    """Which of these go together, by their indices: those of one kind, so many of it at most."""
    by_kind: dict[Kind, list[int]] = {}
    for index, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(index)
    for kind, indices in by_kind.items():
        for first in range(0, len(indices), most(kind)):
            yield indices[first : first + most(kind)]


def square_for(settings: InversionSettings, clip: Clip) -> tuple[int, int]:
    """Height and width in pixels that this CLIP sees, of a square picture.

    Raises InputError where the CLIP has too few blocks, or patches of another size.
    """
    depth, name = clip.tower.depth, clip.name
    if settings.layers > depth:
        raise InputError(f"layers is {settings.layers}; {name} has {depth} blocks, so it must be 1 to {depth}")
    size = clip.tower.image_size if settings.image_size is None else (settings.image_size, settings.image_size)
    if size[0] * size[1] > LARGEST:
        raise InputError(f"image_size is {max(size)}; it can be {isqrt(LARGEST)} at most")
    for side, patch in zip(size, clip.tower.patch_size, strict=True):
        if side < 2 * patch or side % patch:
            near = max(2, round(side / patch)) * patch
            raise InputError(f"image_size is {side}; {name} has patches of {patch} px, so use a multiple of it, such as {near}")
    return size


def warn_of_doubtful(masks: Tensor, maps: Tensor) -> None:
    """Warn of what went through but is probably not what was meant. masks, maps: [M, H, W] in 0..1, on the model's canvas."""
    flat = (maps.amax((1, 2)) == 0).nonzero()[:, 0].tolist()
    if flat:
        warn(
            f"the map of mask {', '.join(map(str, flat))} has no contrast, as on a picture of one colour: its token says little of "
            f"the region, or is still the whole picture's"
        )
    share = masks.mean((1, 2))
    border = torch.cat([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]], 1).mean(1)
    for index in ((share > MOST) & (share < 1) & (border > NEARLY_ALL)).nonzero()[:, 0].tolist():
        warn(
            f"mask {index} covers {share[index]:.0%} of what the model sees and nearly all of its border: if the region is what it "
            f"leaves out, as in the mask of a cut-out picture, invert it"
        )
