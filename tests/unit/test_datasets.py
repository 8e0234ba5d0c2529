"""Files of data sets: the formats as published, and damaged ones, which are refused by the name of the file and the annotation."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import maskinversion as mi
from maskinversion.datasets.coco import read_coco
from maskinversion.datasets.phrasecut import read_phrasecut
from maskinversion.datasets.reading import read_json
from maskinversion.datasets.refcoco import read_refcoco
from maskinversion.datasets.shapes import LARGEST, decode, uncompressed
from maskinversion.evaluation import report as report_module
from maskinversion.evaluation.run import evaluate
from maskinversion.evaluation.settings import Settings
from maskinversion.lock import NAME, locked

runs = pytest.importorskip("pycocotools.mask")

H, W = 10, 20
TRIANGLE = [2.0, 1.0, 9.0, 1.0, 9.0, 8.0]
EXIF_ORIENTATION = 0x0112


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def coco(tmp_path: Path, segmentation: object, **image: object) -> Path:
    """One picture of 20 x 10 px with one good annotation (70) and one with this segmentation (71)."""
    content = {
        "images": [{"id": 7, "file_name": "7.png", "height": H, "width": W} | image],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": 70, "image_id": 7, "category_id": 1, "segmentation": [TRIANGLE]},
            {"id": 71, "image_id": 7, "category_id": 1, "segmentation": segmentation},
        ],
    }
    Image.new("RGB", (W, H), "red").save(tmp_path / "7.png")
    return written(tmp_path / "instances.json", content)


def run_lengths(counts: object, size: object = (H, W)) -> dict:
    return {"counts": counts, "size": list(size) if isinstance(size, tuple) else size}


# What came to the C library as it was, and ended the process, read memory that was never written, or raised whatever it liked.
DAMAGED = {
    "runs end early": (run_lengths([0, 10]), "run lengths for 10 pixels, and its picture has 200"),
    "runs beyond the picture": (run_lengths([100, 101]), "run lengths for 201 pixels"),
    "no runs": (run_lengths([]), "run lengths for 0 pixels"),
    "a negative run": (run_lengths([210, -10]), "a run of -10 pixels"),
    "a run of 2^40": (run_lengths([2**40]), "a run of 1099511627776 pixels"),
    "runs whose sum overflows": (run_lengths([2**62] * 4 + [200]), "a run of 4611686018427387904 pixels"),
    "a run of 10^30": (run_lengths([10**30, 200]), "not whole numbers"),
    "a run and a half": (run_lengths([100.5, 99.5]), "not whole numbers"),
    "a run that is NaN": (run_lengths([math.nan, 200]), "not whole numbers"),
    "an infinite run": (run_lengths([math.inf]), "a run of inf pixels"),
    "runs in words": (run_lengths(["200"]), "not whole numbers"),
    "runs of truths": (run_lengths([True] * 200), "not whole numbers"),
    "runs in lists": (run_lengths([[200]]), "not whole numbers"),
    "runs that are a number": (run_lengths(200), "not whole numbers"),
    "runs that are nothing": (run_lengths(None), "not whole numbers"),
    "height and width swapped": (run_lengths([200], (W, H)), "height and width are swapped"),
    "another size": (run_lengths([50], (5, 10)), "a picture 10 px wide and 5 px high, and its picture is 20 px wide"),
    "a huge size": (run_lengths([2**60], (2**30, 2**30)), "a picture 1073741824 px wide"),
    "a negative size": (run_lengths([200], (-10, -20)), "a picture -20 px wide"),
    "a size of 10^30": (run_lengths([200], (10**30, 20)), "a picture 20 px wide"),
    "a size in words": (run_lengths([200], ("10", "20")), "it must be"),
    "a size of three": (run_lengths([200], (10, 20, 1)), "it must be"),
    "a size that is NaN": (run_lengths([200], (math.nan, 20)), "it must be"),
    "a size that is nothing": (run_lengths([200], None), "it must be"),
    "no size": ({"counts": [200]}, "neither polygons nor run lengths"),
    "no counts": ({"size": [H, W]}, "neither polygons nor run lengths"),
    "text that ends early": (run_lengths("04"), "run lengths for 4 pixels"),
    "text that is cut off": (run_lengths("0X"), "cut off"),
    "text without an end": (run_lengths("o" * 10_000), "damaged"),
    "text of other letters": (run_lengths("caf\u00e9 \u4f60"), "damaged"),
    "text of negative runs": (run_lengths("0O"), "a run of -1 pixels"),
    "no text": (run_lengths(""), "run lengths for 0 pixels"),
    "an infinite polygon": ([[0, 0, math.inf, 0, 5, 5]], "far outside of its picture"),
    "a polygon that is NaN": ([[0, 0, math.nan, 0, 5, 5]], "far outside of its picture"),
    "a polygon of 1e300": ([[0, 0, 1e300, 0, 5, 5]], "far outside of its picture"),
    "a polygon of 2^40": ([[0, 0, 5, 2**40, 5, 5]], "far outside of its picture"),
    "a polygon of 10^30": ([[0, 0, 10**30, 0, 5, 5]], "x, y, x, y"),
    "a polygon far away": ([[0, 0, 19, 0, 19, 21]], "numbers from 0 to 21, far outside of its picture of 20 x 10 px"),
    "a polygon far before": ([[0, -11, 19, 0, 19, 2]], "far outside of its picture"),
    "a polygon in words": ([["0", "0", "5", "0", "5", "5"]], "x, y, x, y"),
    "one word in a polygon": ([[0, 0, 5, "0", 5, 5]], "x, y, x, y"),
    "a hole in a polygon": ([[0, 0, 5, None, 5, 5]], "x, y, x, y"),
    "a polygon of truths": ([[True, False, True, True, False, True]], "x, y, x, y"),
    "a polygon of points": ([[[0, 0], [5, 0], [5, 5]]], "x, y, x, y"),
    "a polygon without its last y": ([[0, 0, 5, 0, 5, 5, 3]], "x, y, x, y"),
    "a polygon that is no list of polygons": ([0, 0, 5, 0, 5, 5], "x, y, x, y"),
    "a box": ([2, 1, 4, 4], "x, y, x, y"),
    "one good polygon of two": ([TRIANGLE, [0, 0, math.inf, 0, 5, 5]], "far outside of its picture"),
    "polygons in a dictionary": ([{"x": 1}], "x, y, x, y"),
    "a word": ("polygon", "neither polygons nor run lengths"),
    "a number": (3, "neither polygons nor run lengths"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_shape_is_refused_by_its_file_and_annotation(tmp_path, kind):
    segmentation, message = DAMAGED[kind]
    path = coco(tmp_path, segmentation)
    dataset = read_coco(path, tmp_path)
    for use in (dataset.check, lambda: dataset.samples[0].masks((H, W))):
        with pytest.raises(mi.InputError) as caught:
            use()
        words = str(caught.value)
        assert message in words and f"annotation 71 of {path}" in words and "\n" not in words and len(words) < 500


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_as_coco_has_them(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    wanted = np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8)
    if seed % 2:  # long runs, and several that are much shorter than the last but one
        wanted = np.asfortranarray(np.repeat(wanted, 50, 0))
    size = wanted.shape
    found = runs.encode(wanted)
    flat = wanted.ravel("F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    plain = [0, *counts] if flat[0] else counts
    assert uncompressed(found["counts"], "") == plain
    for shape in (plain, [float(count) for count in plain], found["counts"], found["counts"].decode()):
        assert np.array_equal(decode(run_lengths(shape, [float(side) for side in size]), size), wanted)


@pytest.mark.parametrize(
    "polygons",
    [[TRIANGLE], [[2, 1, 9, 1, 9, 8], [11, 3, 15, 3, 15, 7, 11, 7]], [[-3, -2, 25, -2, 25, 12, -3, 12]],
     [[0, 0, 19.99, 0, 19.99, 9.99, 0, 9.99]], [[1, 2, 3, 4], TRIANGLE]],
    ids=str,
)  # fmt: skip
def test_polygons_are_filled_as_coco_does(polygons):
    whole = [polygon for polygon in polygons if len(polygon) >= 6]
    expected = runs.decode(runs.merge(runs.frPyObjects(whole, H, W)))
    assert np.array_equal(decode(polygons, (H, W)), expected) and expected.any()


def test_no_polygon_in_range_ends_the_process():
    """In a process of its own, since what is tried would end this one."""
    code = (
        "import numpy as np\nfrom maskinversion.datasets.shapes import decode\nrng = np.random.default_rng(0)\n"
        "for _ in range(3000):\n"
        "    h, w = (int(n) for n in rng.integers(1, 50, 2))\n"
        "    points = rng.uniform(-1, 2, (rng.integers(3, 9), 2)) * (w, h)\n"
        "    points = points.round() if rng.random() < 0.5 else points\n"
        "    assert decode([points.ravel().tolist()], (h, w)).shape == (h, w)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


CATEGORY = {"id": 1, "name": "cat"}
IMAGE = {"id": 7, "file_name": "7.png", "height": H, "width": W}
ANNOTATION = {"id": 71, "image_id": 7, "category_id": 1, "segmentation": [TRIANGLE]}


@pytest.mark.parametrize(
    ("where", "entry", "message"),
    [
        ("categories", CATEGORY | {"name": 3}, "the name of category 1 of .* is 3; it must be a text"),
        ("categories", CATEGORY | {"name": ["cat"]}, "the name of category 1 of .*; it must be a text"),
        ("categories", CATEGORY | {"name": None}, "the name of category 1 of .* is None"),
        ("categories", CATEGORY | {"name": " "}, "the name of category 1 of .*; it must be a text"),
        ("categories", {"id": 1}, "category 1 of .* has no 'name'"),
        ("categories", {"id": [1], "name": "cat"}, r"category \[1\] of .* is damaged"),
        ("categories", "cat", "category 'cat' of .* is damaged"),
        ("images", IMAGE | {"height": 2**40}, "image 7 of .* is 20 px wide and 1099511627776 px high"),
        ("images", IMAGE | {"height": 10**30}, "image 7 of .* no picture can be"),
        ("images", IMAGE | {"height": 2**14 + 1, "width": LARGEST // 2**14}, "image 7 of .* no picture can be"),
        ("images", IMAGE | {"height": -10}, "image 7 of .* and -10 px high"),
        ("images", IMAGE | {"height": 0}, "image 7 of .* and 0 px high"),
        ("images", IMAGE | {"height": "10"}, "image 7 of .* and '10' px high"),
        ("images", IMAGE | {"height": 10.5}, "image 7 of .* no picture can be"),
        ("images", IMAGE | {"height": math.nan}, "image 7 of .* no picture can be"),
        ("images", IMAGE | {"height": True}, "image 7 of .* no picture can be"),
        ("images", IMAGE | {"height": None}, "image 7 of .* no picture can be"),
        ("images", {"id": 7, "file_name": "7.png", "width": W}, "image 7 of .* has no 'height'"),
        ("images", {"id": 7, "height": H, "width": W}, "image 7 of .* has no 'file_name'"),
        ("images", IMAGE | {"file_name": 7}, "the file_name of image 7 of .* is 7; it must be a text"),
        ("images", {"id": 7, "height": H, "width": W, "coco_url": 3}, "the coco_url of image 7 of .* is 3; it must be a text"),
        ("images", IMAGE | {"id": {}}, r"image \{\} of .* is damaged"),
        ("images", 7, "image 7 of .* is damaged"),
        ("annotations", ANNOTATION | {"category_id": 2}, "annotation 71 of .* is of category 2, which is not among"),
        ("annotations", ANNOTATION | {"category_id": []}, "annotation 71 of .* is damaged"),
        ("annotations", ANNOTATION | {"image_id": []}, "annotation 71 of .* is damaged"),
        ("annotations", {"id": 71, "category_id": 1, "segmentation": [TRIANGLE]}, "annotation 71 of .* has no 'image_id'"),
        ("annotations", ANNOTATION | {"iscrowd": "0"}, "the iscrowd of annotation 71 of .* is '0'; it must be 0 or 1"),
        ("annotations", ANNOTATION | {"segmentation": []}, "no picture with a region: .* crowds, or boxes without a segmentation"),
        ("annotations", ANNOTATION | {"image_id": "7"}, "no picture with a region: .* of image '7', say, which is not among"),
        ("annotations", [71], r"annotation \[71\] of .* is damaged"),
    ],
)  # fmt: skip
def test_damaged_instances_are_refused_by_the_name_of_the_entry(tmp_path, where, entry, message):
    content = {"images": [IMAGE], "categories": [CATEGORY], "annotations": [ANNOTATION]} | {where: [entry]}
    path = written(tmp_path / "instances.json", content)
    with pytest.raises(mi.InputError, match=message):
        read_coco(path, tmp_path)
    if where == "images":
        with pytest.raises(mi.InputError, match=message):
            read_refcoco(written(tmp_path / "refs.json", [ref(71)]), path, tmp_path)


def test_file_names_that_were_written_on_windows_are_found(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "7.png").touch()
    content = {"images": [IMAGE | {"file_name": "train\\7.png"}], "categories": [CATEGORY], "annotations": [ANNOTATION]}
    (sample,) = read_coco(written(tmp_path / "instances.json", content), tmp_path).samples
    assert sample.image.is_file()


def test_two_images_of_one_id_are_refused(tmp_path):
    content = {"images": [IMAGE, IMAGE], "categories": [CATEGORY], "annotations": [ANNOTATION]}
    with pytest.raises(mi.InputError, match="several images with the id '7'"):
        read_coco(written(tmp_path / "instances.json", content), tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_ignored(tmp_path, encoding):
    path = tmp_path / "instances.json"
    content = {"images": [IMAGE], "categories": [{"id": 1, "name": "caf\u00e9"}], "annotations": [ANNOTATION]}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    assert read_coco(path, tmp_path).classes == ["caf\u00e9"]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe\xfd", b"9" * 5000, b"\0"])
def test_what_is_no_json_is_said(tmp_path, content):
    path = tmp_path / "instances.json"
    path.write_bytes(content)
    with pytest.raises(mi.InputError, match=r"instances\.json could not be read as JSON"):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "instances.json")
    with pytest.raises(mi.InputError, match=r"there is no file .*instances\.json: it is a pipe"):
        read_coco(tmp_path / "instances.json", tmp_path)


# Pictures


@pytest.mark.parametrize(
    ("size", "orientation", "message"),
    [
        ((W, H), 1, None),
        ((H, W), 6, None),  # stored on its side: upright it is as the annotations say
        ((W, H), 6, None),  # stored as they say
        ((2 * W, 2 * H), 1, None),  # a copy at another scale
        ((H, W), 1, "is 10 px wide and 20 px high, and the annotations say 20 and 10: height and width are swapped"),
        ((W + 1, H), 1, "is 21 px wide and 10 px high, and the annotations say 20 and 10"),
        ((W - 1, H), 1, "is 19 px wide"),
        ((2 * W, H), 1, "is 40 px wide"),
        ((2 * W, 3 * H), 1, "is 40 px wide and 30 px high"),
        ((2 * H, 2 * W), 1, "is 20 px wide and 40 px high"),
    ],
)
def test_the_picture_has_the_size_that_the_annotations_say(tmp_path, size, orientation, message):
    path = coco(tmp_path, [TRIANGLE])
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.new("RGB", size).save(tmp_path / "7.png", exif=exif)
    (sample,) = read_coco(path, tmp_path).samples
    if message is None:
        assert sample.open().size == (size if size == (2 * W, 2 * H) else (W, H))
        return
    with pytest.raises(mi.InputError, match=rf"7\.png {message}"):
        sample.open()


def several(tmp_path: Path, there: tuple[int, ...]) -> Path:
    """Five annotated pictures, of which these are there."""
    content = {
        "images": [IMAGE | {"id": key, "file_name": f"{key}.png"} for key in range(5)],
        "categories": [CATEGORY],
        "annotations": [ANNOTATION | {"id": key, "image_id": key} for key in range(5)],
    }
    for key in there:
        Image.new("RGB", (W, H), (50 * key, 90, 10)).save(tmp_path / f"{key}.png")
    return written(tmp_path / "instances.json", content)


def settings(tmp_path: Path, **changes: object) -> Settings:
    given = dict(dataset="coco", annotations=tmp_path / "instances.json", images=tmp_path, out=tmp_path / "out", device="cpu",
                 methods=("global",))  # fmt: skip
    return Settings(**(given | changes))


def test_missing_pictures_are_named_before_the_work_begins_or_left_out_and_counted(tmp_path):
    several(tmp_path, there=(0, 2))
    with pytest.raises(mi.InputError, match=r"no file .*1\.png, .*\(3 of 5 pictures are missing\).*--skip-missing"):
        evaluate(settings(tmp_path))
    assert not (tmp_path / "out").exists()
    found = evaluate(settings(tmp_path, skip_missing=True))
    assert found["missing_pictures"] == 3 and found["pictures"] == 2
    assert "; left out: 3 missing pictures. Percent" in (tmp_path / "out" / "report.md").read_text()
    assert evaluate(settings(tmp_path, skip_missing=True, limit=2))["pictures"] == 2  # of those that are there
    for key in (1, 3, 4):
        Image.new("RGB", (W, H)).save(tmp_path / f"{key}.png")
    found = evaluate(settings(tmp_path, skip_missing=True))
    assert found["missing_pictures"] == 0 and found["pictures"] == 5
    assert "left out" not in (tmp_path / "out" / "report.md").read_text()


def test_no_picture_at_all_is_said(tmp_path):
    several(tmp_path, there=())
    with pytest.raises(mi.InputError, match=r"none of the 5 pictures is there.*right folder"):
        evaluate(settings(tmp_path, skip_missing=True))


def test_a_damaged_shape_is_found_before_the_work_begins(tmp_path):
    coco(tmp_path, [[0, 0, math.inf, 0, 5, 5]])
    with pytest.raises(mi.InputError, match=r"annotation 71 of .*instances\.json"):
        evaluate(settings(tmp_path))
    assert not (tmp_path / "out").exists()


# LVIS


@pytest.mark.parametrize("place", ["train2017", "."])
def test_lvis(tmp_path, place):
    content = {
        "images": [{"id": 391895, "height": H, "width": W, "not_exhaustive_category_ids": [], "neg_category_ids": [2],
                    "coco_url": "http://images.cocodataset.org/train2017/000000391895.jpg"}],
        "categories": [{"id": 1, "name": "street_sign", "synset": "street_sign.n.01", "synonyms": ["street_sign"]}],
        "annotations": [{"id": 1, "image_id": 391895, "category_id": 1, "bbox": [2, 1, 7, 7], "segmentation": [TRIANGLE]},
                        {"id": 2, "image_id": 391895, "category_id": 1, "segmentation": run_lengths([20, 15, 165])}],
    }  # fmt: skip
    (tmp_path / place).mkdir(exist_ok=True)
    Image.new("RGB", (W, H)).save(tmp_path / place / "000000391895.jpg")
    dataset = read_coco(written(tmp_path / "lvis_v1_train.json", content), tmp_path)
    (sample,) = dataset.samples
    assert dataset.classes == ["street sign"] and sample.open().size == (W, H) and not dataset.missing
    masks = sample.masks((H, W))
    assert np.array_equal(masks[0], decode([TRIANGLE], (H, W))) and masks[1].sum() == 15 and masks[1, :, 2].all()


# Panoptic


def panoptic(tmp_path: Path, numbers: np.ndarray, folder: str = "panoptic_val2017", **changes: object) -> Path:
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], 2).astype(np.uint8)
    (tmp_path / folder).mkdir()
    Image.fromarray(colours).save(tmp_path / folder / "7.png")
    Image.new("RGB", (W, H)).save(tmp_path / "7.jpg")
    infos = [{"id": 3, "category_id": 1, "iscrowd": 0}, {"id": 5_000_000, "category_id": 200, "iscrowd": 0},
             {"id": 258, "category_id": 1, "iscrowd": 1}]  # fmt: skip
    content = {
        "images": [IMAGE | {"file_name": "7.jpg"}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 200, "name": "rug-merged", "isthing": 0}],
        "annotations": [{"image_id": 7, "file_name": "7.png", "segments_info": infos} | changes],
    }
    return written(tmp_path / "panoptic_val2017.json", content)


def segments() -> np.ndarray:
    numbers = np.zeros((H, W), np.int64)
    numbers[1:4, 2:9], numbers[5:, 10:], numbers[0, :] = 3, 5_000_000, 258
    return numbers


@pytest.mark.parametrize("folder", ["panoptic_val2017", "pngs"])
def test_panoptic_segments(tmp_path, folder):
    numbers = segments()
    path = panoptic(tmp_path, numbers, folder)
    dataset = read_coco(path, tmp_path, None if folder == "panoptic_val2017" else tmp_path / folder)
    (sample,) = dataset.samples
    dataset.check()
    assert dataset.classes == ["cat", "rug-merged"] and [region.texts for region in sample.regions] == [("cat",), ("rug-merged",)]
    masks = sample.masks((H, W)).numpy()
    assert np.array_equal(masks[0], numbers == 3) and np.array_equal(masks[1], numbers == 5_000_000)


def test_panoptic_end_to_end(tmp_path):
    panoptic(tmp_path, segments(), "pngs")
    found = evaluate(settings(tmp_path, annotations=tmp_path / "panoptic_val2017.json", segments=tmp_path / "pngs"))
    assert found["regions"] == 2
    with pytest.raises(mi.InputError, match=r"there is no file .*panoptic_val2017.7\.png"):
        evaluate(settings(tmp_path, annotations=tmp_path / "panoptic_val2017.json"))


@pytest.mark.parametrize(
    ("png", "message"),
    [
        (segments().T, "is 10 px wide and 20 px high, and its picture is 20 px wide and 10 px high"),
        (np.where(segments() == 3, 4, segments()), "has no segment 3 of the annotation of image 7"),
        (None, "not one of COCO's panoptic PNGs"),
    ],
)
def test_a_png_of_other_annotations_is_refused(tmp_path, png, message):
    path = panoptic(tmp_path, segments() if png is None else png)
    if png is None:
        Image.new("L", (W, H), 3).save(tmp_path / "panoptic_val2017" / "7.png")
    with pytest.raises(mi.InputError, match=message):
        read_coco(path, tmp_path).samples[0].masks((H, W))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments_info": [{"id": 0, "category_id": 1}]}, "segment 0 of .* from 1 to 16777215"),
        ({"segments_info": [{"id": 2**24, "category_id": 1}]}, "segment 16777216 of .* from 1 to 16777215"),
        ({"segments_info": [{"id": "3", "category_id": 1}]}, "segment '3' of .* from 1 to 16777215"),
        ({"segments_info": [{"id": 3, "category_id": 9}]}, "segment 3 of .* is of category 9"),
        ({"segments_info": [{"id": 3}]}, "segment 3 of .* has no 'category_id'"),
        ({"segments_info": 3}, "annotation of image 7 in .* is damaged"),
        ({"file_name": None}, "the file_name of the annotation of image 7 .* must be a text"),
    ],
)
def test_damaged_panoptic_annotations_are_refused(tmp_path, changes, message):
    with pytest.raises(mi.InputError, match=message):
        read_coco(panoptic(tmp_path, segments(), **changes), tmp_path)


# Expressions


def ref(*ids: object, key: int = 1, sent: object = "left dog", **changes: object) -> dict:
    """As gRefCOCO has it: lists of annotations."""
    sentences = [{"sent_id": key, "sent": sent, "raw": "", "tokens": []}]
    return {"ref_id": key, "ann_id": list(ids), "category_id": [1], "image_id": 7, "split": "val", "sent_ids": [key],
            "no_target": ids == (-1,), "sentences": sentences} | changes  # fmt: skip


def objects(tmp_path: Path) -> Path:
    square = [10, 2, 15, 2, 15, 6, 10, 6]
    content = {
        "images": [IMAGE],
        "categories": [CATEGORY],
        "annotations": [ANNOTATION, ANNOTATION | {"id": 72, "segmentation": [square]}],
    }
    Image.new("RGB", (W, H)).save(tmp_path / "7.png")
    return written(tmp_path / "instances.json", content)


def test_grefcoco(tmp_path):
    refs = [ref(71), ref(72, 71, key=2, sent="both"), ref(-1, key=3, sent="the car"), ref(71, 72, key=4, sent="the two"),
            ref(71, key=5, split="testA"), ref(-1, key=6, split="testA"), ref(key=7, sent="no list at all")]  # fmt: skip
    path = written(tmp_path / "grefs(unc).json", refs)
    dataset = read_refcoco(path, objects(tmp_path), tmp_path, "val")
    (sample,) = dataset.samples
    assert [region.texts for region in sample.regions] == [("left dog",), ("both", "the two")]
    one, both = sample.masks((H, W)).numpy()
    other = decode([[10, 2, 15, 2, 15, 6, 10, 6]], (H, W))
    assert np.array_equal(one, decode([TRIANGLE], (H, W))) and np.array_equal(both, np.maximum(one, other)) and other.any()
    assert dataset.left_out == {"expressions_of_nothing": 2}
    assert read_refcoco(path, objects(tmp_path), tmp_path, "testA").left_out == {"expressions_of_nothing": 1}
    found = evaluate(settings(tmp_path, dataset="refcoco", refs=path, split="val"))
    assert found["expressions_of_nothing"] == 2 and found["regions"] == 2
    assert "left out: 2 expressions that mean nothing in their picture" in (tmp_path / "out" / "report.md").read_text()


def test_a_damaged_part_of_a_union_is_named(tmp_path):
    path = objects(tmp_path)
    content = json.loads(path.read_text())
    content["annotations"][1]["segmentation"] = [[0, 0, 1e300, 0, 5, 5]]
    dataset = read_refcoco(written(tmp_path / "refs.json", [ref(71, 72)]), written(path, content), tmp_path)
    for use in (dataset.check, lambda: dataset.samples[0].masks((H, W))):
        with pytest.raises(mi.InputError, match=r"annotation 72 of .*instances\.json has a polygon"):
            use()


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ([ref(99)], r"expression 1 of .* means annotation 99, which is not in .*belong together"),
        ([ref(71, 99)], "means annotation 99, which is not in"),
        ([ref([71])], "expression 1 of .* is damaged"),
        ([ref(71, image_id=8)], "means annotation 71 of another picture"),
        ([ref(71, sent=3)], "a sentence of expression 1 of .* is 3; it must be a text"),
        ([ref(71, split=None)], "the split of expression 1 of .* is None"),
        ([ref(71, sentences=None)], "expression 1 of .* is damaged"),
        ([{"ref_id": 1, "split": "val", "sentences": []}], "expression 1 of .* has no 'ann_id'"),
        (["dog"], "expression 'dog' of .* is damaged"),
        ({"refs": []}, "has no list of them"),
        ([ref(-1)], "has no picture with a region"),
    ],
    ids=str,
)
def test_damaged_expressions_are_refused(tmp_path, refs, message):
    with pytest.raises(mi.InputError, match=message):
        read_refcoco(written(tmp_path / "refs.json", refs), objects(tmp_path), tmp_path)


# PhraseCut


def phrases(tmp_path: Path, polygons: object, **changes: object) -> Path:
    Image.new("RGB", (W, H)).save(tmp_path / "9.jpg")
    return written(
        tmp_path / "refer_val.json", [{"task_id": "9__1", "image_id": 9, "phrase": "dogs", "Polygons": polygons} | changes]
    )


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 1e30, 10**30, 2**40, "3", None, [1], 61, -21])
def test_phrasecut_coordinates_that_are_none_are_refused(tmp_path, value):
    path = phrases(tmp_path, [[[[0, 0], [5, 0], [value, 5]]]])
    with pytest.raises(mi.InputError, match=r"task '9__1' of .*refer_val\.json has a polygon"):
        read_phrasecut(path, tmp_path).samples[0].masks((H, W))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Polygons": [[[[0, 0, 0]]]]}, "not a list of points"),
        ({"Polygons": [[[0, 0, 5, 5]]]}, "not a list of points"),
        ({"Polygons": [["words"]]}, "not a list of points"),
        ({"Polygons": [[3]]}, "not a list of points"),
        ({"Polygons": 3}, "task '9__1' of .* is damaged"),
        ({"Polygons": None}, "task '9__1' of .* is damaged"),
        ({"phrase": None}, "the phrase of task '9__1' .* must be a text"),
        ({"image_id": []}, "task '9__1' of .* is damaged"),
    ],
    ids=str,
)
def test_damaged_phrases_are_refused(tmp_path, changes, message):
    with pytest.raises(mi.InputError, match=message):
        read_phrasecut(phrases(tmp_path, [[[[0, 0], [5, 0], [5, 5]]]], **changes), tmp_path)


@pytest.mark.parametrize("content", [{"Polygons": []}, 3, None, ["task"]])
def test_what_is_not_phrasecuts_is_said(tmp_path, content):
    with pytest.raises(mi.InputError, match=r"refer_val\.json is (not PhraseCut's|damaged)"):
        read_phrasecut(written(tmp_path / "refer_val.json", content), tmp_path)


# The folder of a run


def test_a_second_run_into_one_folder_is_refused(tmp_path):
    several(tmp_path, there=range(5))
    with locked(tmp_path / "out"):
        with pytest.raises(mi.InputError, match=rf"another run \(process {os.getpid()}\) is writing to .*out: wait"):
            evaluate(settings(tmp_path))
        assert not (tmp_path / "out" / "report.json").exists()
    assert not (tmp_path / "out" / NAME).exists()
    assert evaluate(settings(tmp_path))["pictures"] == 5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.json", "report.md", "report.png", "results"]


def test_another_process_is_refused_and_one_that_was_killed_is_not_waited_for(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom maskinversion.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(mi.InputError, match=rf"process {process.pid}\) is writing"), locked(tmp_path):
                pass
        finally:
            process.kill()
    assert (tmp_path / NAME).exists()  # left by the one that was killed
    with locked(tmp_path):
        assert (tmp_path / NAME).read_text() == f"{os.getpid()}\n"


def test_a_folder_that_cannot_be_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(mi.InputError, match=r"file.out cannot be written to"), locked(tmp_path / "file" / "out"):
        pass


def test_a_report_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    several(tmp_path, there=range(5))
    evaluate(settings(tmp_path))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert Image.open(tmp_path / "out" / "report.png").size[0] > 100 and len(before) == 3

    def stop(figure, path, **_):
        Path(path).write_bytes(b"\x89PNG")
        raise KeyboardInterrupt

    figure = type(report_module.pyplot().figure())
    monkeypatch.setattr(figure, "savefig", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(settings(tmp_path))
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert after == before
