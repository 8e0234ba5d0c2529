"""The readers that are fuzzed: each with files to begin with, and what it does with one.

An input is the content of one file; for a folder, a JSON object of its JSON files, whose weights stay as they are.
"""

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from PIL import Image
from safetensors.torch import save_file

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.cli.classify import lines_of
from maskinversion.collection.sources import CocoInstances, ParquetRows, Shards, source_of
from maskinversion.collection.sources.base import Item, Source
from maskinversion.collection.table import Made, RegionRow, RegionTable, metadata_of
from maskinversion.datasets.base import Dataset
from maskinversion.datasets.coco import read_coco
from maskinversion.datasets.phrasecut import read_phrasecut
from maskinversion.datasets.refcoco import read_refcoco
from maskinversion.files import read_json
from maskinversion.models import loading, weights
from maskinversion.operations import pull
from maskinversion.pickles import read_plain_pickle
from maskinversion.pictures import as_pixels, label_masks, read_mask
from maskinversion.tasks.caption import load_captioner
from maskinversion.tasks.diffusion import load_decoder
from maskinversion.tasks.diffusion.adapters import read_adapter
from tests.helpers.files import write_pictures
from tests.helpers.random_tokens import made
from tests.helpers.small_captioners import checkpoint, write

MASK_PIXELS = 10**6  # larger masks are right, and slow
INSTANCES = {
    "images": [{"id": 1, "file_name": "a.png", "height": 24, "width": 40}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "street_sign", "synset": "sign.n.01"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 20, 1, 20.5, 20, 1, 20]]},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [24, 40], "counts": [100, 60, 800]}},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [24, 40], "counts": "T3l1Pi0"}},
    ],
}
PANOPTIC = {
    "images": INSTANCES["images"],
    "categories": INSTANCES["categories"],
    "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [{"id": 7, "category_id": 1, "iscrowd": 0}]}],
}
LVIS = {**INSTANCES, "images": [{"id": 1, "coco_url": "http://x/train2017/a.png", "height": 24, "width": 40}]}
REFS = [
    {"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "val", "sentences": [{"sent": "a cat", "raw": "a cat"}]},
    {"ref_id": 2, "ann_id": [1, 2], "image_id": 1, "split": "testA", "sentences": [{"sent": "both"}]},
]
PHRASES = [{"task_id": "1", "image_id": 1, "phrase": "a cat", "Polygons": [[[[1, 1], [20, 1], [20.5, 20]]]]}]


@dataclass(frozen=True)
class Reader:
    """name: of the file that an input is written to. seeds: inputs to begin with. read: what is done with it."""

    name: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    folder: Path | None = None  # whose JSON files an input stands for
    begins: bool = True  # whether one of the seeds is taken; whole CLIPs of a known architecture would be too large


def texts(*contents: object) -> Callable[[Path], list[bytes]]:
    return lambda scratch: [json.dumps(content).encode() for content in contents]


def folder_seed(folder: Path) -> Callable[[Path], list[bytes]]:
    return texts({file.relative_to(folder).as_posix(): json.loads(file.read_text()) for file in folder.rglob("*.json")})


def token_seeds(scratch: Path) -> list[bytes]:
    made(2, width=8).save(scratch / "seed.safetensors")
    return [(scratch / "seed.safetensors").read_bytes()]


def picture_seeds(scratch: Path) -> list[bytes]:
    write_pictures(scratch)
    found = [path.read_bytes() for path in sorted(scratch.iterdir()) if path.is_file()]
    return [content for content in found if len(content) < 20000]


def captioner_seeds(suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(scratch: Path) -> list[bytes]:
        state = {key: value for key, value in checkpoint("mlp", 32).items() if not key.endswith((".attn.bias", "masked_bias"))}
        return [write(scratch, {key: value.half() for key, value in state.items()}, f"seed{suffix}").read_bytes()]

    return seeds


def clip_seeds(suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(scratch: Path) -> list[bytes]:
        state = {"visual.proj": torch.ones(4, 4), "positional_embedding": torch.ones(4, 2), "logit_scale": torch.tensor(1.0)}
        path = scratch / f"seed{suffix}"
        save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state, "epoch": 1}, path)
        return [path.read_bytes()]

    return seeds


def adapter_seeds(suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(scratch: Path) -> list[bytes]:
        parts = {"image_proj": {"proj.weight": torch.ones(4, 4)}, "ip_adapter": {"1.to_k_ip.weight": torch.ones(4, 4)}}
        path = scratch / f"seed{suffix}"
        flat = {f"{part}.{key}": value for part, inner in parts.items() for key, value in inner.items()}
        save_file(flat, path) if suffix == ".safetensors" else torch.save(parts, path)
        return [path.read_bytes()]

    return seeds


def use_clip(path: Path) -> None:
    mi.load_clip(path, "ViT-S-32", "cpu")


def use_captioner(path: Path) -> None:
    load_captioner(path, tokenizer=path.parents[1] / "seeds", device="cpu")


def use_tokens(path: Path) -> None:
    found = mi.LocalizedTokens.load(path)
    if found.geometry.image_size[0] * found.geometry.image_size[1] < MASK_PIXELS:
        found.maps_for()
    pull([found])[0].save(path.with_name("again.safetensors"))


def use_dataset(read: Callable[[Path], Dataset]) -> Callable[[Path], None]:
    def use(path: Path) -> None:
        if not (path.parent / "a.png").exists():
            Image.new("RGB", (40, 24), (7, 0, 0)).save(path.parent / "a.png")
        found = read(path)
        for sample in found.samples:
            sample.check()
            size = sample.size or (24, 40)
            if size[0] * size[1] <= MASK_PIXELS:
                sample.masks(size)

    return use


def read_refs(path: Path) -> Dataset:
    (path.parent / "instances.file").write_text(json.dumps(INSTANCES))
    return read_refcoco(path, path.parent / "instances.file", path.parent)


def pickle_seeds(scratch: Path) -> list[bytes]:
    return [pickle.dumps(REFS, protocol) for protocol in range(6)]


def any_pickle(path: Path) -> None:
    read_plain_pickle(path)
    use_dataset(read_refs)(path)


def shard_seeds(scratch: Path) -> list[bytes]:
    Image.new("L", (40, 24), 255).save(scratch / "white.png")
    white, found = (scratch / "white.png").read_bytes(), []
    annotations = json.dumps({"annotations": INSTANCES["annotations"]}).encode()
    for form in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(scratch / "seed.tar", "w", format=form) as tar:
            for name, content in (("a.png", white), ("a.mask.png", white), ("a.labels.png", white), ("a.json", annotations)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        found.append((scratch / "seed.tar").read_bytes())
    return found


def row_seeds(scratch: Path) -> list[bytes]:
    Image.new("L", (40, 24), 255).save(scratch / "white.png")
    white = (scratch / "white.png").read_bytes()
    rows = [
        {"image": {"bytes": white, "path": None}, "masks": [white], "labels": ["a"]},
        {"path": "white.png", "mask": {"size": [24, 40], "counts": [0, 960]}},
    ]
    found = []
    for row in rows:
        parquet.write_table(pa.Table.from_pylist([row]), scratch / "seed.parquet")
        found.append((scratch / "seed.parquet").read_bytes())
    return found


def made_with() -> Made:
    return Made("a model", "0" * 16, 4, {"iterations": 10})


def part_seeds(scratch: Path) -> list[bytes]:
    table = RegionTable.create(scratch / "seed", made_with(), {"kind": "pictures", "pictures": "/"})
    table.write("a", ["a.png"], [RegionRow("a.png", "1", None, (0, 0, 1, 1), 40, 24, 0.5, 0.5, 0.5, np.ones(4, np.float32), b"")])
    return [path.read_bytes() for path in table.parts()]


def manifest_seeds(scratch: Path) -> list[bytes]:
    table = RegionTable.create(scratch / "seed", made_with(), {"kind": "pictures", "pictures": "/"})
    return [(table.folder / "manifest.json").read_bytes()]


def use_source(make: Callable[[Path], Source]) -> Callable[[Path], None]:
    """Every picture and every mask of a source; those that cannot be read, each by itself."""

    def use(path: Path) -> None:
        if not (path.parent / "a.png").exists():
            Image.new("RGB", (40, 24), (7, 0, 0)).save(path.parent / "a.png")
        for item in make(path).items():
            if isinstance(item, Item):
                with suppress(mi.MaskInversionError):
                    item.open()
                with suppress(mi.MaskInversionError):
                    list(item.masks((24, 40)))

    return use


def use_manifest(path: Path) -> None:
    table = RegionTable.open(path.parent)
    table.made.differences(made_with())
    source_of(table.source)
    table.read()


READERS = {
    "tokens": Reader("x.safetensors", token_seeds, use_tokens),
    "picture": Reader("x.png", picture_seeds, as_pixels),
    "mask": Reader("x.png", picture_seeds, read_mask),
    "labels": Reader("x.png", picture_seeds, label_masks),
    "pickle": Reader("refs.p", pickle_seeds, any_pickle),
    "refs": Reader("refs.json", texts(REFS), use_dataset(read_refs)),
    "coco": Reader("x.json", texts(INSTANCES), use_dataset(lambda path: read_coco(path, path.parent))),
    "lvis": Reader("x.json", texts(LVIS), use_dataset(lambda path: read_coco(path, path.parent))),
    "panoptic": Reader("x.json", texts(PANOPTIC), use_dataset(lambda path: read_coco(path, path.parent, path.parent))),
    "phrasecut": Reader("x.json", texts(PHRASES), use_dataset(lambda path: read_phrasecut(path, path.parent))),
    "phrases": Reader("x.txt", lambda scratch: [b"a cat\na dog\n", "\ufeffein H\xe4uschen\r\n".encode()], lines_of),
    "json": Reader("x.json", texts({"a": [1, {"b": None}]}), read_json),
    "captioner": Reader("x.safetensors", captioner_seeds(".safetensors"), use_captioner),
    "captioner-pt": Reader("x.pt", captioner_seeds(".pt"), use_captioner),
    "clip": Reader("x.safetensors", clip_seeds(".safetensors"), use_clip, begins=False),
    "clip-pt": Reader("x.pt", clip_seeds(".pt"), use_clip, begins=False),
    "clip-folder": Reader(
        "clip",
        lambda scratch: texts({"open_clip_config.json": json.loads((BUNDLED / "open_clip_config.json").read_text())})(scratch),
        lambda path: mi.load_clip(f"local-dir:{path}", device="cpu"),
        BUNDLED,
    ),
    "collection": Reader("x.json", texts(INSTANCES), use_source(lambda path: CocoInstances(str(path), str(path.parent)))),
    "shard": Reader("x.tar", shard_seeds, use_source(lambda path: Shards(str(path.parent)))),
    "rows": Reader("x.parquet", row_seeds, use_source(lambda path: ParquetRows(str(path)))),
    "part": Reader("x.parquet", part_seeds, metadata_of),
    "manifest": Reader("manifest.json", manifest_seeds, use_manifest),
    "decoder": Reader("decoder", folder_seed(BUNDLED / "decoder"), load_decoder, BUNDLED / "decoder"),
    "adapter": Reader("x.safetensors", adapter_seeds(".safetensors"), read_adapter),
    "adapter-pt": Reader("x.bin", adapter_seeds(".bin"), read_adapter),
}


def run(reader: Reader, content: bytes, scratch: Path) -> None:
    """Give one input to its reader. Raises what that raises."""
    path = scratch / reader.name
    if reader.folder is None:
        path.write_bytes(content)
        reader.read(path)
        return
    shutil.rmtree(path, ignore_errors=True)
    for file in reader.folder.rglob("*.safetensors"):
        inside = file.relative_to(reader.folder)
        if reader.folder != BUNDLED or len(inside.parts) == 1:
            (path / inside).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file, path / inside)
    try:
        files = json.loads(content)
    except (ValueError, RecursionError):
        files = {}
    for name, inner in files.items() if isinstance(files, dict) else ():
        if name.replace("/", "").replace("_", "").replace(".", "").isalnum() and name.isascii() and ".." not in name:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            if not (path / name).is_dir():
                (path / name).write_text(json.dumps(inner))
    reader.read(path)


def allow_own_pickles() -> None:
    """Any PyTorch reads the pickles that are made here."""
    for module in (loading, weights):
        module.pickles_are_unsafe = lambda: False  # pyright: ignore[reportAttributeAccessIssue]
