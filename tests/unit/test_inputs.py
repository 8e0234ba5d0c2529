"""Geometry, accepted inputs, and what people are told when an input cannot be used."""

import numpy as np
import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.compute import memory
from maskinversion.geometry import Geometry, canvas_size
from maskinversion.pictures import as_masks, as_pixels


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop", "aspect"])
@pytest.mark.parametrize("size", [(40, 100), (100, 40), (33, 33), (96, 96), (1, 50)])
def test_a_point_keeps_its_place_there_and_back(fit, size):
    geometry = Geometry(size, canvas_size(size, (96, 96), (8, 8), fit), fit)
    mask = torch.zeros(1, 1, *size)
    mask[..., size[0] // 2 :, size[1] // 2 :] = 1
    seen = geometry.to_model(mask, "bilinear")
    assert seen.shape[-2:] == geometry.model_size
    back = geometry.from_model(seen[0])
    assert back.shape == (1, *size)
    if fit != "crop" and min(size) > 1:
        assert (back - mask[0]).abs().mean() < 0.05


def test_pad_keeps_the_aspect_and_fills_with_the_mean():
    geometry = Geometry((50, 100), (96, 96), "pad")
    seen = geometry.to_model(torch.ones(1, 3, 50, 100), "bicubic", fill=torch.tensor([0.1, 0.2, 0.3])[:, None, None])
    assert torch.allclose(seen[0, :, :24].mean((1, 2)), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(seen[0, :, 24:72], torch.ones(3, 48, 96))


def test_crop_cuts_the_middle():
    ramp = torch.linspace(0, 1, 300).expand(1, 1, 100, 300)
    seen = Geometry((100, 300), (100, 100), "crop").to_model(ramp, "bilinear")
    assert torch.equal(seen, ramp[..., 100:200])


def test_images_of_every_kind_are_the_same_picture():
    array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pixels = [as_pixels(v) for v in (array, Image.fromarray(array), torch.from_numpy(array), torch.from_numpy(array) / 255)]
    assert all(torch.equal(pixels[0], other) for other in pixels[1:]) and pixels[0].shape == (1, 3, 20, 30)


def test_masks_of_every_kind_are_the_same_mask():
    array = np.zeros((20, 30), np.uint8)
    array[5:10] = 255
    kinds = (array, array > 0, array / 255.0, torch.from_numpy(array), Image.fromarray(array), [array], array[None])
    masks = [list(as_masks(v)) for v in kinds]
    assert all(len(m) == 1 and torch.equal(m[0], masks[0][0]) for m in masks)


def test_a_mask_of_another_size_covers_the_image(bundled, scene):
    inverter = mi.MaskInverter(bundled)
    encoded = inverter.encode(scene[0])
    small = torch.nn.functional.interpolate(scene[1][None], scale_factor=0.5, mode="area")[0]
    seen = inverter.masks_for(encoded, [scene[1][0], small[0]])
    assert (seen[0] - seen[1]).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 40, 40), r"shape \(3, 40, 40\).*height x width x 3"),
        (torch.rand(2, 40, 40, 3), "a batch of 2 pictures"),
        (torch.full((40, 40, 3), float("nan")), "NaN"),
        (torch.rand(40, 40, 3) * 255, r"0\.\.1"),
        (torch.zeros(0, 40, 3), "empty"),
        (np.full((40, 40, 3), 300, np.int32), "uint8"),
    ],
    ids=["channels first", "batch", "nan", "range", "no rows", "integers"],
)
def test_bad_images_are_explained(bundled, image, message):
    with pytest.raises(mi.InputError, match=message):
        mi.MaskInverter(bundled).encode(image)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(96, 128), "mask 0 is empty"),
        ([torch.ones(96, 128), torch.zeros(96, 128)], "mask 1 is empty"),
        (torch.full((1, 96, 128), float("nan")), "mask 0 contains NaN"),
        (torch.full((96, 128), 3.0), r"mask 0 has values from 3 to 3"),
        (torch.ones(2, 2, 96, 128), "masks x height x width"),
        ([torch.ones(3, 96, 128)], "mask 0 has shape"),
        ([], "no mask"),
        (np.full((96, 128), 7, np.int64), "ids of a label map, or brightness"),
    ],
    ids=["empty", "second empty", "nan", "range", "4d", "3d in list", "none", "integers"],
)
def test_bad_masks_are_explained_with_their_index(bundled, scene, masks, message):
    inverter = mi.MaskInverter(bundled)
    encoded = inverter.encode(scene[0])
    with pytest.raises(mi.InputError, match=message):
        inverter.invert(encoded, masks)


