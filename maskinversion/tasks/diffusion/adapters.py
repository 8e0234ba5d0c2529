"""IP-Adapters: files of weights that let a pipeline see image embeddings beside its text."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...errors import ModelError, first_line
from ...files import check_safetensors
from ...models.weights import check_finite


def add_adapter(pipeline: Any, file: Path, name: str) -> int:
    """Load a basic IP-Adapter into a pipeline; returns the width of the embeddings that it takes."""
    parts = {"image_proj": {}, "ip_adapter": {}}
    check_safetensors(file, ModelError)
    try:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                part, _, rest = key.partition(".")
                parts.setdefault(part, {})[rest] = opened.get_tensor(key)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{file.name} is not a complete safetensors file ({first_line(error)})") from error
    check_finite({key: value for part in parts.values() for key, value in part.items()}, file.name)
    projection = parts["image_proj"].get("proj.weight")
    if projection is None or projection.ndim != 2 or not parts["ip_adapter"]:
        raise ModelError(
            f"{file.name} is not a basic IP-Adapter. Plus, Full and FaceID adapters read more than one embedding: use, say, "
            f"ip-adapter_sd15.safetensors or ip-adapter_sdxl.safetensors"
        )
    try:
        pipeline.load_ip_adapter(
            {"image_proj": parts["image_proj"], "ip_adapter": parts["ip_adapter"]},
            subfolder="",
            weight_name=file.name,
            image_encoder_folder=None,
        )
    except Exception as error:  # weights of another model make diffusers raise nearly everything
        raise ModelError(f"{file.name} was made for another model than {name}: take the one for SD 1.5 or for SDXL") from error
    return projection.shape[1]
