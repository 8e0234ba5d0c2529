"""The table of a collection: a folder of Parquet files with one row a region, which pyarrow, DuckDB, Polars and Lance read.

    FOLDER/manifest.json      what every token in it was made with, and of which pictures
    FOLDER/regions/*.parquet  the rows of a few dozen pictures each, written whole or not at all
    FOLDER/rejects/*.parquet  what could not be read, and why

A part of `regions` says which pictures are done. It is written after its rejects, and the same pictures have the same name, so that
whoever stops at whatever moment leaves no row that is lost and none that is there twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as shown
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import InputError, encodable, first_line
from ..files import read_json, written_whole
from ..packages import require

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "maskinversion-regions-2"  # raised when the same settings give other tokens, or other columns
KEY = b"maskinversion"  # of a part's metadata
MANIFEST = "manifest.json"
SOURCE = "source"  # the name of the rejects that are of no part
NUMBERS = ("float32", "float16")
BOX = 4
WIDEST = 2**16  # numbers of a token
ROWS_AT_ONCE = 8192
USE = "a table of regions"
DAMAGED = "is damaged, or no part of this table ({}): delete it, and make its regions again by what made the table"


@dataclass(frozen=True)
class Made:
    """What the tokens of a table were made with: two tables can be mixed where all but `model` and `version` are equal.

    model: the CLIP's name. fingerprint: its own. width: D, numbers a token. numbers: float32 or float16, in the file.
    settings: of the inversion, see `InversionSettings`, with the `image_size` that it came to and its `loss`.
    """

    model: str
    fingerprint: str
    width: int
    settings: Mapping[str, Any]
    numbers: str = NUMBERS[0]
    version: str = __version__

    def __post_init__(self):
        for name in ("model", "fingerprint", "version"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} is {shown(getattr(self, name))}; it must be a text")
        if not isinstance(self.width, int) or not 1 <= self.width <= WIDEST:
            raise InputError(f"width is {shown(self.width)}; it must be 1 to {WIDEST} numbers")
        if not isinstance(self.settings, Mapping):
            raise InputError(f"settings are {shown(self.settings)}; they must be an object")
        if not isinstance(self.numbers, str) or self.numbers not in NUMBERS:
            raise InputError(f"tokens cannot be kept as {shown(self.numbers)}; use one of {', '.join(NUMBERS)}")
        object.__setattr__(self, "settings", json.loads(json.dumps(dict(self.settings))))  # as it comes out of a file

    def differences(self, other: Made) -> list[str]:
        """What keeps tokens made with this and with the other apart, in words."""
        found = []
        if self.fingerprint != other.fingerprint or self.width != other.width:
            found.append(f"the model {self.model} ({self.fingerprint}), not {other.model} ({other.fingerprint})")
        if self.numbers != other.numbers:
            found.append(f"numbers of {self.numbers}, not {other.numbers}")
        for name in sorted({*self.settings, *other.settings}):
            ours, theirs = self.settings.get(name), other.settings.get(name)
            if ours != theirs:
                found.append(f"{name} {ours}, not {theirs}")
        return found


@dataclass(frozen=True)
class RegionRow:
    """A row.

    picture: its path or key within the source, with / between folders. annotation: which region of it. label: what it is called.
    box: left, top, right, bottom in pixels of the picture, of what is at least half as bright as the mask's brightest; right and
    bottom are beyond the last pixel. width, height: of the picture, in pixels. area: the mask's share of the picture, 0..1.
    iou, loss: of the map and the mask, after the last step. token [D]: unnormalised. mask: a PNG of two colours, for showing, at
    most 256 px on its longer side.
    """

    picture: str
    annotation: str
    label: str | None
    box: tuple[float, float, float, float]
    width: int
    height: int
    area: float
    iou: float
    loss: float
    token: np.ndarray
    mask: bytes | None = None

    @property
    def id(self) -> str:
        return region_id(self.picture, self.annotation)


@dataclass(frozen=True)
class Reject:
    """What could not be read, and why: one annotation of a picture, or all of it, where that is None."""

    picture: str
    annotation: str | None
    reason: str


def region_id(picture: str, annotation: str) -> str:
    """The same for the same region, always: 24 hexadecimal digits of the SHA-256 of both, with a zero byte between them."""
    return hashlib.sha256(f"{encodable(picture)}\0{encodable(annotation)}".encode()).hexdigest()[:24]


def schema(made: Made) -> pa.Schema:
    """The columns of a table, in their order."""
    pa = require("pyarrow", USE)
    text, number = pa.string(), pa.float32()
    return pa.schema(
        [
            pa.field("id", text, nullable=False),
            pa.field("picture", text, nullable=False),
            pa.field("annotation", text, nullable=False),
            pa.field("label", text),
            pa.field("box", pa.list_(number, BOX), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("area", number, nullable=False),
            pa.field("iou", number, nullable=False),
            pa.field("loss", number, nullable=False),
            pa.field("token", pa.list_(pa.float32() if made.numbers == NUMBERS[0] else pa.float16(), made.width), nullable=False),
            pa.field("mask", pa.binary()),
        ]
    )


def reject_schema() -> pa.Schema:
    pa = require("pyarrow", USE)
    return pa.schema([("picture", pa.string()), ("annotation", pa.string()), ("reason", pa.string())])


@dataclass
class RegionTable:
    """A table in a folder. source: where its pictures are, see `sources`.

    All that reads rows raises InputError for a part that is damaged or of another table, and names it.
    """

    folder: Path
    made: Made
    source: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | os.PathLike) -> RegionTable:
        """One that is there. Raises InputError for what is none."""
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise InputError(f"{folder} is no table of regions: there is no {MANIFEST} in it. `maskinversion embed` makes one")
        manifest = read_json(path)
        if manifest.get("format") != FORMAT:
            own = shown(manifest.get("format"))
            raise InputError(f"{path} is of the format {own}, and this program reads {FORMAT}: make it again in another folder")
        try:
            return cls(Path(folder), Made(**manifest["made"]), dict(manifest["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({first_line(error)})") from error

    @classmethod
    def create(
        cls, folder: str | os.PathLike, made: Made, source: Mapping[str, Any], moved: bool = False
    ) -> RegionTable:
        """One to write to: new, without a part yet, or made with the same. moved: the source is its own, in a new place.

        Raises InputError, which names what differs, where it was made with another model, other settings or of other pictures.
        """
        folder, source = Path(folder), json.loads(json.dumps(dict(source)))
        there = cls.open(folder) if (folder / MANIFEST).exists() else None
        if there is None or not there.parts():
            table = cls(folder, made, dict(source))
            table.write_manifest()
            return table
        if different := there.made.differences(made):
            raise InputError(
                f"{folder} was made with {'; '.join(different)}: tokens of both cannot be compared. Give another folder for these, "
                f"or the settings that it was made with"
            )
        if moved and there.source.get("kind") == source.get("kind"):
            there.source = dict(source)
            there.write_manifest()
        if there.source != source:
            raise InputError(
                f"{folder} is of other pictures ({described(there.source)}; these are {described(source)}): give another folder. "
                f"If they are the same ones in a new place, say so with --moved"
            )
        return there

    def write_manifest(self) -> None:
        with explained(self.folder / MANIFEST), written_whole(self.folder / MANIFEST) as path:
            manifest = {"format": FORMAT, "made": asdict(self.made), "source": self.source}
            path.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    @property
    def regions(self) -> Path:
        """The folder of the rows: all that other programs need, such as `duckdb.read_parquet(f"{table.regions}/*.parquet")`."""
        return self.folder / "regions"

    @property
    def rejects(self) -> Path:
        return self.folder / "rejects"

    @property
    def unfinished(self) -> Path:
        """Where files are until they are whole; not beside the others, since DuckDB reads all of a folder."""
        return self.folder / "unfinished"

    def parts(self) -> list[Path]:
        """The files of its rows, in the order of the pictures."""
        return listed(self.regions)

    def finished(self) -> set[str]:
        """The names of its parts."""
        return {path.stem for path in self.parts()}

    def pictures(self) -> set[str]:
        """The pictures that are done, those without a region and those that were rejected among them."""
        return {picture for path in self.parts() for picture in metadata_of(path)["pictures"]}

    def write(
        self,
        name: str,
        pictures: Sequence[str],
        rows: Sequence[RegionRow],
        rejects: Sequence[Reject] = (),
        **about: Any,
    ) -> None:
        """Writes the part `name`: the rows of these pictures, all of them, and what of them could not be read.

        about: further entries of its metadata. A part of the same name is replaced.
        Raises InputError where it cannot be written, as on a full disk; then nothing of it is there.
        """
        pa = require("pyarrow", USE)
        metadata = {"format": FORMAT, **asdict(self.made), **about, "pictures": [encodable(picture) for picture in pictures]}
        columns = schema(self.made).with_metadata({KEY: json.dumps(metadata).encode()})
        self._put_rejects(name, rejects)
        put(self.regions / f"{name}.parquet", pa.Table.from_batches(self._batches(rows, columns), columns), self.unfinished)

    def _batches(self, rows: Sequence[RegionRow], columns: pa.Schema) -> Iterator[pa.RecordBatch]:
        pa = require("pyarrow", USE)
        numbers = np.dtype(self.made.numbers)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[first : first + ROWS_AT_ONCE]
            with np.errstate(over="ignore"):  # looked for below
                tokens = np.stack([np.asarray(row.token) for row in some]).astype(numbers)
            lists = {"box": np.array([row.box for row in some], np.float32), "token": tokens}
            if lists["token"].shape[1:] != (self.made.width,):
                raise InputError(f"the tokens have {lists['token'].shape[1:]} numbers each, and the table is of {self.made.width}")
            if not np.isfinite(lists["token"]).all():
                raise InputError(f"a token has NaN or infinite numbers, or such as {numbers} cannot hold: use float32")
            arrays = []
            for column in columns:
                if column.name in lists:
                    flat = pa.array(lists[column.name].reshape(-1), column.type.value_type)
                    arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=column.type))
                    continue
                values = [getattr(row, column.name) for row in some]
                texts = column.type == pa.string()
                arrays.append(pa.array([encodable(v) if texts and v is not None else v for v in values], column.type))
            yield pa.record_batch(arrays, schema=columns)

    def write_source_rejects(self, rejects: Sequence[Reject]) -> None:
        """Writes what is wrong with the source itself, in place of what was before."""
        self._put_rejects(SOURCE, rejects)

    def _put_rejects(self, name: str, rejects: Sequence[Reject]) -> None:
        pa, path = require("pyarrow", USE), self.rejects / f"{name}.parquet"
        if rejects:
            lines = [{key: v if v is None else encodable(v) for key, v in asdict(reject).items()} for reject in rejects]
            put(path, pa.Table.from_pylist(lines, reject_schema()), self.unfinished)
        else:
            path.unlink(missing_ok=True)  # of a run before

    def forget_rejected(self) -> None:
        """Deletes the parts with rejects, so that they are made again."""
        for path in listed(self.rejects):
            (self.regions / path.name).unlink(missing_ok=True)
            path.unlink()

    def dataset(self) -> Any:
        """All rows as a `pyarrow.dataset.Dataset`, of which nothing is read yet."""
        return dataset_of(self.parts(), schema(self.made))

    def read(self, columns: Sequence[str] | None = None, filter: Any = None) -> pa.Table:
        """Its rows, in the order of the pictures. columns: which; None is all. filter: a `pyarrow.compute` expression."""
        with readable(self.parts(), schema(self.made)):
            return self.dataset().to_table(columns=None if columns is None else list(columns), filter=filter)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Its rows, some at a time."""
        with readable(self.parts(), schema(self.made)):
            yield from (batch for batch in self.dataset().to_batches(columns=list(columns)) if len(batch))

    def take(self, rows: Sequence[int], column: str) -> list[Any]:
        """What these rows have in a column."""
        with readable(self.parts(), schema(self.made)):
            return self.dataset().take(np.array(rows, np.int64), columns=[column])[column].to_pylist()

    def read_tokens(self) -> np.ndarray:
        """The tokens [R, D] of its R rows, in their order, as float32."""
        found = np.empty((len(self), self.made.width), np.float32)
        row = 0
        for part in self.batches(["token"]):
            found[row : row + len(part)] = part.column(0).flatten().to_numpy(zero_copy_only=False).reshape(len(part), -1)
            row += len(part)
        return found

    def read_rejects(self) -> pa.Table:
        """picture, annotation (null where it is the whole picture), reason."""
        finished = {SOURCE, *self.finished()}  # others are of parts that were not finished
        paths = [path for path in listed(self.rejects) if path.stem in finished]
        with readable(paths, reject_schema()):
            return dataset_of(paths, reject_schema()).to_table()

    def __len__(self) -> int:
        with readable(self.parts(), schema(self.made)):
            return self.dataset().count_rows()


