"""What to evaluate on what. It stands by itself, so that it can be listed without torch."""

import math
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..settings import FITS, STARTS
from ..tasks.phrases import CLASS_TEMPLATE, EXPRESSION_TEMPLATE, TEMPLATES

CLASSES = ("coco", "voc", "context", "open-images")  # data sets whose regions have a class
DATASETS = (*CLASSES, "refcoco", "phrasecut")
METHODS = (  # see `baselines`
    *("global", "crop", "masked-crop", "grey", "red-circle", "blur", "maskclip", "clip-surgery", "sclip", "textregion", "ris"),
    "maskinversion",
)
QUALITIES = ("exact", "eroded", "dilated", "box")  # see `masks`
RADIUS = 0.1  # of the square root of the mask's area: the paper does not say by how much
LOSSES = ("dice", "mse", "bce")  # see `ablation`
WHOLE_PICTURE = tuple(fit for fit in FITS if fit != "crop")  # cropping would leave some regions out


@dataclass(frozen=True)
class Settings:
    """What to evaluate on what. Every tuple is a list of values to try; each combination is a row of the report.

    dataset: one of DATASETS. annotations, images: its file, or the folder of a VOC, and its folder of pictures. refs: of RefCOCO.
        split: of RefCOCO, VOC and Context. segments: folder of the PNGs of panoptic annotations (None is the one beside them with
        their name), of Context or of Open Images. names: the file of the class names of these two; None is the one beside.
    out: folder for report.json, report.md, report.png, and results/, which a later run of the same settings goes on with.
    clip, architecture, device: as `load_clip` takes them.
    methods: of METHODS; none stands for all that can be used with the model. templates: what texts are put into, averaged; a name
        in `tasks.phrases.TEMPLATES` stands for its list; none stands for "a photo of a {}" for classes and the bare text for
        expressions.
    mask_quality: of QUALITIES; mask_radius: see `masks.degrade`.
    iterations, lr, alpha, layers, image_size, fit, start, lr_unit, precision: of `MaskInverter`; image_size and fit are also how
        the baselines see pictures. No alpha stands for the paper's: 0 for classes, 5 for expressions. loss: of LOSSES.
    one_to_one: also assign expressions to regions one to one. limit, seed: only so many pictures, drawn at random.
    skip_missing: leave out the pictures that are not there, and count them.
    """

    dataset: str
    annotations: Path
    images: Path
    out: Path
    refs: Path | None = None
    split: str | None = None
    segments: Path | None = None
    names: Path | None = None
    clip: str = "bundled"
    architecture: str | None = None
    device: str | None = None
    methods: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    mask_quality: tuple[str, ...] = ("exact",)
    mask_radius: float = RADIUS
    iterations: tuple[int, ...] = (10,)
    lr: tuple[float, ...] = (0.1,)
    alpha: tuple[float, ...] = ()
    layers: tuple[int, ...] = (1,)
    image_size: tuple[int | None, ...] = (None,)
    fit: tuple[str, ...] = ("stretch",)
    loss: tuple[str, ...] = ("dice",)
    start: tuple[str, ...] = ("picture",)
    lr_unit: str = "absolute"
    precision: str = "exact"
    one_to_one: bool = False
    limit: int | None = None
    seed: int = 0
    skip_missing: bool = False

    def __post_init__(self):
        for what, given, known in (
            ("data set", (self.dataset,), DATASETS),
            ("method", self.methods, METHODS),
            ("mask quality", self.mask_quality, QUALITIES),
            ("loss", self.loss, LOSSES),
            ("start", self.start, STARTS),
            ("fit that sees every region", self.fit, WHOLE_PICTURE),
        ):
            if unknown := [value for value in given if value not in known]:
                raise InputError(f"there is no {what} {unknown[0]!r}; there are {', '.join(known)}")
        if self.dataset == "refcoco" and self.refs is None:
            raise InputError("RefCOCO's expressions are in a file of their own: give refs(unc).p with --refs")
        if self.dataset in ("context", "open-images") and self.segments is None:
            raise InputError("the PNGs of the masks are in a folder of their own: give it with --segments")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit is {self.limit}; it must be at least 1")
        if not 0 < self.mask_radius < math.inf:
            raise InputError(f"mask_radius is {self.mask_radius}; it must be above 0")

    @property
    def has_classes(self) -> bool:
        return self.dataset in CLASSES

    @property
    def all_templates(self) -> list[str]:
        given = self.templates or (CLASS_TEMPLATE if self.has_classes else EXPRESSION_TEMPLATE,)
        return [template for name in given for template in TEMPLATES.get(name, [name])]
