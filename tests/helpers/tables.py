"""Small tables of regions, whose tokens are what the bundled CLIP says of names, so that it is known what is near to what."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import maskinversion as mi
from maskinversion.collection.table import Made, RegionRow, RegionTable
from maskinversion.settings import PRESETS, InversionSettings
from maskinversion.tasks.phrases import CLASS_TEMPLATE
from maskinversion.tasks.texts import text_embeddings

NAMES = ("cat", "frog", "crown", "strawberry")
COLOURS = ((200, 60, 60), (60, 160, 60), (60, 60, 200), (200, 180, 40))
SIZE = (64, 48)
REGION = (20, 10, 44, 34)


def made_with(clip: mi.Clip) -> Made:
    settings = vars(InversionSettings(**PRESETS["region"])) | {"image_size": list(clip.tower.image_size), "loss": "dice"}
    return Made(clip.name, clip.fingerprint, clip.tower.width_out, settings)


def small_table(folder: Path, clip: mi.Clip, each: int = 3, noise: float = 0.02, names: tuple[str, ...] = NAMES) -> RegionTable:
    """A table in `folder`/table of pictures in `folder`/pictures: `each` with one region of every name, in two parts.

    Picture I of a name is NAME/I.png, its region's label the name; its area grows with I. Every token is the name's embedding with
    a little noise.
    """
    units = text_embeddings(clip, names, [CLASS_TEMPLATE]).cpu().numpy()
    rng = np.random.default_rng(0)
    table = RegionTable.create(folder / "table", made_with(clip), {"kind": "pictures", "pictures": str(folder / "pictures")})
    for part, chosen in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        rows, pictures = [], []
        for name in chosen:
            for number in range(each):
                picture = f"{name}/{number}.png"
                path = folder / "pictures" / picture
                path.parent.mkdir(parents=True, exist_ok=True)
                drawn = Image.new("RGB", SIZE, "white")
                ImageDraw.Draw(drawn).rectangle(REGION, COLOURS[names.index(name) % len(COLOURS)])
                drawn.save(path)
                unit = units[names.index(name)]
                token = 7 * (unit + noise * rng.normal(size=len(unit)) / len(unit) ** 0.5).astype(np.float32)
                area = 0.1 * (number + 1)
                box = (REGION[0], REGION[1], REGION[2] + 1, REGION[3] + 1)
                rows.append(RegionRow(picture, "1", name, box, *SIZE, area, 0.5, 0.1, token, mask_png()))
                pictures.append(picture)
        table.write(f"{part:06}-part", pictures, rows)
    return table


def mask_png() -> bytes:
    mask, written = Image.new("1", SIZE), BytesIO()
    ImageDraw.Draw(mask).rectangle(REGION, 1)
    mask.save(written, "PNG")
    return written.getvalue()


def random_table(folder: Path, tokens: np.ndarray, fingerprint: str = "0123456789abcdef") -> RegionTable:
    """A table of these tokens [N, D], without pictures."""
    made = Made("a model", fingerprint, tokens.shape[1], vars(InversionSettings()) | {"image_size": [64, 64], "loss": "dice"})
    table = RegionTable.create(folder, made, {"kind": "pictures", "pictures": "nowhere"})
    half = (len(tokens) + 1) // 2
    for part, first in enumerate(range(0, len(tokens), half)):
        rows = [
            RegionRow(f"{number}.png", "1", None, (0, 0, 1, 1), 2, 2, 0.25, 0.5, 0.1, tokens[number])
            for number in range(first, min(first + half, len(tokens)))
        ]
        table.write(f"{part:06}-part", [row.picture for row in rows], rows)
    return table


def units(tokens: np.ndarray) -> torch.Tensor:
    """[N, D] of length 1, in float64."""
    return torch.nn.functional.normalize(torch.from_numpy(tokens).double(), dim=1)
