"""The one door for pictures and masks: each kind of input against what it means, told by NumPy and Pillow."""

import os
import warnings
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.cli.main import main
from maskinversion.datasets.base import Region, Sample
from maskinversion.geometry import Geometry, canvas_size
from maskinversion.pictures import as_masks, as_pixels, label_masks, masks, read_mask
from maskinversion.pictures.files import open_picture
from maskinversion.settings import PRESETS
from tests.helpers.files import (
    ALPHA,
    COLUMNS,
    GREY,
    GREY16,
    ORIENTATION,
    PICTURES,
    RGB,
    ROWS,
    B,
    H,
    W,
    as_rgb,
    b8,
    exif,
    pil,
    png16,
    shown,
    write_pictures,
    write_scene,
)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.mark.parametrize("name", [name for name, (_, truth) in PICTURES.items() if truth is not None])
def test_a_picture_file_holds_what_was_written(files, name):
    found, truth = shown(as_pixels(files / name)), as_rgb(PICTURES[name][1])
    assert found.shape == truth.shape and np.abs(found - truth).max() < 1e-6


def test_a_mirrored_picture_is_mirrored_as_its_exif_says(tmp_path):
    upright = {2: RGB[:, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1), 7: np.rot90(RGB, 2).swapaxes(0, 1)}
    for orientation, truth in upright.items():
        pil(RGB).save(tmp_path / "p.png", exif=exif(orientation))
        assert np.abs(shown(as_pixels(tmp_path / "p.png")) - truth / 255).max() < 1e-6


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


SAME = {
    "numpy": RGB,
    "torch": torch.from_numpy(RGB),
    "PIL": pil(RGB),
    "batch of one": RGB[None],
    "RGBA": np.dstack([RGB, ALPHA]),
    "int32": RGB.astype(np.int32),
    "int64": torch.from_numpy(RGB).long(),
    "uint32": RGB.astype(np.uint32),
    "uint16": RGB.astype(np.uint16) * 257,
    "torch uint16": torch.from_numpy(RGB.astype(np.uint16) * 257),
    "big endian": (RGB.astype(np.uint16) * 257).astype(">u2"),
    "float64": RGB / 255,
    "float32": torch.from_numpy(RGB) / 255,
    "longdouble": (RGB / 255).astype(np.longdouble),
    "needs grad": (torch.from_numpy(RGB) / 255).requires_grad_(),
    "flipped twice": RGB[::-1, ::-1][::-1, ::-1],
    "Fortran": np.asfortranarray(RGB),
    "read-only": read_only(RGB),
    "list": RGB.tolist(),
    "PIL, turned by EXIF": None,
    "PIL RGBA": pil(np.dstack([RGB, ALPHA])),
    "PIL RGBX": pil(RGB, "RGBX"),
}


@pytest.mark.parametrize("kind", SAME)
def test_pictures_of_every_kind_are_the_same_picture(kind):
    given = SAME[kind]
    if given is None:
        given = pil(np.ascontiguousarray(np.rot90(RGB)))
        given.getexif()[ORIENTATION] = 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(shown(as_pixels(given)) - RGB / 255).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_pictures(dtype):
    given = (torch.from_numpy(RGB) / 255).to(dtype)
    assert torch.equal(as_pixels(given)[0].permute(1, 2, 0), given.float())


