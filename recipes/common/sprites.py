"""Fetch openly licensed emoji art from the npm registry and render it to one array of sprites.

    python -m recipes.common.sprites            # writes recipes/build/sprites.npz (about 25 MB)

Needs npm on the PATH and `pip install resvg-py`. Every class of data/classes.json is drawn in every style that has it.
"""

import io
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.common.arguments import parser
from recipes.common.paths import BUILD, ROOT

CLASSES = ROOT / "recipes" / "data" / "classes.json"  # name -> icons
SIZE = 96  # pixels, the side of every sprite

# style -> (npm package, licence). Every style is a drawing of its own, by other artists.
TRAINING_STYLES = {
    "noto": ("@iconify-json/noto@1.2.9", "Apache-2.0"),
    "noto-v1": ("@iconify-json/noto-v1@1.2.5", "Apache-2.0"),
    "twemoji": ("@iconify-json/twemoji@1.2.5", "CC-BY-4.0"),
    "emojione": ("@iconify-json/emojione@1.2.3", "CC-BY-4.0"),
    "fxemoji": ("@iconify-json/fxemoji@1.2.2", "Apache-2.0"),
}
# Never seen in training, in any of its renderings: Microsoft's Fluent emoji in 3D.
HELD_OUT_STYLES = {"fluent-3d": ("@lobehub/fluent-emoji-3d@1.1.0", "MIT")}

STYLES = {"trained": TRAINING_STYLES, "held-out": HELD_OUT_STYLES}

# Firefox OS draws the same things under names of its own.
FXEMOJI_NAMES = {
    "pizza": "sliceofpizza", "rabbit": "bunnyside", "rabbit-face": "bunny", "hot-pepper": "chilipepper",
    "panda": "pandaface", "tiger": "tigerside", "tiger-face": "tiger", "cat": "catside", "cat-face": "cat",
    "dog": "dogside", "dog-face": "dog", "pig": "pigside", "pig-face": "pig", "mouse": "mouseside",
    "mouse-face": "mouse", "ewe": "sheep", "spouting-whale": "spurtingwhale", "dove": "doveofpeace",
    "dragon": "dragonside", "dragon-face": "dragonhead", "leopard": "leopardside", "wolf": "wolfface",
    "two-hump-camel": "bactriancamel", "camel": "dromedarycamel", "eggplant": "aubergine",
    "ear-of-corn": "earofmaize", "evergreen-tree": "evergreen", "wrapped-gift": "present", "basketball": "",
    "high-heeled-shoe": "heels", "light-bulb": "lightbulb", "locked": "lock", "gem-stone": "gem",
    "flashlight": "electrictorch", "racing-car": "racecar", "globe-showing-americas": "americasglobe",
    "globe-showing-europe-africa": "europeafricaglobe", "front-facing-baby-chick": "frontfacingchick",
    "snowman": "", "locomotive": "steamlocomotive", "castle": "europeancastle", "laptop": "personalcomputer",
    "bow-and-arrow": "", "hamster": "hampster", "dagger": "daggerknife", "necktie": "tie", "hot-dog": "",
    "fallen-leaf": "fallingleaf", "backpack": "schoolsatchel", "kiwi-fruit": "", "tennis": "", "key": "key",
    "magnifying-glass-tilted-left": "leftmagnifyingglass", "umbrella-with-rain-drops": "umbrellawithraindrops",
}  # fmt: skip


def letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name)


def fetch(package: str, folder: Path) -> Path:
    """Download and unpack one npm package; returns its folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm was not found. Install Node.js, which brings npm, and run this again.")
    listing = subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True)
    archive = folder / listing.stdout.strip().splitlines()[-1]
    target = folder / archive.stem
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # an argument only from 3.10.12, 3.11.4 and 3.12
        tar.extractall(target)
    return target / "package"


class SvgStyle:
    """An iconify package: one JSON with the SVG body of every icon."""

    def __init__(self, folder: Path, renames: dict[str, str]):
        data = json.loads((folder / "icons.json").read_text(encoding="utf-8"))
        self.size = (data.get("width", 16), data.get("height", 16))
        self.icons = {letters(k): v for k, v in data["icons"].items()}
        for alias, target in data.get("aliases", {}).items():
            if target["parent"] in data["icons"]:
                self.icons.setdefault(letters(alias), data["icons"][target["parent"]])
        self.renames = renames

    def draw(self, icon: str) -> Image.Image | None:
        import resvg_py

        found = self.icons.get(letters(self.renames.get(icon, icon)))
        if found is None:
            return None
        width, height = found.get("width", self.size[0]), found.get("height", self.size[1])
        left, top = found.get("left", 0), found.get("top", 0)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{found["body"]}</svg>'
        )
        png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIZE, height=2 * SIZE, skip_system_fonts=True)
        return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


class FluentStyle:
    """One picture per emoji, named by its code points."""

    def __init__(self, folder: Path, code_points: dict[str, list[str]]):
        self.files = {}
        for path in sorted((folder / "assets").glob("*.webp")):
            self.files[without_variant(path.stem)] = path
        self.code_points = code_points

    def draw(self, icon: str) -> Image.Image | None:
        for code in self.code_points.get(icon, []):
            if code in self.files:
                return Image.open(self.files[code]).convert("RGBA")
        return None


def without_variant(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != "fe0f")


def tighten(image: Image.Image) -> np.ndarray:
    """Crop to what is visible, centre on a square and resize to [SIZE, SIZE, 4] uint8."""
    image = image.crop(image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox())
    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(square.resize((SIZE, SIZE), Image.LANCZOS))


def main() -> None:
    parser(__spec__.name, __doc__).parse_args()
    classes = json.loads(CLASSES.read_text(encoding="utf-8"))
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        noto = fetch(TRAINING_STYLES["noto"][0], folder)
        code_points: dict[str, list[str]] = {}
        for code, icon in json.loads((noto / "chars.json").read_text(encoding="utf-8")).items():
            code_points.setdefault(icon, []).append(without_variant(code))
        sources: dict[str, SvgStyle | FluentStyle] = {
            style: SvgStyle(fetch(package, folder), FXEMOJI_NAMES if style == "fxemoji" else {})
            for style, (package, _) in TRAINING_STYLES.items()
        }
        for style, (package, _) in HELD_OUT_STYLES.items():
            sources[style] = FluentStyle(fetch(package, folder), code_points)

        pixels, class_of, style_of = [], [], []
        for index, icons in enumerate(classes.values()):
            for style, source in sources.items():
                for icon in icons:
                    drawn = source.draw(icon)
                    if drawn is not None:
                        pixels.append(tighten(drawn))
                        class_of.append(index)
                        style_of.append(style)
    path = BUILD / "sprites.npz"
    np.savez_compressed(
        path, pixels=np.stack(pixels), class_of=np.array(class_of), style_of=np.array(style_of), names=np.array(list(classes))
    )
    counts = {style: style_of.count(style) for style in sources}
    missing = [
        name for i, name in enumerate(classes) if not any(c == i and s in HELD_OUT_STYLES for c, s in zip(class_of, style_of))
    ]
    print(f"{path}: {len(pixels)} sprites of {len(classes)} classes, {counts}; not in the held-out style: {missing}")


if __name__ == "__main__":
    main()
