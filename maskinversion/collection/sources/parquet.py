"""Tables of Parquet with a picture a row, as bytes or as the path of a file, and its masks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...datasets.shapes import decode
from ...errors import InputError, first_line
from ...packages import require
from ...pictures import read_mask
from ...pictures.files import open_bytes, open_picture
from ..table import USE, Reject
from .base import Item, Mask, Source, fitting, found_in

if TYPE_CHECKING:
    from PIL import Image

IMAGE, MASKS, LABELS = ("image", "picture", "path", "jpg", "png"), ("masks", "mask", "segmentation"), ("labels", "label")


@dataclass(frozen=True)
class RowItem(Item):
    """group, row: where it is in the file. columns: of the picture, the masks and the labels, as far as there are any."""

    picture: str
    file: str
    group: int
    row: int
    columns: tuple[str | None, str | None, str | None]

    def value(self, column: int) -> Any:
        name = self.columns[column]
        if name is None:
            return None
        read = tuple(one for one in self.columns if one is not None)
        return row_group(self.file, self.group, read).column(name)[self.row].as_py()

    def open(self) -> Image.Image:
        return picture_of(self.value(0), self.file, self.picture)

    def masks(self, size: tuple[int, int]) -> Iterator[Mask | Reject]:
        found, labels = (value if isinstance(value, list) else [value] for value in (self.value(1), self.value(2)))
        for index, mask in enumerate(found):
            what = f"mask {index} of {self.picture}"
            label = labels[index] if index < len(labels) else None
            try:
                if isinstance(mask, Mapping) and "counts" in mask:
                    read = torch.from_numpy(decode(dict(mask), size, what)).float()
                else:
                    read = fitting(read_mask(picture_of(mask, self.file, what)), size, what)
                yield Mask(str(index), None if label is None else str(label), read)
            except InputError as error:
                yield Reject(self.picture, str(index), str(error))


@dataclass(frozen=True)
class ParquetRows(Source):
    """table: a file, or a folder of such, with a row a picture. Its columns: `image` (or picture, path), bytes, a path, or both as
    data sets of Hugging Face have them; `masks` (or mask), one or a list of the same or of COCO's run lengths; and `labels`."""

    kind = "parquet"

    table: str

    def items(self) -> Iterator[Item | Reject]:
        parquet = require("pyarrow.parquet", USE)
        for name in self.files():
            path = self.path_of(name)
            try:
                with parquet.ParquetFile(path) as file:
                    columns = columns_of(file.schema_arrow.names, path)
                    paths = file.schema_arrow.field(columns[0]).type in ("string", "large_string")
                    number = 0
                    for group in range(file.num_row_groups):
                        rows = file.metadata.row_group(group).num_rows
                        keys = file.read_row_group(group, [columns[0]]).column(0).to_pylist() if paths else [None] * rows
                        for row, key in enumerate(keys):
                            yield RowItem(str(key or f"{name}#{number}"), path, group, row, columns)
                            number += 1
            except (OSError, ValueError) as error:
                if isinstance(error, InputError):
                    raise
                yield Reject(name, None, f"{path} is no Parquet file that can be read ({first_line(error)})")

    def files(self) -> list[str]:
        return found_in(self.table, (".parquet",)) if os.path.isdir(self.table) else [Path(self.table).name]

    def path_of(self, name: str) -> str:
        return str(Path(self.table, name)) if os.path.isdir(self.table) else self.table

    def open(self, picture: str) -> Image.Image:
        name, _, number = picture.rpartition("#")
        if name in self.files() and number.isdigit():
            for index, item in enumerate(ParquetRows(self.path_of(name)).items()):
                if index == int(number) and isinstance(item, RowItem):
                    return item.open()
        return picture_of(picture, self.path_of(self.files()[0]), picture)


def columns_of(names: list[str], path: str) -> tuple[str, str | None, str | None]:
    image, masks, labels = (next((one for one in known if one in names), None) for known in (IMAGE, MASKS, LABELS))
    if image is None:
        raise InputError(f"{path} has no column of pictures, such as {', '.join(IMAGE)}; it has {', '.join(names[:20])}")
    return image, masks, labels


@lru_cache(maxsize=1)  # of the pictures that are worked on
def row_group(file: str, group: int, columns: tuple[str, ...]) -> Any:
    try:
        with require("pyarrow.parquet", USE).ParquetFile(file) as opened:
            return opened.read_row_group(group, list(columns))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} could not be read ({first_line(error)})") from error


def picture_of(value: Any, file: str, what: str) -> Image.Image:
    """A picture of bytes, of a path beside the table's file, or of {"bytes", "path"}."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return open_bytes(value, what)
    if not isinstance(value, str):
        raise InputError(f"{what} is neither the bytes of a picture nor the path of one, but {type(value).__name__}")
    return open_picture(Path(file).parent / value)