@pytest.mark.parametrize("given", [GREY, GREY[..., None], GREY[None, ..., None], pil(GREY), GREY / 255, GREY.astype(np.int16)])
def test_grey_pictures(given):
    assert np.abs(shown(as_pixels(given)) - GREY[..., None] / 255).max() < 1e-6


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_pil(mode):
    image = Image.frombytes(mode, (W, H), GREY16.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    assert np.abs(shown(as_pixels(image)) - GREY16[..., None] / 65535).max() < 1e-6


def test_32_bit_pil(tmp_path):
    assert np.abs(shown(as_pixels(pil(GREY.astype(np.int32)))) - GREY[..., None] / 255).max() < 1e-6
    assert np.abs(shown(as_pixels(pil((GREY / 255).astype(np.float32)))) - GREY[..., None] / 255).max() < 1e-6
    (tmp_path / "deep.pgm").write_bytes(b"P5 %d %d 65535\n" % (W, H) + GREY16.astype(">u2").tobytes())
    assert np.abs(shown(as_pixels(tmp_path / "deep.pgm")) - GREY16[..., None] / 65535).max() < 1e-6


def test_overshoot_of_resizing_is_clamped_and_told():
    given = torch.from_numpy(RGB) / 255 * 1.1075 - 0.0475  # as far as ComfyUI's bicubic goes
    with pytest.warns(mi.InputWarning, match=r"from -0\.0475 to .*clamped"):
        assert torch.equal(as_pixels(given)[0].permute(1, 2, 0), given.clamp(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_pixels(torch.full((4, 4, 3), 1.0001)).max() == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.rand(3, 40, 50), r"channels come first.*permute"),
        (torch.rand(1, 40, 50), "channels come first"),
        (torch.rand(1, 3, 40, 50), r"shape \(1, 3, 40, 50\)"),
        (torch.rand(2, 40, 50, 3), "a batch of 2 pictures: give one at a time"),
        (torch.rand(0, 40, 50, 3), "shape"),
        (torch.rand(40, 50, 5), "height x width x 3"),
        (torch.rand(40), "height x width x 3"),
        (np.zeros((0, 4, 3)), "empty"),
        (np.full((4, 4, 3), np.nan), "NaN"),
        (np.full((4, 4, 3), np.inf), "infinite"),
        (RGB.astype(float), r"divide by 255.*-1\.\.1"),
        (RGB / 127.5 - 1, r"-1\.\.1, take \(x \+ 1\) / 2"),
        (RGB.astype(np.int32) * 3, "not clear which is white"),
        (RGB.astype(np.int16) - 5, "from -5 to"),
        (pil((GREY * 1.0).astype(np.float32)), "divide by 255"),
        (pil(GREY.astype(np.int32) * 100), "not clear which is white"),
        (RGB.astype(complex), "complex128"),
        (torch.zeros(4, 4, 3, dtype=torch.complex64), "complex64"),
        (np.array([["a"]]), "ndarray"),
        (None, "NoneType"),
        ({"image": RGB}, "dict"),
    ],
)
def test_pictures_that_could_be_meant_in_two_ways_or_none_are_refused(given, message):
    with pytest.raises(mi.InputError, match=message):
        as_pixels(given)


@pytest.mark.parametrize("given", [B.astype(np.uint8), B.astype(np.int64), B.astype(np.uint16) * 255], ids=lambda v: v.dtype.name)
def test_a_picture_that_is_nearly_black_is_told(given):
    with pytest.warns(mi.InputWarning, match="almost black"):
        as_pixels(given)