def test_a_mask_outside_of_the_crop_is_explained(bundled, scene):
    inverter = mi.MaskInverter(bundled, fit="crop")
    mask = torch.zeros(96, 128)
    mask[:, :8] = 1
    with pytest.raises(mi.InputError, match="outside of what the model sees"):
        inverter.invert(inverter.encode(scene[0]), mask)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"iterations": 0}, "iterations is 0"),
        ({"lr": 0.0}, "above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"alpha": -1.0}, "negative"),
        ({"layers": 9}, "has 6 blocks"),
        ({"image_size": 100}, "such as 96"),
        ({"fit": "squeeze"}, "stretch, pad, crop, aspect"),
    ],
    ids=lambda v: str(v),
)
def test_bad_parameters_are_explained(bundled, parameter, message):
    with pytest.raises(mi.InputError, match=message):
        mi.MaskInverter(bundled, **parameter)


def test_pictures_and_their_masks_may_be_in_any_row(bundled, scene):
    image, masks = scene
    inverter = mi.MaskInverter(bundled, iterations=2)
    encoded = inverter.encode((image, image))
    expected = inverter.invert(encoded, [masks, masks[:1]])
    found = inverter.invert(tuple(encoded), (own for own in (masks, masks[:1])))
    assert [len(one) for one in found] == [2, 1]
    assert all(torch.equal(one.embeddings, other.embeddings) for one, other in zip(found, expected, strict=True))
    assert inverter.encode([]) == inverter.invert([], []) == []
    with pytest.raises(mi.InputError, match="2 pictures and masks of 1"):
        inverter.invert(encoded, [masks])


def test_the_picture_that_is_wrong_is_named_among_several(bundled, scene):
    image, masks = scene
    inverter = mi.MaskInverter(bundled)
    for given, said in ((255 * image, "floats must be in 0..1"), (None, "a NoneType"), ("none.png", "there is no file none.png")):
        with pytest.raises(mi.InputError, match=f"^picture 1: .*{said}"):
            inverter.encode([image, given])
    encoded = inverter.encode([image, image])
    for given, said in ((0 * masks, r"mask 0 is empty"), ([], "there is no mask")):
        with pytest.raises(mi.InputError, match=f"^picture 1: {said}"):
            inverter.invert(encoded, [masks, given])


def test_what_goes_in_the_wrong_place_is_said(bundled, scene):
    image, masks = scene
    inverter = mi.MaskInverter(bundled)
    for given in (image, "picture.png", [image, image]):
        with pytest.raises(mi.InputError, match="where an encoded picture should be: give what encode returns"):
            inverter.invert(given, [masks, masks])
    for given in ("bundled", bundled.model):
        with pytest.raises(mi.InputError, match="where a CLIP should be: give what load_clip returns"):
            mi.MaskInverter(given)


def test_an_image_of_another_inverter_is_refused(bundled, scene):
    encoded = mi.MaskInverter(bundled, layers=2).encode(scene[0])
    with pytest.raises(mi.InputError, match="another inverter"):
        mi.MaskInverter(bundled).invert(encoded, scene[1])


def test_running_out_of_memory_is_explained(bundled, scene, monkeypatch):
    inverter = mi.MaskInverter(bundled, image_size=2048)
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**25)
    with pytest.raises(mi.MemoryLimitError, match=r"seen at 2048 px.*lower image_size"):
        inverter.encode(scene[0])


def test_a_size_that_no_model_sees_is_refused(bundled):
    with pytest.raises(mi.InputError, match="image_size is 1048576; it can be 16384 at most"):
        mi.MaskInverter(bundled, image_size=8 * 2**17)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (1, 1), (37, 211), (2000, 3000)])
def test_images_of_any_size(bundled, height, width):
    inverter = mi.MaskInverter(bundled, iterations=1)
    tokens = inverter.invert(inverter.encode(torch.rand(height, width, 3)), torch.ones(height, width))
    assert tokens.maps_for().shape == (1, height, width) and torch.isfinite(tokens.embeddings).all()
