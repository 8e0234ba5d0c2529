"""A CLIP that is not the bundled one, and takes whatever that takes."""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from maskinversion.bundled import BUNDLED


def write_mirrored(folder: Path) -> None:
    """The bundled CLIP with its picture embeddings negated, and so of another fingerprint, in a new folder."""
    folder.mkdir(parents=True)
    shutil.copy(BUNDLED / "open_clip_config.json", folder)
    weights = load_file(BUNDLED / "open_clip_model.safetensors")
    weights["visual.proj"] = -weights["visual.proj"]
    save_file(weights, folder / "open_clip_model.safetensors")