def voc(labels, path=None):
    """A label map [h, w] as PASCAL VOC has it: a palette of colours, 0 black, 255 the border."""
    image = pil(labels, "P")
    palette = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for bit in range(8):
            for channel in range(3):
                palette[index, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    image.putpalette(palette.tobytes())
    return image


def border(label=1):
    """The region with the void border of VOC around it."""
    grown = np.zeros_like(B)
    for row in (-1, 0, 1):
        for column in (-1, 0, 1):
            grown |= np.roll(B, (row, column), (0, 1))
    return np.where(B, label, np.where(grown, 255, 0)).astype(np.uint8)


def rgba(colour, alpha):
    return np.dstack([np.broadcast_to(np.asarray(colour, np.uint8), (H, W, 3)), alpha]).astype(np.uint8)


def two_colours(first, second):
    """A palette picture whose region has the second index."""
    image = pil(B.astype(np.uint8), "P")
    image.putpalette([*first, *second])
    return image


def coloured_index(label):
    labels = np.where(B, label, 0).astype(np.uint8)
    return voc(labels)


WHITE = (255, 255, 255)

# What means exactly the region B.
EXACT = {
    "bool": B,
    "torch bool": torch.from_numpy(B),
    "uint8 of 0 and 1": B.astype(np.uint8),
    "uint8 of 0 and 255": b8,
    "int64 of 0 and 1": B.astype(np.int64),
    "int32 of 0 and 255": b8.astype(np.int32),
    "int8 of 0 and 1": B.astype(np.int8),
    "uint16 of 0 and 65535": B * np.uint16(65535),
    "uint16 of 0 and 1": B.astype(np.uint16),
    "uint16 of 0 and 255": b8.astype(np.uint16),
    "torch uint16": torch.from_numpy(B * np.uint16(65535)),
    "float64": B.astype(float),
    "float16": torch.from_numpy(B).half(),
    "bfloat16": torch.from_numpy(B).bfloat16(),
    "[1, h, w]": B[None],
    "[1, 1, h, w]": B[None, None],
    "[h, w, 1]": B[..., None],
    "[1, h, w, 1]": B[None, ..., None],
    "list of [h, w]": [b8],
    "list of [1, h, w]": [torch.from_numpy(B)[None]],
    "list of [h, w, 3], as OpenCV reads": [np.dstack([b8] * 3)],
    "list of [h, w, 4]": [np.dstack([b8] * 3 + [np.full_like(b8, 255)])],
    "tuple": (b8,),
    "dictionary": {"cat": b8},
    "generator": None,
    "read-only": read_only(b8),
    "flipped twice": b8[::-1][::-1],
    "PIL 1": pil(B),
    "PIL L": pil(b8),
    "PIL L of 0 and 1": pil(B.astype(np.uint8)),
    "PIL P of 0 and 1": pil(B.astype(np.uint8), "P"),
    "PIL RGB": pil(b8, "RGB"),
    "PIL RGB of 0 and 1": pil(np.dstack([B.astype(np.uint8)] * 3)),
    "PIL CMYK": pil(b8, "CMYK"),
    "PIL I": pil(b8.astype(np.int32)),
    "PIL F": pil(B.astype(np.float32)),
    "PIL I;16": pil(B * np.uint16(65535)),
    "PIL I;16 of 0 and 255": pil(b8.astype(np.uint16)),
    "PIL RGBA, opaque": pil(b8, "RGBA"),
    "PIL LA, opaque": pil(b8, "LA"),
    "white, region in alpha": pil(rgba(WHITE, b8)),
    "black, region in alpha": pil(rgba((0, 0, 0), b8)),
    "red, region in alpha": pil(rgba((255, 0, 0), b8)),
    "LA, region in alpha": pil(rgba(WHITE, b8), "LA"),
    "cut-out photo": pil(np.dstack([RGB, b8])),
    "white on transparent black": pil(rgba(b8[..., None], b8)),
    "black on transparent white": pil(rgba((255 - b8)[..., None], b8)),
    "transparent RGBA of floats": [np.dstack([RGB / 255, B])],
    "palette of black and white": two_colours((0, 0, 0), WHITE),
    "palette of black and red": two_colours((0, 0, 0), (255, 0, 0)),
    "VOC's class 1": coloured_index(1),
    "VOC's class 15": coloured_index(15),
    "VOC's class 15 and its border": voc(border(15)),
    "VOC's index 255": coloured_index(255),
}
EXACT_FILES = {
    "L.png": lambda p: pil(b8).save(p),
    "0 and 1.png": lambda p: pil(B.astype(np.uint8)).save(p),
    "1.png": lambda p: pil(B).save(p),
    "P.png": lambda p: voc(border(15)).save(p),
    "white is first.gif": lambda p: pil(B).convert("L").save(p),
    "RGB.bmp": lambda p: pil(b8, "RGB").save(p),
    "alpha.png": lambda p: pil(rgba(WHITE, b8)).save(p),
    "cut-out.png": lambda p: pil(np.dstack([RGB, b8])).save(p),
    "cut-out.webp": lambda p: pil(np.dstack([RGB, b8])).save(p, lossless=True, exact=True),
    "keyed.png": lambda p: pil(b8).save(p, transparency=0),
    "16.png": lambda p: png16(p, B * np.uint16(65535)),
    "16.tif": lambda p: pil(B * np.uint16(65535)).save(p),
    "cmyk.tif": lambda p: pil(b8, "CMYK").save(p),
    "float.tif": lambda p: pil(B.astype(np.float32)).save(p),
    "turned.png": lambda p: pil(np.ascontiguousarray(np.rot90(b8))).save(p, exif=exif(6)),
}
SOFT = (COLUMNS * 255 // (W - 1)).astype(np.uint8)
EDGES = np.where(B, 255, 0).astype(np.uint8)
EDGES[3:19, 5] = EDGES[3, 5:21] = 64
EDGES[4:18, 6] = 191
SHADES = ((ROWS * W + COLUMNS) // 5).astype(np.uint8)
DEEP = np.where(B, 65535, 1000).astype(np.uint16)

# What is a soft mask, and its values in 0..1.
SOFTS = {
    "uint8": (SOFT, SOFT / 255),
    "few shades, at edges only": (EDGES, EDGES / 255),
    "PIL L": (pil(SOFT), SOFT / 255),
    "alpha": (pil(np.dstack([RGB, SOFT])), SOFT / 255),
    "half opaque": (pil(rgba(WHITE, np.where(B, 255, 128))), np.where(B, 255, 128) / 255),
    "16 bits of 1000 and 65535": (DEEP, DEEP / 65535),
    "PIL I;16": (pil(DEEP), DEEP / 65535),
    "uint16 ramp": (SOFT.astype(np.uint16) * 257, SOFT / 255),
    "faint float": (B * 0.3, B * 0.3),
    "overshooting": (B * 1.1 - 0.05, (B * 1.1 - 0.05).clip(0, 1)),
    "many shades, none white": (SHADES, SHADES / 255),
}


@pytest.mark.parametrize("kind", EXACT)
def test_masks_of_every_kind_are_the_same_mask(kind):
    given = EXACT[kind]
    if kind == "generator":
        given = (mask for mask in [b8])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = as_masks(given)
    assert found.dtype == torch.float32 and np.array_equal(found.numpy(), B)


@pytest.mark.parametrize("kind", SOFTS)
@pytest.mark.filterwarnings("ignore::maskinversion.InputWarning")
def test_soft_masks(kind):
    given, truth = SOFTS[kind]
    assert np.abs(read_mask(given).numpy() - truth).max() < 1e-6


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_of_a_mask_is_its_brightness(tmp_path, quality, mode):
    pil(b8, mode).save(tmp_path / "mask.jpg", quality=quality)
    found = read_mask(tmp_path / "mask.jpg").numpy()
    assert np.abs(found - np.array(Image.open(tmp_path / "mask.jpg").convert("L")) / 255).max() < 1e-6
    assert ((found > 0.5) == B).mean() > 0.99
    pil(np.where(B, 200, np.where(ROWS > 19, 100, 0)).astype(np.uint8)).save(tmp_path / "grey.jpg", quality=95)
    assert abs(read_mask(tmp_path / "grey.jpg").max() - 200 / 255) < 0.03


@pytest.fixture(scope="module")
def scene_tokens(bundled, tmp_path_factory):
    """The folder of a picture, and the token of the region B of it."""
    folder = tmp_path_factory.mktemp("scene")
    picture = write_scene(folder)
    inverter = mi.MaskInverter(bundled, **PRESETS["region"])
    return folder, inverter.invert(inverter.encode(picture), torch.from_numpy(B)).embeddings[0]


def invert(folder, picture, *arguments):
    """The tokens that the command line makes of a picture of the folder."""
    assert main(["invert", str(folder / picture), *map(str, arguments), "--out", str(folder / "out"), "--device", "cpu"]) == 0
    return mi.LocalizedTokens.load(folder / "out" / "tokens.safetensors").embeddings


def test_files_of_masks_give_the_same_token_on_the_command_line_and_in_python(bundled, scene_tokens, tmp_path):
    folder, token = scene_tokens
    for name, write in EXACT_FILES.items():
        write(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name).numpy(), B), name
    names = [tmp_path / name for name in EXACT_FILES]
    inverter = mi.MaskInverter(bundled, **PRESETS["region"])
    in_python = inverter.invert(inverter.encode(folder / "picture.png"), names).embeddings
    by_command = invert(folder, "picture.png", *(word for name in names for word in ("--mask", name)))
    for found in (in_python, by_command):
        assert len(found) == len(names)
        torch.testing.assert_close(found, token.expand_as(found), rtol=1e-4, atol=1e-5)
    assert len(list((folder / "out").glob("overlay-*.png"))) == len(names)


def test_an_upright_mask_fits_a_picture_that_its_exif_turns(scene_tokens):
    folder, token = scene_tokens
    found = invert(folder, "turned.png", "--mask", folder / "mask.png")
    torch.testing.assert_close(found[0], token, rtol=1e-4, atol=1e-5)
    assert Image.open(folder / "out" / "overlay-0.png").size == (W, H)


def test_a_mask_for_the_picture_on_its_side_is_told(bundled, scene_tokens):
    folder, _ = scene_tokens
    inverter = mi.MaskInverter(bundled, iterations=1)
    with pytest.warns(mi.InputWarning, match=r"mask 0 is 24 x 40 px and the picture 40 x 24"):
        inverter.invert(inverter.encode(folder / "turned.png"), np.rot90(B))


def test_warnings_are_a_line_on_the_command_line(scene_tokens, capsys):
    folder, _ = scene_tokens
    pil(np.ascontiguousarray(np.rot90(b8))).save(folder / "lying.png")
    invert(folder, "picture.png", "--mask", folder / "lying.png", "--iterations", 1)
    error = capsys.readouterr().err
    assert error.startswith("maskinversion: mask 0 is 24 x 40 px") and error.count("\n") == 1


SAY = r"ids of a label map, or brightness\. .*label_masks \(--labels\).*by='brightness'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.where(B, 2, ROWS > 20).astype(np.uint8), SAY),
        (B * np.uint8(100), SAY),
        (border(15), SAY),
        (np.where(B, 255, np.where(ROWS > 19, 128, 0)).astype(np.uint8), SAY),
        (np.arange(H * W).reshape(H, W) // 50, SAY),
        ((B * 7).astype(np.uint16), SAY),
        (SOFT.astype(np.int64), SAY),
        (voc(np.where(B, 2, ROWS > 20).astype(np.uint8)), r"label map of the ids 1, 2.*label_masks \(--labels\)"),
        (two_colours((255, 0, 0), (0, 0, 255)), "first is not black"),
        (~B.astype(np.uint8), "254 and 255.*mask == 0"),
        (~B.astype(np.uint16), "65534 and 65535.*mask == 0"),
        (~B.astype(np.int64), "negative.*mask == 0"),
        (B / 255, r"0 and 1/255 only.*Multiply it by 255"),
        (b8.astype(float), "divide by 255"),
        (B * 3.0, "ids, give integers"),
        (pil(np.where(B[..., None], (255, 0, 0), 0).astype(np.uint8)), "in colour.*by brightness"),
        (pil(RGB), "in colour"),
        (pil(rgba(SOFT[..., None], b8)), "by its brightness or by its alpha"),
        ([np.ones((3, H, W))], r"mask 0 has shape \(3, 24, 40\)"),
        (np.dstack([b8] * 3), r"24 masks of 40 x 3 px, or one in colour\? Give a list"),
        (np.ones((2, 2, H, W)), "masks x height x width"),
        (np.ones(W), "masks x height x width"),
        (np.ones((0, H, W)), "no mask"),
        ([], "no mask"),
        ([b8, np.full((H, W), np.nan)], "mask 1 contains NaN"),
        ([b8, b8 * 0], "mask 1 is empty"),
        ([{"segmentation": B}], "mask 0 is a dict"),
        (None, "NoneType"),
        (7, "int"),
    ],
    ids=range(29),
)
def test_masks_that_could_be_meant_in_two_ways_or_none_are_refused(given, message):
    with pytest.raises(mi.InputError, match=message):
        list(as_masks(given))


def test_a_person_says_which_reading_is_meant(scene_tokens, tmp_path, capsys):
    both = pil(rgba(SOFT[..., None], b8))
    assert np.array_equal(read_mask(both, by="alpha").numpy(), B)
    assert np.abs(read_mask(both, by="brightness").numpy() - SOFT / 255).max() < 1e-6
    assert np.abs(read_mask(B * np.uint8(100), by="brightness").numpy() - B * 100 / 255).max() < 1e-6
    with pytest.raises(mi.InputError, match="no alpha"):
        read_mask(b8, by="alpha")
    with pytest.raises(mi.InputError, match="auto, brightness, alpha"):
        read_mask(b8, by="labels")
    folder, token = scene_tokens
    both.save(tmp_path / "both.png")
    torch.testing.assert_close(
        invert(folder, "picture.png", "--mask", tmp_path / "both.png", "--mask-by", "alpha")[0], token, rtol=1e-4, atol=1e-5
    )
    capsys.readouterr()
    assert main(["classify", str(folder / "picture.png"), "--mask", str(tmp_path / "both.png")]) == 1
    error = capsys.readouterr().err
    assert "(" + str(tmp_path / "both.png") + ")" in error and "--mask-by alpha" in error and error.count("\n") == 1


LABELS = np.where(B, 15, np.where(ROWS > 20, 3, 0)).astype(np.uint8)
LABELS[0, :5] = 255


@pytest.mark.parametrize(
    "given", [LABELS, LABELS.astype(np.int64) - 256 * (LABELS == 255), voc(LABELS), pil(LABELS), pil(LABELS, "RGB"), LABELS[None]]
)
def test_label_maps(given):
    found = label_masks(given)
    assert list(found) == [3, 15]
    assert np.array_equal(found[15].numpy(), B) and np.array_equal(found[3].numpy(), LABELS == 3)
    assert list(label_masks(given, [15])) == [15]


def test_label_maps_of_instances(tmp_path):
    instances = np.where(B, 26001, np.where(ROWS > 20, 26002, 7)).astype(np.uint16)
    png16(tmp_path / "instances.png", instances)
    found = label_masks(tmp_path / "instances.png", [26002, 26001])
    assert list(found) == [26002, 26001] and np.array_equal(found[26001].numpy(), B)


@pytest.mark.parametrize(
    ("given", "ids", "message"),
    [
        (LABELS, [4], r"has no label 4; it has 0, 3, 15, 255"),
        (LABELS * 0, None, "0 all over"),
        (RGB, None, "one integer for each pixel"),
        (LABELS / 255, None, "one integer for each pixel"),
    ],
)
def test_label_maps_that_are_refused(given, ids, message):
    with pytest.raises(mi.InputError, match=message):
        label_masks(given, ids)


def test_labels_on_the_command_line(bundled, scene_tokens, tmp_path, capsys):
    folder, token = scene_tokens
    voc(LABELS).save(tmp_path / "voc.png")
    every = invert(folder, "picture.png", "--mask", tmp_path / "voc.png", "--labels", "all")
    assert "voc.png, label 3: loss" in capsys.readouterr().out
    one = invert(folder, "picture.png", "--mask", tmp_path / "voc.png", "--labels", "15")
    assert len(every) == 2 and len(one) == 1
    torch.testing.assert_close(torch.stack([every[1], one[0]]), token.expand(2, -1), rtol=1e-4, atol=1e-5)
    inverter = mi.MaskInverter(bundled, **PRESETS["region"])
    in_python = inverter.invert(inverter.encode(folder / "picture.png"), label_masks(tmp_path / "voc.png"))
    torch.testing.assert_close(in_python.embeddings, every, rtol=1e-4, atol=1e-5)


def damaged(path):
    pil(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def bomb(path):
    path.write_bytes(b"P5 100000 100000 255\n")


NO_PICTURES = {
    "missing": (lambda p: None, "there is no file"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "pipe": (lambda p: os.mkfifo(p), "a pipe or a device"),
    "empty": (lambda p: p.write_bytes(b""), "it is empty"),
    "web page": (lambda p: p.write_text("\ufeff\n<!DOCTYPE html><html>"), "web page: download the picture"),
    "LFS": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "text": (lambda p: p.write_text("hello"), "not a picture"),
    "SVG": (lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "SVG"),
    "HEIC": (lambda p: p.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0"), "HEIC"),
    "truncated": (damaged, "truncated"),
    "bomb": (bomb, "too large to open safely"),
    "broken PNG": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 50), "not a picture"),
}


@pytest.mark.parametrize("kind", NO_PICTURES)
def test_a_file_that_is_no_picture_is_explained_in_one_line(scene_tokens, tmp_path, capsys, kind):
    write, message = NO_PICTURES[kind]
    if kind == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in folders here")
    path = tmp_path / "given.png"
    write(path)
    with pytest.raises(mi.InputError, match=message):
        open_picture(path)
    folder, _ = scene_tokens
    for picture, mask in ((path, folder / "mask.png"), (folder / "picture.png", path)):
        assert main(["invert", str(picture), "--mask", str(mask), "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert message in error and "given.png" in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_damaged_exif_does_not_matter(tmp_path):
    pil(RGB).save(tmp_path / "p.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.abs(shown(as_pixels(tmp_path / "p.png")) - RGB / 255).max() < 1e-6


def test_the_evaluation_opens_pictures_as_their_annotations_have_them(tmp_path):
    pil(RGB).save(tmp_path / "p.png", exif=exif(6))
    shape = {"counts": [0, H * W], "size": [W, H]}
    upright, stored = np.rot90(RGB, -1) / 255, RGB / 255
    for size, truth in (((W, H), upright), (None, upright), ((2 * W, 2 * H), upright), ((H, W), stored)):
        picture = Sample("p", tmp_path / "p.png", (Region(shape, ("cat",)),), size).open()
        assert np.abs(shown(as_pixels(picture)) - truth).max() < 1e-6


def test_one_mask_at_a_time_is_held(bundled, scene_tokens, monkeypatch):
    alive, most = weakref.WeakSet(), []

    def watched(*arguments):
        found = region_of(*arguments)
        alive.add(found)
        most.append(len(alive))
        return found

    region_of = masks.region_of
    monkeypatch.setattr(masks, "region_of", watched)
    inverter = mi.MaskInverter(bundled)
    encoded = inverter.encode(scene_tokens[0] / "picture.png")
    assert len(inverter.masks_for(encoded, np.broadcast_to(b8, (20, H, W)))) == 20
    assert len(most) == 20 and max(most) <= 2


@pytest.mark.parametrize("fit", ["stretch", "pad", "aspect", "crop"])
@pytest.mark.parametrize("size", [(1, 20000), (8, 5000), (20000, 1)])
def test_long_thin_pictures_are_seen_or_refused_within_bounds(bundled, fit, size):
    inverter = mi.MaskInverter(bundled, iterations=1, fit=fit)
    if fit == "crop":
        with pytest.raises(mi.InputError, match=r"too long and thin.*'stretch' or 'pad'"):
            inverter.encode(torch.rand(*size, 3))
        return
    encoded = inverter.encode(torch.rand(*size, 3))
    assert encoded.geometry.model_size[0] * encoded.geometry.model_size[1] <= 96 * 96
    assert inverter.invert(encoded, torch.ones(size)).maps_for().shape == (1, *size)


def test_the_canvas_of_usual_pictures_is_as_it_was():
    assert canvas_size((1000, 2000), (224, 224), (16, 16), "aspect") == (160, 320)
    assert Geometry((10, 1000), (96, 96), "crop").margins == (0, -4752)


@pytest.mark.parametrize("fit, advice", [("crop", "'stretch', 'pad' or 'aspect'"), ("pad", "raise image_size")])
def test_the_advice_is_never_the_fit_that_was_chosen(bundled, fit, advice):
    inverter = mi.MaskInverter(bundled, fit=fit)
    encoded = inverter.encode(np.zeros((100, 300, 3), np.uint8))
    mask = np.zeros((100, 300), np.float32)
    mask[:, :9] = 1 if fit == "crop" else 1e-45
    with pytest.raises(mi.InputError, match=advice):
        inverter.masks_for(encoded, mask)
