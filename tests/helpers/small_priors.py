"""Priors of lambda-ECLIPSE in miniature, of random weights, in folders as the published one is."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from maskinversion.tasks.diffusion.prior_model import PriorConfig, PriorModel

# As save_pretrained of the published code writes it, in small.
CONFIG = {
    "_class_name": "PriorTransformer",
    "_diffusers_version": "0.25.0",
    "added_emb_type": "prd",
    "additional_embeddings": 4,
    "attention_head_dim": 8,
    "clip_embed_dim": None,
    "dropout": 0.0,
    "embedding_dim": 64,
    "embedding_proj_dim": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "norm_in_type": None,
    "num_attention_heads": 4,
    "num_embeddings": 24,
    "num_layers": 2,
}


def weights(config: dict = CONFIG) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = PriorModel(PriorConfig(**{key: value for key, value in config.items() if key in PriorConfig.__dataclass_fields__}))
    return {key: torch.randn(value.shape, generator=generator) * 0.2 for key, value in model.state_dict().items()}


def write(folder: Path, suffix: str = ".safetensors", config: dict = CONFIG, state: dict | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    state = weights(config) if state is None else state
    file = folder / f"diffusion_pytorch_model{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    return folder
