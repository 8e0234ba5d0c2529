"""Masks for pictures that have none: every mask that SAM or SAM 2 finds, by transformers' pipeline, from a folder on this disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import InputError, ModelError, first_line
from ..files import read_json
from ..packages import require
from .sources.base import Mask

if TYPE_CHECKING:
    from PIL import Image

USE = "finding masks"


@dataclass(frozen=True)
class SegmenterSettings:
    """folder: of the model, with config.json, weights as safetensors and the processor's configuration.
    points: of a side of the grid that the model is asked at. least_quality: of a mask, as the model predicts it, 0..1.
    least_stability: of a mask, how little it changes when it is cut at another level, 0..1.
    least_area: of a mask, as a share of the picture. most: masks of a picture, the largest first; 0 is all.
    """

    folder: str
    points: int = 32
    least_quality: float = 0.88
    least_stability: float = 0.95
    least_area: float = 0.001
    most: int = 0

    def __post_init__(self):
        if not os.path.isdir(self.folder):
            raise InputError(f"there is no folder {self.folder}: give one with a SAM or SAM 2 of transformers (config.json)")
        for what in ("least_quality", "least_stability", "least_area"):
            if not 0 <= getattr(self, what) <= 1:
                raise InputError(f"{what} is {getattr(self, what)}; it must be in 0..1")
        if self.points < 1 or self.most < 0:
            raise InputError(f"points is {self.points} and most {self.most}; they must be at least 1, and at least 0")


class Segmenter:
    """SAM or SAM 2, loaded once."""

    def __init__(self, settings: SegmenterSettings, device: torch.device):
        self.settings = settings
        self.lock = Lock()  # a pipeline is for one thread at a time
        transformers = require("transformers", USE)
        read_json(Path(settings.folder, "config.json"), ModelError)
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            model = transformers.AutoModelForMaskGeneration.from_pretrained(settings.folder, use_safetensors=True, **options)
            processor = transformers.AutoImageProcessor.from_pretrained(settings.folder, **options)
            self.pipeline: Any = transformers.pipeline(
                "mask-generation", model=model.eval(), image_processor=processor, device=device
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError) as error:
            raise ModelError(
                f"{settings.folder} is not a SAM or SAM 2 of transformers with its weights as safetensors ({first_line(error)})"
            ) from error

    def masks(self, picture: Image.Image) -> Iterator[Mask]:
        """The masks of a picture, the largest first. Raises InputError where none is found."""
        rgb = picture.convert("RGB")
        with self.lock, torch.inference_mode():
            found = self.pipeline(
                rgb,
                points_per_crop=self.settings.points,
                pred_iou_thresh=self.settings.least_quality,
                stability_score_thresh=self.settings.least_stability,
            )
        masks = [np.asarray(mask, bool) for mask in found["masks"]]
        masks = [mask for mask in masks if mask.mean() >= max(self.settings.least_area, 1 / mask.size)]
        if not masks:
            raise InputError("the segmenter finds no region in it")
        masks.sort(key=lambda mask: -int(mask.sum()))
        for index, mask in enumerate(masks[: self.settings.most or None]):
            yield Mask(str(index), None, torch.from_numpy(mask).float())
