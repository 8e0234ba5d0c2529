"""Where pictures and masks come from: one file for each kind, as lists of items of which nothing is read before it is worked on."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...errors import InputError, first_line
from .base import Source
from .coco import CocoInstances
from .files import LabelMaps, MaskFiles, Pictures
from .parquet import ParquetRows
from .shards import Shards

__all__ = ["KINDS", "CocoInstances", "LabelMaps", "MaskFiles", "ParquetRows", "Pictures", "Shards", "source_of"]

KINDS: dict[str, type[Source]] = {kind.kind: kind for kind in (CocoInstances, MaskFiles, LabelMaps, Pictures, Shards, ParquetRows)}


def source_of(description: Mapping[str, Any]) -> Source:
    """The source that a table's manifest describes. Raises InputError for what is none."""
    try:
        kind = KINDS[description["kind"]]
        names = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
        return kind(**{name: value for name, value in description.items() if name in names})
    except (KeyError, TypeError) as error:
        raise InputError(f"the manifest names no source of pictures that this program reads ({first_line(error)})") from error
