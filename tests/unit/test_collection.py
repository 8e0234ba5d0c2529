"""Regions of many pictures: every source gives what the plain loop gives; whatever stops a run, nothing is lost and nothing twice;
what cannot be read is named."""

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.cli.main import main
from maskinversion.collection.run import run
from maskinversion.collection.sources import CocoInstances, LabelMaps, MaskFiles, ParquetRows, Shards, source_of
from maskinversion.collection.stream import ahead
from maskinversion.collection.table import RegionTable
from maskinversion.collection.worker import Job, Worker
from maskinversion.lock import locked
from maskinversion.pictures.files import open_picture as open_file
from maskinversion.settings import InversionSettings
from tests.helpers.datasets import BOXES, H, W, inside, label_map, picture

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

QUICK = InversionSettings(iterations=2)
COUNT = 6
LABELS = {"coco": ("red", "green"), "labels": ("3", "7"), "parquet": ("red", "green")}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """COUNT pictures with two squares each, in every layout."""
    data = tmp_path_factory.mktemp("world")
    rows, images, annotations = [], [], []
    (data / "shards").mkdir()
    with tarfile.open(data / "shards" / "a.tar", "w") as one, tarfile.open(data / "shards" / "b.tar", "w") as two:
        for seed in range(COUNT):
            name = f"{'in here/' if seed == 2 else ''}{seed}"
            picture(data / "pictures" / f"{name}.png", seed)
            content = (data / "pictures" / f"{name}.png").read_bytes()
            label_map(data / "labels" / f"{name}.png", (3, 7))
            masks = []
            for index, box in enumerate(BOXES):
                mask = np.zeros((H, W), np.uint8)
                mask[inside(box)] = 255
                path = data / "masks" / (f"{name}_{index}.png" if seed % 2 else f"{name}/{index}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(path)
                masks.append(path.read_bytes())
                annotations.append(
                    {"id": 2 * seed + index, "image_id": seed, "category_id": index, "iscrowd": 0,
                     "segmentation": {"size": [H, W], "counts": runs(mask)}}
                )  # fmt: skip
            for member, stored in (("png", content), ("mask.png", masks[0]), ("mask.2.png", masks[1])):
                entry = tarfile.TarInfo(f"{name}.{member}")
                entry.size = len(stored)
                (one if seed % 2 else two).addfile(entry, io.BytesIO(stored))
            rows.append({"image": {"bytes": content, "path": None}, "masks": masks, "labels": ["red", "green"]})
            images.append({"id": seed, "file_name": f"{name}.png", "height": H, "width": W})
    parquet.write_table(pa.Table.from_pylist(rows), data / "rows.parquet", row_group_size=2)
    categories = [{"id": 0, "name": "red"}, {"id": 1, "name": "green"}]
    (data / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return data


def runs(mask: np.ndarray) -> list[int]:
    flat = (mask.T.reshape(-1) > 0).astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *ends, flat.size]).tolist()


def source(world: Path, kind: str):
    return {
        "coco": lambda: CocoInstances(str(world / "coco.json"), str(world / "pictures")),
        "masks": lambda: MaskFiles(str(world / "pictures"), str(world / "masks")),
        "labels": lambda: LabelMaps(str(world / "pictures"), str(world / "labels")),
        "webdataset": lambda: Shards(str(world / "shards")),
        "parquet": lambda: ParquetRows(str(world / "rows.parquet")),
    }[kind]()


@pytest.fixture(scope="module")
def expected(world, bundled) -> dict[str, np.ndarray]:
    """The tokens of the two squares of every picture, by its name, in a plain loop."""
    inverter = mi.MaskInverter(bundled, QUICK)
    masks = torch.zeros(2, H, W)
    for mask, box in zip(masks, BOXES):
        mask[inside(box)] = 1
    paths = sorted((world / "pictures").rglob("*.png"))
    return {path.stem: inverter.invert(inverter.encode(path), masks).embeddings.numpy() for path in paths}