def dataset_of(paths: Sequence[Path], columns: pa.Schema) -> Any:
    return require("pyarrow.dataset", USE).dataset([str(path) for path in paths], schema=columns, format="parquet")


@contextmanager
def readable(paths: Sequence[Path], columns: pa.Schema) -> Iterator[None]:
    """Turns what pyarrow raises at files that are damaged, or have other columns, into an InputError about the first of them."""
    wrong = require("pyarrow", USE).ArrowException, OSError
    try:
        yield
    except MemoryError:
        raise
    except wrong as error:
        for path in paths:
            try:
                dataset_of([path], columns).to_table()
            except wrong as its:
                raise InputError(f"{path} {DAMAGED.format(first_line(its))}") from error
        raise InputError(f"the table could not be read ({first_line(error)})") from error


def listed(folder: Path) -> list[Path]:
    """The Parquet files in a folder, in the order of their names."""
    return sorted(folder.glob("*.parquet"))


def metadata_of(path: Path) -> dict[str, Any]:
    """What a part says of itself. Raises InputError for a file that is no part of a table."""
    try:
        return json.loads((require("pyarrow.parquet", USE).read_schema(path).metadata or {})[KEY])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} {DAMAGED.format(first_line(error))}") from error


def put(path: Path, rows: pa.Table, unfinished: Path) -> None:
    """Writes a Parquet file that survives a power cut once it is there. unfinished: a folder for it until then."""
    pa, parquet = require("pyarrow", USE), require("pyarrow.parquet", USE)
    texts = [column.name for column in rows.schema if column.type == pa.string()]
    written = pa.BufferOutputStream()  # in memory, so that the system says itself what is wrong with the disk
    parquet.write_table(rows, written, compression="zstd", use_dictionary=texts, write_statistics=texts)
    with explained(path), written_whole(path, unfinished) as partial, partial.open("wb") as file:
        file.write(written.getvalue())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what the system says of a disk into an InputError about `path`."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path} could not be written ({error.strerror or error}): what was finished before is kept. Make room, or mend it, "
            f"and start the same command again"
        ) from error


def described(source: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in source.items()) or "not known"
