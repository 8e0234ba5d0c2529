"""Writes an SD 2.1 unCLIP-l checkpoint of random weights, float16, under the keys and shapes of sd21-unclip-l.ckpt (3.2 GB).

A program of its own, because ComfyUI is set up when it is imported, and has modules called `nodes` and `tests`.
Usage: python tests/helpers/unclip_checkpoint.py COMFYUI_FOLDER FILE
"""

import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from comfy.cli_args import args

args.cpu = True

import comfy.ops  # noqa: E402
import open_clip  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402

UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4],
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1,
    use_linear_in_transformer=True, use_spatial_transformer=True, context_dim=1024, num_head_channels=64, legacy=False,
    num_classes="sequential", adm_in_channels=1536,
)  # fmt: skip
VAE = dict(
    double_z=True, z_channels=4, resolution=256, in_channels=3, out_ch=3, ch=128, ch_mult=[1, 2, 4, 4], num_res_blocks=2,
    attn_resolutions=[], dropout=0.0,
)  # fmt: skip
POOL = 2**22


def shapes() -> dict[str, torch.Size]:
    """Every key of the file."""
    with torch.device("meta"):
        unet = UNetModel(**UNET, operations=comfy.ops.disable_weight_init)
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
        parts = []
        for name in ("ViT-H-14", "ViT-L-14"):
            config = open_clip.get_model_config(name)
            parts.append(open_clip.model.CLIP(**{key: config[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}).state_dict())
    found = {f"model.diffusion_model.{key}": value.shape for key, value in unet.state_dict().items()}
    found |= {f"first_stage_model.{key}": value.shape for key, value in vae.state_dict().items()}
    text, image = parts
    found |= {f"cond_stage_model.model.{key}": value.shape for key, value in text.items() if not key.startswith("visual.")}
    return found | {f"embedder.model.{key}": value.shape for key, value in image.items() if key.startswith("visual.")}


def main() -> None:
    pool = torch.randn(POOL, generator=torch.Generator().manual_seed(0))
    weights = {}
    for number, (key, shape) in enumerate(shapes().items()):
        if len(shape) < 2:
            filled = torch.full(shape, 1.0 if key.endswith("weight") else 0.0, dtype=torch.float16)
        else:
            scaled = (pool * shape[1:].numel() ** -0.5).half().roll(7919 * number)
            count = shape.numel()
            filled = scaled.repeat(-(-count // POOL))[:count].view(shape)
        weights[key] = filled.contiguous()
    Path(sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights}, sys.argv[2])


main()
