"""Load a CLIP: the bundled miniature, a file or folder in ComfyUI's models, or weights known by name."""

from pathlib import Path
from weakref import WeakValueDictionary

import folder_paths
import open_clip
from comfy_api.latest import io

from ..maskinversion import ModelError, load_clip
from ..maskinversion.loading import WEIGHT_SUFFIXES, readable_architectures
from .managed_clip import ManagedClip
from .types import CATEGORY, ClipSocket

FOLDERS = ("clip_vision", "open_clip")
NOTHING_FOUND = "(nothing found)"

# Every CLIP still in use, so that two loaders of the same weights share them.
loaded: WeakValueDictionary[tuple, ManagedClip] = WeakValueDictionary()


class LoadClip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionLoadCLIP",
            display_name="Load CLIP for MaskInversion",
            category=CATEGORY,
            description="Loads the model that looks at the picture. The bundled one is small and works offline, for trying "
            "things out; for photographs choose a real CLIP.",
            search_aliases=["open_clip loader", "load clip vision", "region embedding model"],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option("bundled", []),
                        io.DynamicCombo.Option("file", file_inputs()),
                        io.DynamicCombo.Option("open_clip", name_inputs()),
                    ],
                    tooltip="'bundled' is a miniature that comes with this pack and needs no internet. 'file' is a model that you "
                    "have in ComfyUI's models folder. 'open_clip' is a well-known model, downloaded the first time.",
                )
            ],
            outputs=[ClipSocket.Output(display_name="clip", tooltip="For MaskInversion and Classify Region.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source: dict) -> tuple:
        return identity(*chosen(source))

    @classmethod
    def execute(cls, source: dict) -> io.NodeOutput:
        key = identity(*chosen(source))
        clip = loaded.get(key)
        if clip is None:
            clip = loaded[key] = ManagedClip.wrap(load_clip(*chosen(source), device="cpu"))
        return io.NodeOutput(clip)


def file_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "weights",
            options=found_files() or [NOTHING_FOUND],
            tooltip="An open_clip weights file, or a folder with an open_clip_config.json, in models/clip_vision or "
            "models/open_clip.",
        ),
        io.Combo.Input(
            "architecture",
            options=readable_architectures(),
            default="ViT-L-14",
            tooltip="The model that the file was made for; a folder says so itself. OpenAI's own weights need the name with "
            "'-quickgelu' at the end.",
        ),
    ]


def name_inputs() -> list[io.Input]:
    readable = set(readable_architectures())
    return [
        io.Combo.Input(
            "name",
            options=[f"{name}/{tag}" for name, tag in open_clip.list_pretrained() if name in readable],
            default="ViT-B-16/openai",
            tooltip="Model and the data it was trained on. It is downloaded once and kept in the usual download cache.",
        )
    ]


def chosen(source: dict) -> tuple[str, str | None]:
    """The two arguments of `load_clip` that the widgets stand for. Raises ModelError when the file is gone."""
    if source["source"] == "open_clip":
        return source["name"], None
    if source["source"] == "bundled":
        return "bundled", None
    path = located(source["weights"])
    return (f"local-dir:{path}", None) if path.is_dir() else (str(path), source["architecture"])


def identity(source: str, architecture: str | None) -> tuple:
    """Changes when the weights do."""
    path = Path(source.removeprefix("local-dir:"))
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return source, architecture, *((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def model_folders() -> list[Path]:
    registered = [
        path for name in FOLDERS if name in folder_paths.folder_names_and_paths for path in folder_paths.get_folder_paths(name)
    ]
    return list(dict.fromkeys(map(Path, [*registered, Path(folder_paths.models_dir, "open_clip")])))


def found_files() -> list[str]:
    """Weights files, and folders with an open_clip_config.json, relative to the model folder they are in."""
    files, folders = [], []
    for base in filter(Path.is_dir, model_folders()):
        for path in sorted(base.rglob("*")):
            if path.name == "open_clip_config.json" and path.parent != base:
                folders.append(path.parent.relative_to(base).as_posix())
            elif path.suffix in WEIGHT_SUFFIXES and not (path.parent / "open_clip_config.json").is_file():
                files.append(path.relative_to(base).as_posix())
    return list(dict.fromkeys(files + folders))


def located(relative: str) -> Path:
    searched = model_folders()
    if relative != NOTHING_FOUND:
        for base in searched:
            if (base / relative).exists():
                return base / relative
    missing = "no weights were found" if relative == NOTHING_FOUND else f"{relative} is no longer there"
    raise ModelError(f"{missing}: put open_clip weights into {searched[0]} and press R to refresh the list")
