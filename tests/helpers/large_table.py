"""How large a table of regions is, and how long it takes to write and to read.

    python -m tests.helpers.large_table --rows 100000 --width 768 --out FOLDER
"""

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from maskinversion.collection.table import Made, RegionRow, RegionTable, schema

PICTURES, REGIONS = 64, 10  # of a part, of a picture


def masks(rng: np.random.Generator, count: int) -> list[bytes]:
    """PNGs of regions as they are in photos: blobs of three ellipses, 256 x 192 px."""
    found = []
    for _ in range(count):
        image = Image.new("1", (256, 192))
        x, y, size = (int(rng.integers(40, end)) for end in (216, 152, 80))
        for _ in range(3):
            a, b, w, h = (int(value) for value in rng.integers(-size // 2, size // 2 + 1, 4))
            box = (x + a - abs(w) - 5, y + b - abs(h) - 5, x + a + abs(w) + 5, y + b + abs(h) + 5)
            ImageDraw.Draw(image).ellipse(box, fill=1)
        file = io.BytesIO()
        image.save(file, "PNG")
        found.append(file.getvalue())
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--width", type=int, default=768)
    options.add_argument("--numbers", default="float32")
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args()
    rng = np.random.default_rng(0)
    shapes = masks(rng, 200)
    made = Made("drawn", "0" * 16, args.width, {}, args.numbers)
    table = RegionTable.create(args.out, made, {"kind": "pictures"})
    writing = 0.0
    for part, first in enumerate(range(0, args.rows, PICTURES * REGIONS)):
        tokens = rng.normal(size=(min(PICTURES * REGIONS, args.rows - first), args.width)).astype(np.float32)
        rows = [
            RegionRow(
                f"train2017/{(first + n) // REGIONS:012d}.jpg", str(first + n), f"class {n % 80}", (10.5, 20, 200, 150.25),
                640, 480, *rng.random(3).tolist(), token, shapes[n % len(shapes)],
            )
            for n, token in enumerate(tokens)
        ]  # fmt: skip
        begin = time.perf_counter()
        table.write(f"{part:07d}-000000000000", sorted({row.picture for row in rows}), rows)
        writing += time.perf_counter() - begin
    size = sum(path.stat().st_size for path in table.parts())
    found = {"rows": args.rows, "files": len(table.parts()), "MB": size / 1e6, "bytes a row": size / args.rows, "write, s": writing}
    for what, read in {
        "tokens, s": table.read_tokens,
        "all but tokens, s": lambda: table.read([name for name in schema(table.made).names if name != "token"]),
        "which pictures are done, s": table.pictures,
        "all, s": table.read,
    }.items():
        begin = time.perf_counter()
        read()
        found[f"read {what}"] = time.perf_counter() - begin
    print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
