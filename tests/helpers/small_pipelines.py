"""Pipelines of diffusers in miniature, of random weights, saved to folders as the real ones are.

    python -m tests.helpers.small_pipelines FOLDER        # writes all of them there
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

BUNDLED = Path(__file__).parents[2] / "maskinversion" / "bundled"
WIDTH = json.loads((BUNDLED / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]  # of the embeddings
TEXT = 32
NAMES = ("kandinsky", "kandinsky-inpaint", "unclip", "sd", "sdxl")


def kandinsky_unet(in_channels: int) -> diffusers.UNet2DConditionModel:
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=in_channels, out_channels=8, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        addition_embed_type="image", addition_embed_type_num_heads=64, attention_head_dim=4, cross_attention_dim=32,
        encoder_hid_dim=WIDTH, encoder_hid_dim_type="image_proj", resnet_time_scale_shift="scale_shift", class_embed_type=None,
    )  # fmt: skip


def movq() -> diffusers.VQModel:
    return diffusers.VQModel(
        block_out_channels=[32, 64], down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", "UpDecoderBlock2D"], in_channels=3, out_channels=3, latent_channels=4,
        layers_per_block=1, norm_num_groups=8, norm_type="spatial", num_vq_embeddings=12, vq_embed_dim=4,
    )  # fmt: skip


def kandinsky_scheduler() -> diffusers.DDPMScheduler:
    return diffusers.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, clip_sample=True, clip_sample_range=2.0, sample_max_value=2.0,
        prediction_type="epsilon", thresholding=True, variance_type="learned_range",
    )  # fmt: skip


def vae() -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=[32, 64], in_channels=3, out_channels=3, latent_channels=4, sample_size=32,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip


def unet(**more) -> diffusers.UNet2DConditionModel:
    options = dict(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=16, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT, attention_head_dim=8,
    )  # fmt: skip
    return diffusers.UNet2DConditionModel(**options | more)


def tokenizer(folder: Path) -> CLIPTokenizer:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)


def text_config(**more) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, bos_token_id=52,
        eos_token_id=53, pad_token_id=53, projection_dim=32, **more,
    )  # fmt: skip


def vision(projection: torch.Tensor | None = None) -> CLIPVisionModelWithProjection:
    """projection [width, WIDTH]: that of another model, so that this one passes for it."""
    hidden = 32 if projection is None else len(projection)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=hidden, projection_dim=WIDTH, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
            intermediate_size=37,
        )
    )  # fmt: skip
    if projection is not None:
        model.visual_projection.weight.data = projection.T.float().contiguous()
    return model


def write(name: str, base: Path) -> Path:
    """One pipeline, in a folder of its name."""
    torch.manual_seed(0)
    folder = base / name
    scheduler = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    if name == "kandinsky":
        pipeline = diffusers.KandinskyV22Pipeline(unet=kandinsky_unet(4), scheduler=kandinsky_scheduler(), movq=movq())
    elif name == "kandinsky-inpaint":
        pipeline = diffusers.KandinskyV22InpaintPipeline(unet=kandinsky_unet(9), scheduler=kandinsky_scheduler(), movq=movq())
    else:
        words = tokenizer(base / "words")
        parts = dict(vae=vae(), text_encoder=CLIPTextModel(text_config()), tokenizer=words, scheduler=scheduler)
        if name == "sd":
            off = dict(safety_checker=None, requires_safety_checker=False)
            pipeline = diffusers.StableDiffusionPipeline(unet=unet(), feature_extractor=CLIPImageProcessor(), **parts, **off)
        elif name == "sdxl":
            more = dict(
                addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
                projection_class_embeddings_input_dim=80, attention_head_dim=(2, 4), use_linear_projection=True,
                cross_attention_dim=64,
            )  # fmt: skip
            second = CLIPTextModelWithProjection(text_config(hidden_act="gelu"))
            pipeline = diffusers.StableDiffusionXLPipeline(unet=unet(**more), text_encoder_2=second, tokenizer_2=words, **parts)
        else:
            more = dict(
                class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH, attention_head_dim=(2, 4),
                use_linear_projection=True,
            )  # fmt: skip
            pipeline = diffusers.StableUnCLIPImg2ImgPipeline(
                unet=unet(**more), feature_extractor=CLIPImageProcessor(), image_encoder=vision(),
                image_normalizer=diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
                image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"), **parts,
            )  # fmt: skip
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_adapter(pipeline: str, base: Path) -> Path:
    """A basic IP-Adapter for `sd` or `sdxl`, in the layout of the released files."""
    generator = torch.Generator().manual_seed(1)
    model = diffusers.UNet2DConditionModel.from_pretrained(base / pipeline / "unet")
    cross = model.config.cross_attention_dim
    weights = {
        "image_proj.proj.weight": torch.randn(4 * cross, WIDTH, generator=generator) * WIDTH**-0.5,
        "image_proj.proj.bias": torch.zeros(4 * cross),
        "image_proj.norm.weight": torch.ones(cross),
        "image_proj.norm.bias": torch.zeros(cross),
    }
    for number, (name, _) in enumerate(model.attn_processors.items()):
        if name.endswith("attn2.processor"):
            hidden = model.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{number}.{part}.weight"] = torch.randn(hidden, cross, generator=generator) * cross**-0.5
    file = base / "adapters" / f"adapter_{pipeline}.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(weights, file)
    return file


def write_all(base: Path) -> None:
    for name in NAMES:
        write(name, base)
    for name in ("sd", "sdxl"):
        write_adapter(name, base)


def loader(name, **options):
    adapter = f"adapter_{name}.safetensors" if name in ("sd", "sdxl") else "(none)"
    inputs = {"source": "folder", "source.folder": name, "ip_adapter": adapter, "dtype": "auto", "offload": False}
    return {"class_type": "MaskInversionLoadPipeline", "inputs": inputs | options}


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
