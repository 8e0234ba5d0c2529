"""IP-Adapters: files of weights that let a pipeline see image embeddings, or hidden states, beside its text.

Four formats are published, and known by their names of weights: the basic one (h94/IP-Adapter), for SD 1.5 and SDXL, and XLabs's
for FLUX, which Chroma takes too, read a token. IP-Adapter Plus, for SD 1.5, SDXL and Kolors, and InstantX's for SD 3.5 read hidden
states.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import ModelError
from ...files import check_file
from ...models.weights import check_finite, plain_state, read_any
from .kinds import KINDS

PARTS = ("image_proj", "ip_adapter")
# XLabs's names, and those that diffusers knows.
XLABS = {"ip_adapter_proj_model.": "image_proj.", "double_blocks.": "ip_adapter."}
XLABS_INNER = {"processor.ip_adapter_double_stream_k_proj": "to_k_ip", "processor.ip_adapter_double_stream_v_proj": "to_v_ip"}
EXAMPLES = {
    "SD 1.5": "ip-adapter_sd15.safetensors or ip-adapter-plus_sd15.safetensors",
    "SDXL": "ip-adapter_sdxl.safetensors or ip-adapter-plus_sdxl_vit-h.safetensors",
    "Kolors": "ip_adapter_plus_general.bin of Kwai-Kolors/Kolors-IP-Adapter-Plus",
    "SD 3.5": "ip-adapter.bin of InstantX/SD3.5-Large-IP-Adapter",
    "FLUX": "ip_adapter.safetensors of XLabs-AI/flux-ip-adapter",
}


@dataclass(frozen=True)
class Adapter:
    """width: of what it reads: of a token, or of hidden states."""

    width: int
    reads_states: bool


def add_adapter(pipeline: Any, file: Path, name: str) -> Adapter:
    """Load an IP-Adapter into a pipeline. name: of the pipeline. Raises ModelError for a file that is none, or for another one."""
    parts = read_adapter(file)
    projection = parts["image_proj"]
    read = projection.get("proj.weight", projection.get("proj_in.weight"))
    states = "latents" in projection
    kind = KINDS[type(pipeline).__name__]
    example = EXAMPLES[str(kind.adapter)]
    if read is None or read.ndim != 2 or not parts["ip_adapter"] or states != ("proj_in.weight" in projection):
        raise ModelError(
            f"{file.name} is not an IP-Adapter that reads a token or hidden states, as those for faces do not: use, say, {example}"
        )
    options: dict[str, Any] = {"image_encoder_folder": None, "subfolder": ""}
    if kind.way == "apart":
        options = {"image_encoder_pretrained_model_name_or_path": None}
    try:
        pipeline.load_ip_adapter(parts, weight_name=file.name, **options)
    except Exception as error:  # weights of another model make diffusers raise nearly everything
        advice = f"take one for {kind.adapter}, say {example}"
        raise ModelError(f"{file.name} was made for another model than {name}: {advice}") from error
    return Adapter(read.shape[1], states)


def read_adapter(file: Path) -> dict[str, dict[str, Tensor]]:
    """The weights by part, with the names that diffusers knows."""
    check_file(file, ModelError)
    found = read_any(file)
    if isinstance(found, dict) and set(found) == set(PARTS):  # as PyTorch saves them
        found = {f"{part}.{key}": value for part in PARTS for key, value in plain_state(found[part], file).items()}
    weights = plain_state(found, file)
    check_finite(weights, file.name)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in weights.items():
        for old, new in XLABS.items():
            if key.startswith(old):
                key = new + key.removeprefix(old)
        for old, new in XLABS_INNER.items():
            key = key.replace(old, new)
        part, _, rest = key.partition(".")
        if part in parts:
            parts[part][rest] = value
    return parts
