"""PASCAL VOC, PASCAL-Context and Open Images in the layouts in which they are published, and damaged."""

import numpy as np
import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.datasets.open_images import read_open_images
from maskinversion.datasets.pascal import VOC, read_context, read_voc
from tests.helpers import datasets
from tests.helpers.datasets import BOXES, H, W, inside, label_map


def squares(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    found = torch.zeros(len(boxes), H, W)
    for mask, box in zip(found, boxes):
        mask[inside(box)] = 1
    return found


def voc(tmp_path, split=None):
    folder = datasets.voc(tmp_path)
    return read_voc(folder, folder / "JPEGImages", split)


def context(tmp_path, **changes):
    folder = datasets.context(tmp_path)
    return read_context(folder, folder / "JPEGImages", tmp_path / "pascal-context" / "59_context_labels", **changes)


def read_open(folder):
    annotations = folder / "validation-annotations-object-segmentation.csv"
    return read_open_images(annotations, folder / "validation", folder / "masks")


def test_voc(tmp_path):
    dataset = voc(tmp_path)
    dataset.check()
    assert [sample.name for sample in dataset.samples] == ["2007_000033", "2007_000042"] and dataset.name == "VOC2012, val"
    assert dataset.classes == [*VOC] and len(VOC) == 20
    texts = [region.texts for sample in dataset.samples for region in sample.regions]
    assert texts == [("cat",), ("cat",), ("dog",), ("tv monitor",)]
    for sample in dataset.samples:
        assert sample.open().size == (W, H) and torch.equal(sample.masks((H, W)), squares(*BOXES))  # without what is 255
    assert [sample.name for sample in read_voc(tmp_path / "VOCdevkit/VOC2012", tmp_path, "train").samples] == ["2007_000033"]


def test_what_is_in_a_label_map_makes_the_data_set_another(tmp_path):
    before = voc(tmp_path)
    label_map(tmp_path / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png", (8, 9), 255)
    after = read_voc(tmp_path / "VOCdevkit/VOC2012", tmp_path)
    assert before.digest != after.digest and after.samples[0].regions[1].texts == ("chair",)


def test_context(tmp_path):
    dataset = context(tmp_path)
    dataset.check()
    one, other = dataset.samples
    assert [region.texts for region in one.regions] == [("dog",)] and [r.texts for r in other.regions] == [("dog",), ("grass",)]
    both = squares(*BOXES).amax(0)
    assert torch.equal(one.masks((H, W)), both[None]) and torch.equal(other.masks((H, W))[0], both)
    assert other.masks((H, W))[1].sum() == (18**2 - 16**2) + (20**2 - 18**2)  # a pixel around each square
    assert dataset.classes[10] == "dining table" and dataset.classes[-1] == "grass" and len(dataset.classes) == 24


def test_open_images(tmp_path):
    folder = datasets.open_images(tmp_path)
    dataset = read_open(folder)
    assert dataset.classes == ["Cat", "Dog"]  # those that there is a mask of
    for sample in dataset.samples:
        assert [region.texts for region in sample.regions] == [("Cat",), ("Dog",)] and not dataset.missing
        assert torch.equal(sample.masks(sample.open().size[::-1]), squares(*BOXES))
    (folder / "classes-segmentation.txt").write_text("/m/011k07\n/m/0bt9lr\n/m/01yrx\n")
    assert read_open(folder).classes == ["Tortoise", "Dog", "Cat"]


@pytest.mark.parametrize("size", [(H, W), (3 * H, 3 * W), (57, 85), (2 * H + 1, 2 * W)])
def test_a_mask_of_open_images_may_be_at_another_scale(tmp_path, size):
    folder = datasets.open_images(tmp_path)
    sample = read_open(folder).samples[0]
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 255
    Image.fromarray(mask).save(sample.regions[0].shape.path)
    assert torch.equal(sample.masks((H, W))[0], squares((0, 0, W, H // 2))[0])


def test_the_v7_names_have_a_head(tmp_path):
    folder = datasets.open_images(tmp_path)
    names = (folder / "class-descriptions-boxable.csv").read_text()
    (folder / "oidv7-class-descriptions-boxable.csv").write_text("LabelName,DisplayName\n" + names)
    (folder / "class-descriptions-boxable.csv").unlink()
    assert read_open(folder).classes == ["Cat", "Dog"]


def change_voc(path, change):
    folder = path / "VOCdevkit/VOC2012"
    change(folder)
    return read_voc(folder, folder / "JPEGImages")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "ImageSets/Segmentation/val.txt").unlink(), r"there is no file .*Segmentation.val\.txt"),
        (lambda f: (f / "ImageSets/Segmentation/val.txt").write_text("../x\n"), r"val\.txt has '\.\./x', which is not the name"),
        (lambda f: (f / "ImageSets/Segmentation/val.txt").write_text(""), "has no picture with a region"),
        (lambda f: (f / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00"), r"val\.txt could not be read as text"),
        (lambda f: (f / "SegmentationObject/2007_000042.png").unlink(), r"there is no file .*SegmentationObject.2007_000042\.png"),
        (lambda f: (f / "SegmentationObject/2007_000042.png").write_bytes(b"x"), r"2007_000042\.png is not a picture"),
        (lambda f: Image.new("RGB", (W, H)).save(f / "SegmentationObject/2007_000042.png"), "is not a label map"),
        (lambda f: Image.new("P", (W, W)).save(f / "SegmentationClass/2007_000042.png"), "60 px wide and 60 px high"),
        (lambda f: label_map(f / "SegmentationClass/2007_000042.png", (12, 21)), r"object 2 of .*2007_000042\.png is of no class"),
        (lambda f: label_map(f / "SegmentationClass/2007_000042.png", (12, 255)), r"object 2 of .*2007_000042\.png is of no class"),
        (lambda f: label_map(f / "SegmentationClass/2007_000042.png", (0, 12)), r"object 1 of .* where most of it is 0"),
    ],
)  # fmt: skip
def test_a_damaged_voc_is_refused_by_its_file(tmp_path, change, message):
    datasets.voc(tmp_path)
    with pytest.raises(mi.InputError, match=message):
        change_voc(tmp_path, change)


def test_a_picture_of_another_size_than_its_labels_is_refused(tmp_path):
    dataset = voc(tmp_path)
    Image.new("RGB", (W, W)).save(dataset.samples[0].image)
    with pytest.raises(mi.InputError, match=r"2007_000033\.jpg is 60 px wide and 60 px high, and the annotations say 60 and 40"):
        dataset.samples[0].open()


@pytest.mark.parametrize(
    ("lines", "message"),
    [("1: aeroplane\ndog\n", "59_labels.txt has the line 'dog'"), ("1: aeroplane\n", "has the label 12, which .* does not name"),
     ("12: \n", "has the line '12: '")],
)  # fmt: skip
def test_damaged_names_of_context_are_refused(tmp_path, lines, message):
    datasets.context(tmp_path)
    path = tmp_path / "59_labels.txt"
    path.write_text(lines)
    with pytest.raises(mi.InputError, match=message):
        context(tmp_path, names=path)


HEAD = "MaskPath,ImageID,LabelName,BoxID\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column MaskPath, ImageID, LabelName"),
        ("MaskPath,ImageID,Label\n", "has no column LabelName"),
        (HEAD, "has no picture with a region"),
        (HEAD + "a.png,1\n", r"line 2 of .*\.csv is 'a.png,1': it has fewer than 3 cells"),
        (HEAD + "a.png,1,/m/1,0\n", r"line 2 of .*\.csv is of the class '/m/1', which .* does not name"),
        (HEAD + "a.png,,/m/01yrx,0\n", r"the ImageID of line 2 of .*; it must be a text"),
        (HEAD + '"' + "a" * 200_000 + '",1,/m/01yrx,0\n', r"line 2 of .*\.csv is damaged"),
    ],
)  # fmt: skip
def test_damaged_open_images_are_refused_by_the_line(tmp_path, content, message):
    folder = datasets.open_images(tmp_path)
    (folder / "validation-annotations-object-segmentation.csv").write_text(content)
    with pytest.raises(mi.InputError, match=message):
        read_open(folder)


def test_a_mask_of_another_shape_than_its_picture_is_refused(tmp_path):
    sample = read_open(datasets.open_images(tmp_path)).samples[0]
    Image.new("1", (H, W)).save(sample.regions[0].shape.path)
    with pytest.raises(mi.InputError, match=r"has the mask of line 2 of .*40 px wide and 60 px high.* of another shape"):
        sample.masks((H, W))


def test_classes_that_do_not_belong_to_the_masks_are_refused(tmp_path):
    folder = datasets.open_images(tmp_path)
    (folder / "classes-segmentation.txt").write_text("/m/011k07\n/m/0bt9lr\n")
    with pytest.raises(mi.InputError, match="do not belong together: '/m/01yrx' is in one of them only"):
        read_open(folder)


def test_missing_masks_are_counted_as_missing_pictures(tmp_path):
    folder = datasets.open_images(tmp_path)
    next((folder / "masks" / "validation-masks-0").iterdir()).unlink()
    dataset = read_open(folder)
    with pytest.raises(mi.InputError, match=r"there is no file .*\.png, which the annotations name"):
        dataset.check()
    assert [sample.name for sample in dataset.without_missing().samples] == ["b1b2c3d4e5f60718"]