@pytest.mark.parametrize("kind", ["coco", "masks", "labels", "webdataset", "parquet"])
def test_every_source_gives_what_the_plain_loop_gives(kind, world, expected, tmp_path):
    table = run(Job(tmp_path, settings=QUICK, part=4), source(world, kind))
    rows = table.read().to_pylist()
    assert len(rows) == 2 * COUNT and table.read_rejects().num_rows == 0 and len({row["id"] for row in rows}) == 2 * COUNT
    for row, token in zip(rows, table.read_tokens()):
        shown = source_of(table.source).open(row["picture"])
        index = [list(box) for box in BOXES].index(row["box"])
        number = row["picture"].rpartition("#")[2] if kind == "parquet" else Path(row["picture"]).stem
        own = expected[number][index]  # AdamW divides a number's gradient by itself: one near zero is rounded far, a token is not
        assert np.linalg.norm(token - own) < 5e-5 * np.linalg.norm(own)
        assert (np.asarray(shown) == np.asarray(open_file(next(world.glob(f"pictures/**/{number}.png"))))).all()
        assert (row["width"], row["height"]) == (W, H) and row["area"] == pytest.approx(area(BOXES[index]) / (W * H))
        assert row["label"] == LABELS.get(kind, (None, None))[index]
        small = np.asarray(Image.open(io.BytesIO(row["mask"])))
        assert small.shape == (H, W) and small.dtype == bool and small[inside(BOXES[index])].all()
        assert small.sum() == area(BOXES[index])


def area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


class Stop(Exception):
    pass


def rows_of(table: RegionTable) -> list[dict]:
    return table.read().to_pylist()


def test_stopped_at_any_picture_it_goes_on_and_nothing_is_lost_or_twice(world, tmp_path, monkeypatch):
    whole = rows_of(run(Job(tmp_path / "whole", settings=QUICK, part=2, together=2), source(world, "masks")))
    make = Worker.make
    for stop in (0, 3, 5):
        done = 0

        def stopping(self, table, part, told):
            def counted(counts):
                nonlocal done
                if done == stop:  # noqa: B023
                    raise Stop
                done += 1
                told(counts)

            return make(self, table, part, counted)

        monkeypatch.setattr(Worker, "make", stopping)
        job = Job(tmp_path / f"stopped at {stop}", settings=QUICK, part=2, together=2)
        with pytest.raises(Stop):
            run(job, source(world, "masks"))
        monkeypatch.setattr(Worker, "make", make)
        assert len(RegionTable.open(job.out)) == 2 * (stop - stop % 2)
        assert rows_of(run(job, source(world, "masks"))) == whole


