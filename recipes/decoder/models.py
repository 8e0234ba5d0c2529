"""The bundled decoders' architecture: Kandinsky 2.2's, in miniature."""

import diffusers
import torch
from safetensors.torch import load_file

from maskinversion.bundled import BUNDLED
from recipes.common import training
from recipes.common.pictures import SIDE

CELL = 4  # pixels, the side of one latent
CHANNELS = 8  # numbers of one latent; with Kandinsky's 4, details were lost
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False, "set_alpha_to_one": False,
            "steps_offset": 1, "prediction_type": "epsilon"}  # fmt: skip
SHIPPED = {"autoencoder": "decoder/movq", "decoder": "decoder/unet", "inpaint": "decoder-inpaint/unet"}


def autoencoder() -> diffusers.VQModel:
    return diffusers.VQModel(
        block_out_channels=(24, 48, 64), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=CHANNELS, layers_per_block=1, norm_num_groups=8, num_vq_embeddings=1024, vq_embed_dim=CHANNELS,
    )  # fmt: skip


def unet(in_channels: int, width: int) -> diffusers.UNet2DConditionModel:
    """width: of the embeddings. Kandinsky 2.2's blocks, fewer and narrower."""
    return diffusers.UNet2DConditionModel(
        sample_size=SIDE // CELL, in_channels=in_channels, out_channels=2 * CHANNELS,
        block_out_channels=(64, 96, 160), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", addition_embed_type="image", addition_embed_type_num_heads=64,
        attention_head_dim=32, cross_attention_dim=64, encoder_hid_dim=width, encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
    )  # fmt: skip


def shipped(name: str) -> dict[str, torch.Tensor] | None:
    """Bundled weights, where there are any."""
    path = BUNDLED / SHIPPED[name] / "diffusion_pytorch_model.safetensors"
    return {k: v.float() for k, v in load_file(path).items()} if path.is_file() else None


def trained(name: str) -> dict[str, torch.Tensor]:
    """What was trained here, or else what is bundled."""
    return training.trained(name, shipped(name))
