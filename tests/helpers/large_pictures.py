"""Seconds and peak memory of large pictures and many masks, each case in a process of its own.

    python -m tests.helpers.large_pictures [CASE ...]

"beyond" is what a case takes beyond the model's own time, which is that of a picture and masks of the model's own size. The nodes
are measured in a real ComfyUI.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

MEGAPIXELS_12, MEGAPIXELS_48 = (3000, 4000), (6000, 8000)
MANY = 300


def photo(folder: Path) -> tuple[Path, Path]:
    """A picture of 12 megapixels with fine detail as JPEG, and a round mask as PNG."""
    dice = np.random.default_rng(0)
    height, width = MEGAPIXELS_12
    coarse = Image.fromarray(dice.integers(0, 255, (height // 40, width // 40, 3), dtype=np.uint8)).resize((width, height))
    fine = np.asarray(coarse).astype(np.int16) + dice.integers(-6, 7, (height, width, 1), dtype=np.int16)
    rows, columns = np.ogrid[:height, :width]
    region = (rows - height / 2) ** 2 + (columns - width / 2.2) ** 2 < (0.3 * height) ** 2
    Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(folder / "photo.jpg", quality=92)
    Image.fromarray((region * 255).astype(np.uint8)).save(folder / "mask.png")
    return folder / "photo.jpg", folder / "mask.png"


def inverter(masks: int) -> tuple:
    """The bundled CLIP's, warm; and the seconds of its own picture with so many masks of its own size."""
    import torch

    import maskinversion as mi

    found = mi.MaskInverter(mi.load_clip("bundled", device="cpu"))
    side = found.image_size[0]
    picture, small = torch.rand(side, side, 3), torch.ones(masks, side, side)
    small[:, : side // 2] = 0
    found.invert(found.encode(picture), small)
    begun = time.perf_counter()
    found.invert(found.encode(picture), small)
    return found, time.perf_counter() - begun


def command(folder: Path) -> float:
    from maskinversion.cli.main import main

    picture, mask = photo(folder)
    _, own = inverter(1)
    begun = time.perf_counter()
    assert main(["invert", str(picture), "--mask", str(mask), "--out", str(folder / "out"), "--device", "cpu"]) == 0
    return time.perf_counter() - begun - own


def many_masks(kind: str) -> Callable[[Path], float]:
    def case(folder: Path) -> float:
        import torch

        found, own = inverter(MANY)
        height, width = MEGAPIXELS_48
        encoded = found.encode(torch.rand(60, 80, 3).repeat_interleave(100, 0).repeat_interleave(100, 1))
        one = torch.zeros(height, width, dtype=getattr(torch, kind))
        one[1000:4000, 2000:6000] = 255 if kind == "uint8" else 1
        begun = time.perf_counter()
        assert len(found.invert(encoded, one.expand(MANY, -1, -1))) == MANY
        return time.perf_counter() - begun - own

    return case


def maps(folder: Path) -> float:
    """At the pictures' own size they are refused, or there is room; at a smaller one they are made."""
    import torch

    import maskinversion as mi

    found, _ = inverter(MANY)
    small = torch.zeros(MANY, 60, 80)
    small[:, 20:40, 20:60] = 1
    encoded = found.encode(torch.rand(60, 80, 3).repeat_interleave(100, 0).repeat_interleave(100, 1))
    tokens = found.invert(encoded, small)
    begun = time.perf_counter()
    try:
        tokens.maps_for()
    except mi.MemoryLimitError as error:
        print(error, file=sys.stderr)
    assert tokens.maps_for((600, 800)).shape == (MANY, 600, 800)
    return time.perf_counter() - begun


def long_and_thin(folder: Path) -> float:
    import torch

    import maskinversion as mi

    found, _ = inverter(1)
    begun = time.perf_counter()
    try:
        mi.MaskInverter(found.clip, fit="crop").encode(torch.rand(20000, 1, 3))
    except mi.InputError as error:
        print(error, file=sys.stderr)
    found.encode(torch.rand(20000, 1, 3))
    return time.perf_counter() - begun


def nodes(folder: Path) -> float:
    """MaskInversion and Map Overlay on a batch that is already there."""
    from tests.helpers import comfy_test_nodes
    from tests.helpers.graphs import inversion
    from tools.comfyui_server import Server

    height, width = MEGAPIXELS_12
    with Server(folder / "base", Path(comfy_test_nodes.__file__)) as server:
        required = server.get("/object_info/MaskInversion")["MaskInversion"]["input"]["required"]
        defaults = {name: options["default"] for name, (_, options) in required.items() if "default" in options}

        def graph(height: int, width: int, iterations: int) -> dict:
            made = inversion(defaults, masks=1, mask_size=(height, width), iterations=iterations)
            made["image"]["inputs"] |= {"height": height, "width": width}
            overlay = {"image": ["image", 0], "maps": ["inversion", 2], "strength": 0.6, "mask": ["mask", 0]}
            made["overlay"] = {"class_type": "MaskInversionOverlay", "inputs": overlay}
            made["report"] = {"class_type": "TestSize", "inputs": {"image": ["overlay", 0]}}
            return made

        def seconds(made: dict) -> float:
            begun = time.perf_counter()
            run = server.submit(made)
            assert not run.error, run.error
            return time.perf_counter() - begun

        made = graph(height, width, 1)
        only = {name: node for name, node in made.items() if name in ("image", "mask")}
        only["a"] = {"class_type": "TestSize", "inputs": {"image": ["image", 0]}}
        only["b"] = {"class_type": "MaskToImage", "inputs": {"mask": ["mask", 0]}}
        only["c"] = {"class_type": "TestSize", "inputs": {"image": ["b", 0]}}
        seconds(graph(64, 64, 2))
        own = seconds(graph(64, 64, 10))
        seconds(only)  # its picture and mask stay in the server's memory
        return seconds(graph(height, width, 10)) - own


CASES: dict[str, Callable[[Path], float]] = {
    "command": command,
    "nodes": nodes,
    "uint8-masks": many_masks("uint8"),
    "bool-masks": many_masks("bool"),
    "maps": maps,
    "long-and-thin": long_and_thin,
}


def peak() -> int:
    """The most memory of this process and those that it waited for, in bytes."""
    import resource

    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    args = parser.parse_args()
    for name in args.cases or CASES:
        if args.here:
            with tempfile.TemporaryDirectory() as folder:
                beyond = CASES[name](Path(folder))
            print(json.dumps({"case": name, "beyond": round(beyond, 2), "peak_gb": round(peak() / 1e9, 2)}))
        else:
            subprocess.run([sys.executable, "-m", "tests.helpers.large_pictures", name, "--here"], check=False)


if __name__ == "__main__":
    main()
