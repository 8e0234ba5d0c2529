"""Load a CLIP: the bundled miniature, a file or folder in ComfyUI's models, or weights known by name."""

from pathlib import Path

from comfy_api.latest import io

from ..maskinversion.models.catalogue import pretrained_names, readable_architectures
from ..maskinversion.models.content import is_weights
from .support.files import NOTHING_FOUND, every_file, located, relative, stamp
from .support.managed import InUse, ManagedClip
from .support.progress import counter
from .support.types import CATEGORY, ClipSocket

FOLDERS = ("clip_vision", "open_clip")

in_use: InUse[ManagedClip] = InUse()


class LoadClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
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
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, source: dict) -> tuple:
        return identity(*chosen(source))

    @classmethod
    def execute(cls, source: dict) -> io.NodeOutput:
        what = chosen(source)
        progress = counter(cls.hidden.unique_id)
        return io.NodeOutput(in_use.get(identity(*what), lambda: ManagedClip.load(*what, progress)))


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
            options=[*readable_architectures()] or [NOTHING_FOUND],
            default="ViT-L-14",
            tooltip="The model that the file was made for; a folder says so itself. OpenAI's own weights need the name with "
            "'-quickgelu' at the end.",
        ),
    ]


def name_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "name",
            options=[*pretrained_names()] or [NOTHING_FOUND],
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
    path = located(source["weights"], FOLDERS, "open_clip weights")
    return (f"local-dir:{path}", None) if path.is_dir() else (str(path), source["architecture"])


def identity(source: str, architecture: str | None) -> tuple:
    """Changes when the weights do."""
    return source, architecture, *stamp(Path(source.removeprefix("local-dir:")))


def found_files() -> list[str]:
    """Weights files, and folders with an open_clip_config.json, relative to the model folder they are in."""
    found = every_file(*FOLDERS)
    folders = [(base, file.parent) for base, file in found if file.name == "open_clip_config.json" and file.parent != base]
    inside = {folder for _, folder in folders}
    files = [(base, file) for base, file in found if is_weights(file) and file.parent not in inside]
    return relative(files + folders)


NODES = (LoadClip,)
