"""Pictures and masks in files of every kind, and what they hold."""

import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageCms

H, W = 24, 40
ROWS, COLUMNS = np.mgrid[:H, :W]
RGB = np.stack([COLUMNS * 6, ROWS * 10, (COLUMNS + ROWS) * 4], -1).astype(np.uint8)
GREY = (COLUMNS * 5 + 20).astype(np.uint8)
GREY16 = (COLUMNS * 1500 + ROWS * 37 + 300).astype(np.uint16)
ALPHA = (COLUMNS * 6).astype(np.uint8)
ORIENTATION = 0x0112

B = np.zeros((H, W), bool)  # the region of every mask below
B[4:18, 6:20] = True
B[10:14, 14:30] = True
b8 = B * np.uint8(255)


def png16(path, array):
    """A 16-bit PNG of [h, w] or [h, w, 3], which Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    colour = 2 if array.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pil(array, mode=None):
    image = Image.fromarray(array)
    return image.convert(mode) if mode else image


def exif(orientation):
    found = Image.Exif()
    found[ORIENTATION] = orientation
    return found


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()


# How each file is written, and the pixels [h, w, 3] of 0..1 that it holds; None where the format is lossy.
PICTURES = {
    "rgb.png": (lambda p: pil(RGB).save(p), RGB / 255),
    "rgb.jpg": (lambda p: pil(RGB).save(p, quality=95), None),
    "rgb.webp": (lambda p: pil(RGB).save(p, lossless=True), RGB / 255),
    "rgb.bmp": (lambda p: pil(RGB).save(p), RGB / 255),
    "rgb16.png": (lambda p: png16(p, RGB.astype(np.uint16) * 257), RGB / 255),
    "grey.png": (lambda p: pil(GREY).save(p), GREY / 255),
    "grey.jpg": (lambda p: pil(GREY).save(p, quality=95), None),
    "bit.png": (lambda p: pil(B).save(p), B),
    "grey16.png": (lambda p: png16(p, GREY16), GREY16 / 65535),
    "grey16.tif": (lambda p: pil(GREY16).save(p), GREY16 / 65535),
    "palette.png": (lambda p: pil(RGB).quantize(16).save(p), np.array(pil(RGB).quantize(16).convert("RGB")) / 255),
    "transparent palette.png": (
        lambda p: pil(RGB).quantize(16).save(p, transparency=3),
        np.array(pil(RGB).quantize(16).convert("RGB")) / 255,
    ),
    "rgba.png": (lambda p: pil(np.dstack([RGB, ALPHA])).save(p), RGB / 255),
    "grey alpha.png": (lambda p: Image.merge("LA", (pil(GREY), pil(ALPHA))).save(p), GREY / 255),
    "keyed.png": (lambda p: pil(RGB).save(p, transparency=(0, 0, 0)), RGB / 255),
    "cmyk.tif": (lambda p: pil(RGB).convert("CMYK").save(p), np.array(pil(RGB).convert("CMYK").convert("RGB")) / 255),
    "cmyk.jpg": (lambda p: pil(RGB).convert("CMYK").save(p, quality=95), None),
    "profile.png": (lambda p: pil(RGB).save(p, icc_profile=profile()), RGB / 255),
    "animated.gif": (
        lambda p: pil(GREY).save(p, save_all=True, append_images=[pil(255 - GREY)]),
        GREY / 255,
    ),
    "animated.webp": (lambda p: pil(RGB).save(p, save_all=True, append_images=[pil(255 - RGB)], lossless=True), RGB / 255),
    "turned 3.png": (lambda p: pil(RGB).save(p, exif=exif(3)), RGB[::-1, ::-1] / 255),
    "turned 6.png": (lambda p: pil(RGB).save(p, exif=exif(6)), np.rot90(RGB, -1) / 255),
    "turned 8.png": (lambda p: pil(RGB).save(p, exif=exif(8)), np.rot90(RGB) / 255),
    "turned 6.jpg": (lambda p: pil(RGB).save(p, exif=exif(6), quality=95), None),
}


def shown(pixels):
    """[1, 3, h, w] as [h, w, 3] in NumPy."""
    assert pixels.dtype == torch.float32 and pixels.shape[:2] == (1, 3)
    return pixels[0].permute(1, 2, 0).numpy()


def as_rgb(truth):
    return np.broadcast_to(truth[..., None], (*truth.shape, 3)) if truth.ndim == 2 else truth


def write_pictures(folder):
    for name, (write, _) in PICTURES.items():
        write(folder / name)


def write_scene(folder):
    """A picture whose region B differs from the rest, upright and turned by EXIF, and the mask; returns its pixels [h, w, 3]."""
    noise = np.random.default_rng(0).integers(0, 80, (H, W, 3), dtype=np.uint8)
    picture = np.where(B[..., None], 255 - noise, noise)
    pil(picture).save(folder / "picture.png")
    pil(np.ascontiguousarray(np.rot90(picture))).save(folder / "turned.png", exif=exif(6))
    pil(b8).save(folder / "mask.png")
    return picture