def test_a_part_that_is_killed_before_it_is_whole_is_made_again(world, tmp_path, monkeypatch):
    job = Job(tmp_path, settings=QUICK, part=2)
    monkeypatch.setattr(RegionTable, "_batches", lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        run(job, source(world, "masks"))
    monkeypatch.undo()
    assert not list((tmp_path / "regions").glob("*")) and len(run(job, source(world, "masks"))) == 2 * COUNT


def test_what_is_done_is_not_done_again(world, tmp_path, capsys):
    job = Job(tmp_path, settings=QUICK, part=4)
    changed = [path.stat().st_mtime_ns for path in run(job, source(world, "masks")).parts()]
    assert [path.stat().st_mtime_ns for path in run(job, source(world, "masks")).parts()] == changed
    assert f"0 pictures in 0 s, {COUNT} were done before" in capsys.readouterr().out


def test_a_source_that_grows_adds_what_is_new(world, tmp_path):
    few = tmp_path / "few"
    for seed in (1, 3):
        picture(few / f"{seed}.png", seed)
    job = Job(tmp_path / "table", settings=QUICK, part=2)
    first = rows_of(run(job, MaskFiles(str(few), str(world / "masks"))))
    for seed in (0, 5):
        picture(few / f"{seed}.png", seed)
    then = rows_of(run(job, MaskFiles(str(few), str(world / "masks"))))
    assert len(first) == 4 and sorted(row["id"] for row in then) == sorted({row["id"] for row in then}) and len(then) == 8
    assert [row for row in then if row["picture"] in ("1.png", "3.png")] == first


def test_a_table_of_other_settings_or_of_another_model_stays_as_it_is(world, tmp_path):
    job = Job(tmp_path, settings=QUICK)
    before = rows_of(run(job, source(world, "masks")))
    with pytest.raises(mi.InputError, match=r"iterations 2, not 3: tokens of both cannot be compared"):
        run(Job(tmp_path, settings=InversionSettings(iterations=3)), source(world, "masks"))
    with pytest.raises(mi.InputError, match=r"the model bundled \(\w+\), not ViT-S-32/random"):
        run(Job(tmp_path, "ViT-S-32/random", settings=QUICK), source(world, "masks"))
    with pytest.raises(mi.InputError, match="is of other pictures"):
        run(job, source(world, "labels"))
    with locked(tmp_path), pytest.raises(mi.InputError, match=rf"another run \(process {os.getpid()}\) is writing"):
        run(job, source(world, "masks"))
    assert rows_of(RegionTable.open(tmp_path)) == before


def test_moved_pictures(world, tmp_path):
    job = Job(tmp_path / "table", settings=QUICK)
    run(job, source(world, "masks"))
    os.symlink(world / "pictures", tmp_path / "elsewhere")
    elsewhere = MaskFiles(str(tmp_path / "elsewhere"), str(world / "masks"))
    assert len(run(job, elsewhere, moved=True)) == 2 * COUNT and RegionTable.open(job.out).source["pictures"] == elsewhere.pictures


def reject(world: Path, folder: Path, **changes) -> tuple[RegionTable, str]:
    """The table of a copy of the COCO world after some of its files were changed, and the reasons of its rejects in one text."""
    pictures = folder / "pictures"
    for path in (world / "pictures").rglob("*.png"):
        own = pictures / path.relative_to(world / "pictures")
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_bytes(path.read_bytes())
    content = json.loads((world / "coco.json").read_text())
    for name, change in changes.items():
        if name == "content":
            change(content)
        else:
            change(pictures / f"{name[1:]}.png")
    (folder / "coco.json").write_text(json.dumps(content))
    table = run(Job(folder / "table", settings=QUICK), CocoInstances(str(folder / "coco.json"), str(pictures)))
    found = table.read_rejects().to_pylist()
    return table, "\n".join(f"{one['picture']}, {one['annotation']}: {one['reason']}" for one in found)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def cut_jpeg(path: Path) -> None:
    file = io.BytesIO()
    Image.open(path).save(file, "JPEG")
    path.write_bytes(file.getvalue()[: len(file.getvalue()) // 2])


def annotation(index: int, **changes):
    return lambda content: content["annotations"][index].update(changes)


@pytest.mark.parametrize(
    ("changes", "left", "said"),
    [
        ({"_1": cut}, 10, r"^1.png, None: .*1\.png is not a picture that can be read"),
        ({"_1": cut_jpeg}, 10, r"^1.png, None: .*1\.png is not a picture that can be read \(image file is truncated"),
        ({"_1": lambda path: path.write_bytes(b"")}, 10, r"^1.png, None: .*1\.png is not .* it is empty$"),
        ({"_1": Path.unlink}, 10, r"^1.png, None: there is no file .*1\.png"),
        ({"_1": lambda path: Image.new("RGB", (W, W)).save(path)}, 10, "^1.png, None: .* the annotations say 60 and 40"),
        ({"_1": lambda path: Image.new("RGB", (2 * W, 2 * H)).save(path)}, 12, "^$"),
        ({"content": annotation(3, segmentation={"size": [W, H], "counts": [H * W]})}, 11, "height and width are swapped"),
        ({"content": annotation(3, segmentation={"size": [H, W], "counts": [0, 10]})}, 11, "^1.png, 3: .* cut off or damaged"),
        ({"content": annotation(3, segmentation={"size": [H, W], "counts": [H * W]})}, 11, r"^1.png, 3: the mask is empty"),
        ({"content": annotation(3, segmentation=7)}, 11, "^1.png, 3: .* neither polygons nor run lengths"),
        ({"content": annotation(3, category_id=9)}, 11, "^1.png, 3: .* of category 9, which is not among"),
        ({"content": annotation(3, image_id=99)}, 11, "^image 99, 3: there is no image 99"),
        ({"content": annotation(3, id=2)}, 11, "^1.png, 2: there are several regions called 2"),
        ({"content": lambda content: content["images"][1].pop("height")}, 10, "^image 1, None: .* has no 'height'"),
        ({"content": lambda content: content["images"][1].update(file_name="0.png")}, 10, "^image 1, .* another image has named"),
        ({"content": annotation(3, segmentation=[])}, 11, "^1.png, 3: annotation 3 has no segmentation$"),
        ({"content": annotation(3, iscrowd="0")}, 11, "^1.png, 3: the iscrowd of annotation 3 is '0'; it must be 0 or 1"),
        ({"content": annotation(3, image_id="1")}, 11, "^image 1, 3: there is no image '1' in"),
        ({"content": lambda content: [one.pop("id") for one in content["annotations"]]}, 12, "^$"),
        ({"content": lambda content: content["images"][2].update(file_name="in here\\2.png")}, 12, "^$"),
        ({"content": lambda content: content["annotations"].insert(0, 5)}, 12, "^image None, .*: annotation 5 is damaged"),
    ],
)
def test_what_cannot_be_read_is_named_and_costs_nothing_else(changes, left, said, world, tmp_path):
    table, reasons = reject(world, tmp_path, **changes)
    assert len(table) == left
    assert pytest.importorskip("re").search(said, reasons), reasons


def test_a_file_without_masks_says_so(world, tmp_path):
    content = json.loads((world / "coco.json").read_text())
    for words, change in (
        ("annotation 0 has no segmentation", {"segmentation": [], "bbox": [0, 0, 5, 5]}),
        ("panoptic segments are not read here", {"segmentation": None, "segments_info": []}),
    ):
        changed = [one | change for one in content["annotations"]]
        (tmp_path / "coco.json").write_text(json.dumps(content | {"annotations": changed}))
        with pytest.raises(mi.InputError, match=words):
            run(Job(tmp_path / "table", settings=QUICK), CocoInstances(str(tmp_path / "coco.json"), str(world / "pictures")))


def test_masks_may_be_in_the_folder_of_the_pictures_if_they_have_their_own(world, tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(world / "pictures", pictures)
    shutil.copytree(world / "masks", pictures / "masks")
    table = run(Job(tmp_path / "inside", settings=QUICK), MaskFiles(str(pictures), str(pictures / "masks")))
    assert len(table) == 2 * COUNT and table.read_rejects().num_rows == 0
    shutil.copytree(world / "masks", tmp_path / "masks")
    shutil.copytree(world / "pictures", tmp_path / "masks" / "pictures")
    table = run(Job(tmp_path / "around", settings=QUICK), MaskFiles(str(tmp_path / "masks" / "pictures"), str(tmp_path / "masks")))
    assert len(table) == 2 * COUNT and table.read_rejects().num_rows == 0
    for kind, one in (("masks", MaskFiles), ("labels", LabelMaps)):
        with pytest.raises(mi.InputError, match=f"it is not clear which is which: put the {kind} into a folder of their own"):
            run(Job(tmp_path / "same", settings=QUICK), one(str(pictures), str(tmp_path / "masks" / ".." / "pictures")))


def test_a_mask_of_another_size_costs_only_itself(world, tmp_path):
    shutil.copytree(world / "masks", tmp_path / "masks")
    Image.new("L", (90, 10), 255).save(tmp_path / "masks" / "1_0.png")
    table = run(Job(tmp_path / "table", settings=QUICK), MaskFiles(str(world / "pictures"), str(tmp_path / "masks")))
    (found,) = table.read_rejects().to_pylist()
    assert found["picture"] == "1.png" and found["annotation"] == "1_0.png"
    assert found["reason"].endswith(f"1_0.png is 90 x 10 px and its picture {W} x {H} px"), found
    assert len(table) == 2 * COUNT - 1 and table.read(["picture"])["picture"].to_pylist().count("1.png") == 1


def test_parts_with_rejects_are_made_again_when_asked(world, tmp_path):
    table, _ = reject(world, tmp_path, _1=Path.unlink)
    picture(tmp_path / "pictures" / "1.png", 1)
    job = Job(tmp_path / "table", settings=QUICK)
    pictures = CocoInstances(str(tmp_path / "coco.json"), str(tmp_path / "pictures"))
    assert len(run(job, pictures)) == 10
    assert len(run(job, pictures, retry=True)) == 12 and RegionTable.open(table.folder).read_rejects().num_rows == 0


def test_a_folder_that_is_not_mounted_is_no_table_of_rejects(world, tmp_path):
    with pytest.raises(mi.InputError, match=r"none of the first 6 pictures is there, such as 0\.png"):
        run(Job(tmp_path, settings=QUICK), CocoInstances(str(world / "coco.json"), str(tmp_path / "not here")))
    assert not list(tmp_path.rglob("*.parquet"))
    assert len(run(Job(tmp_path, settings=QUICK), CocoInstances(str(world / "coco.json"), str(world / "pictures")))) == 12


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_keeps_what_was_finished(world, tmp_path):
    import resource

    job = Job(tmp_path, settings=QUICK, part=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run(Job(tmp_path, settings=QUICK, part=2), source(world, "masks"))
    whole = rows_of(RegionTable.open(tmp_path))
    for path in RegionTable.open(tmp_path).parts()[1:]:
        path.unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(mi.InputError, match=r"could not be written \(File too large\): what was finished before is kept"):
            run(job, source(world, "masks"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert rows_of(RegionTable.open(tmp_path)) == whole[:4] and not list((tmp_path / "unfinished").iterdir())
    assert rows_of(run(job, source(world, "masks"))) == whole


def hostile(path: Path, *members: tuple[str, bytes], links: tuple[str, ...] = ()) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for name in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(entry)


def test_nothing_of_a_shard_is_written_to_the_disk(world, tmp_path):
    image, mask = (world / "pictures" / "1.png").read_bytes(), (world / "masks" / "1_0.png").read_bytes()
    target = tmp_path / "written"
    members = [(f"{target}/x.png", image), (f"{target}/x.mask.png", mask), ("../../y.png", image), ("../../y.mask.png", mask)]
    hostile(tmp_path / "shards" / "a.tar", *members, ("z.mask.png", mask), ("w.png", b""), links=("v.png", "u.mask.png"))
    before = sorted(tmp_path.rglob("*"))
    table = run(Job(tmp_path / "table", settings=QUICK), Shards(str(tmp_path / "shards")))
    assert [row["picture"] for row in rows_of(table)] == [f"a.tar/{target}/x.png", "a.tar/../../y.png"]
    reasons = {row["picture"]: row["reason"] for row in table.read_rejects().to_pylist()}
    assert "and no picture" in reasons["a.tar/z"] and "it is empty" in reasons["a.tar/w.png"] and len(reasons) == 2
    assert [path for path in sorted(tmp_path.rglob("*")) if tmp_path / "table" not in (path, *path.parents)] == before


@pytest.mark.parametrize("keep", [0.3, 0.55, 0.9])
def test_a_shard_that_is_cut_off_gives_what_is_there(keep, world, tmp_path):
    (tmp_path / "shards").mkdir()
    for name in ("a.tar", "b.tar"):
        content = (world / "shards" / name).read_bytes()
        (tmp_path / "shards" / name).write_bytes(content if name == "b.tar" else content[: int(keep * len(content))])
    table = run(Job(tmp_path / "table", settings=QUICK), Shards(str(tmp_path / "shards")))
    assert 6 <= len(table) <= 12 and (len(table) == 12) == (not table.read_rejects().num_rows)


def test_ahead_keeps_the_order_and_holds_few():
    asked = []

    def given():
        for number in range(20):
            asked.append(number)
            yield number

    for got, number in enumerate(ahead(lambda number: -number, given(), threads=3, most=4)):
        assert number == -got and len(asked) <= got + 6


def test_the_command(world, tmp_path, capsys):
    given = ["--pictures", str(world / "pictures"), "--masks", str(world / "masks"), "--preset", "published", "--iterations", "2"]
    assert main(["embed", *given, "--out", str(tmp_path), "--numbers", "float16"]) == 0
    assert f"{2 * COUNT} regions in 1 parts" in capsys.readouterr().out
    assert RegionTable.open(tmp_path).made.settings["iterations"] == 2 and RegionTable.open(tmp_path).made.numbers == "float16"
    assert main(["embed", *given, "--out", str(tmp_path)]) == 1
    assert "was made with numbers of float16, not float32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--pictures a", "give the pictures and their masks in one of the ways of maskinversion embed --help, not --pictures"),
        ("--coco a --masks b", "not --coco --masks"),
        ("--shards nowhere", "there is no folder"),
        ("--shards . --workers 0", "--workers is 0"),
        ("--pictures a --segmenter nowhere", "there is no folder"),
        ("--shards . --numbers float8", "invalid choice"),
    ],
)
def test_bad_arguments(line, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["embed", *line.split(), "--out", str(tmp_path / "out")]) == 1
    assert said in capsys.readouterr().err
