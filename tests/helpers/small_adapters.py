"""Newer pipelines of diffusers in miniature, of random weights, and IP-Adapters with the names of weights that the published files
have.

    sd, sdxl            IP-Adapter Plus               h94/IP-Adapter, ip-adapter-plus_sd15.safetensors
    kolors              IP-Adapter Plus               Kwai-Kolors/Kolors-IP-Adapter-Plus, ip_adapter_plus_general.bin
    sd3                 InstantX's                    InstantX/SD3.5-Large-IP-Adapter, ip-adapter.bin
    flux, chroma        XLabs's                       XLabs-AI/flux-ip-adapter, ip_adapter.safetensors
"""

from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5TokenizerFast

from tests.helpers.small_pipelines import TEXT, WIDTH, text_config, tokenizer, unet, write

STATES = 192  # numbers of a hidden state, as many as the bundled CLIP has
HIDDEN = 64  # inside of resamplers: one head
ROWS = 8  # that a resampler makes
LAYERS = 4  # of every published resampler
OF_STATES = ("sd", "sdxl", "kolors", "sd3")
OF_TOKENS = ("flux", "chroma")
SINCE = {"kolors": "0.31", "sd3": "0.33", "flux": "0.33", "chroma": "0.34"}


def newer_vae(channels: int = 4) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=[32, 64], in_channels=3, out_channels=3, latent_channels=channels, sample_size=32, shift_factor=0.1,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip


def t5_tokenizer() -> T5TokenizerFast:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -2.0) for letter in "▁abcdefghijklmnopqrstuvwxyz")]
    words = Tokenizer(models.Unigram(pieces, 2, False))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return T5TokenizerFast(tokenizer_object=words, extra_ids=0, model_max_length=16)


def t5(width: int = TEXT) -> T5EncoderModel:
    return T5EncoderModel(T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=37, num_layers=1, num_heads=4))


def chat_tokenizer(folder: Path):
    from diffusers.pipelines.kolors import ChatGLMTokenizer
    from sentencepiece import SentencePieceTrainer

    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text.txt"
    text.write_text("a fox beside a cup and the quick brown dog jumps over a lazy hedgehog\n" * 20)
    SentencePieceTrainer.train(input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=32, minloglevel=2)
    return ChatGLMTokenizer(str(folder / "tokenizer.model"), padding_side="left")


def chat() -> torch.nn.Module:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    model = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2, padded_vocab_size=64, hidden_size=TEXT, ffn_hidden_size=37, kv_channels=8, num_attention_heads=4,
            seq_length=32, multi_query_attention=True, multi_query_group_num=2, add_qkv_bias=True, use_cache=False,
            original_rope=True,
        )
    )  # fmt: skip
    for name, parameter in model.named_parameters():  # it leaves them as the memory was
        torch.nn.init.ones_(parameter) if "norm" in name else torch.nn.init.normal_(parameter, std=0.05)
    return model


def write_newer(name: str, base: Path) -> Path:
    """One pipeline, in a folder of its name."""
    if name in ("sd", "sdxl"):
        return write(name, base)
    torch.manual_seed(0)
    flow = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=name in OF_TOKENS)
    if name == "kolors":
        more = dict(
            addition_embed_type="text_time", addition_time_embed_dim=8, transformer_layers_per_block=(1, 2),
            projection_class_embeddings_input_dim=48 + TEXT, attention_head_dim=(2, 4), use_linear_projection=True,
            cross_attention_dim=64, encoder_hid_dim=TEXT, encoder_hid_dim_type="text_proj",
        )  # fmt: skip
        scheduler = diffusers.EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.014, beta_schedule="scaled_linear")
        pipeline = diffusers.KolorsPipeline(
            vae=newer_vae(), text_encoder=chat(), tokenizer=chat_tokenizer(base / "chat"), unet=unet(**more), scheduler=scheduler
        )
    elif name == "sd3":
        core = diffusers.SD3Transformer2DModel(
            sample_size=16, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64, out_channels=16, qk_norm="rms_norm",
        )  # fmt: skip
        words = tokenizer(base / "words")
        pipeline = diffusers.StableDiffusion3Pipeline(
            transformer=core, scheduler=flow, vae=newer_vae(16), tokenizer=words, tokenizer_2=words, tokenizer_3=t5_tokenizer(),
            text_encoder=CLIPTextModelWithProjection(text_config()), text_encoder_2=CLIPTextModelWithProjection(text_config()),
            text_encoder_3=t5(64),
        )  # fmt: skip
    else:
        shape = dict(
            patch_size=1, in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=TEXT, axes_dims_rope=[4, 4, 8],
        )  # fmt: skip
        parts = dict(scheduler=flow, vae=newer_vae())
        if name == "flux":
            core = diffusers.FluxTransformer2DModel(**shape, pooled_projection_dim=TEXT, guidance_embeds=True)
            pipeline = diffusers.FluxPipeline(
                transformer=core, text_encoder=CLIPTextModel(text_config()), tokenizer=tokenizer(base / "words"),
                text_encoder_2=t5(), tokenizer_2=t5_tokenizer(), **parts,
            )  # fmt: skip
        else:
            core = diffusers.ChromaTransformer2DModel(
                **shape, approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1
            )
            pipeline = diffusers.ChromaPipeline(transformer=core, text_encoder=t5(), tokenizer=t5_tokenizer(), **parts)
    pipeline.save_pretrained(base / name, safe_serialization=True)
    return base / name


def resampler(out: int) -> dict[str, tuple[int, ...]]:
    """The shapes of IP-Adapter Plus's `image_proj`, by the published names."""
    shapes: dict[str, tuple[int, ...]] = {"latents": (1, ROWS, HIDDEN)}
    shapes |= {"proj_in.weight": (HIDDEN, STATES), "proj_in.bias": (HIDDEN,)}
    shapes |= {"proj_out.weight": (out, HIDDEN), "proj_out.bias": (out,), "norm_out.weight": (out,), "norm_out.bias": (out,)}
    for layer in range(LAYERS):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{part}": (HIDDEN,) for part in ("weight", "bias")}
        products = {"0.to_q": (HIDDEN, HIDDEN), "0.to_kv": (2 * HIDDEN, HIDDEN), "0.to_out": (HIDDEN, HIDDEN)}
        products |= {"1.1": (4 * HIDDEN, HIDDEN), "1.3": (HIDDEN, 4 * HIDDEN)}
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in products.items()}
    return shapes


def time_resampler(out: int) -> dict[str, tuple[int, ...]]:
    """InstantX's, which knows of the time, too."""
    shapes = resampler(out)
    for layer in range(LAYERS):
        shapes |= {f"layers.{layer}.2.1.weight": (4 * HIDDEN, HIDDEN), f"layers.{layer}.2.1.bias": (4 * HIDDEN,)}
    for number, width in ((1, 320), (2, HIDDEN)):
        shapes |= {f"time_embedding.linear_{number}.weight": (HIDDEN, width), f"time_embedding.linear_{number}.bias": (HIDDEN,)}
    return shapes


def shapes_for(name: str, base: Path) -> dict[str, tuple[int, ...]]:
    """Of all weights of an adapter for the pipeline in a folder, by their published names."""
    if name in OF_TOKENS:
        shapes = {"ip_adapter_proj_model.proj.weight": (4 * TEXT, WIDTH), "ip_adapter_proj_model.proj.bias": (4 * TEXT,)}
        shapes |= {f"ip_adapter_proj_model.norm.{part}": (TEXT,) for part in ("weight", "bias")}
        for block in range(2):
            for side in "kv":
                key = f"double_blocks.{block}.processor.ip_adapter_double_stream_{side}_proj"
                shapes |= {f"{key}.weight": (32, TEXT), f"{key}.bias": (32,)}
        return shapes
    if name == "sd3":
        shapes = {f"image_proj.{key}": shape for key, shape in time_resampler(32).items()}
        for block in range(2):
            shapes |= {f"ip_adapter.{block}.norm_ip.linear.weight": (64, HIDDEN), f"ip_adapter.{block}.norm_ip.linear.bias": (64,)}
            shapes |= {f"ip_adapter.{block}.to_{side}_ip.weight": (32, 32) for side in "kv"}
            shapes |= {f"ip_adapter.{block}.{norm}.weight": (8,) for norm in ("norm_q", "norm_k", "norm_ip_k")}
        return shapes
    model = diffusers.UNet2DConditionModel.from_pretrained(base / name / "unet")
    cross = model.config.cross_attention_dim
    shapes = {f"image_proj.{key}": shape for key, shape in resampler(cross).items()}
    for number, processor in enumerate(model.attn_processors):
        if processor.endswith("attn2.processor"):
            out = model.get_submodule(processor.removesuffix(".processor")).to_k.weight.shape[0]
            shapes |= {f"ip_adapter.{number}.to_{side}_ip.weight": (out, cross) for side in "kv"}
    return shapes


def write_newer_adapter(name: str, base: Path) -> Path:
    generator = torch.Generator().manual_seed(1)
    weights = {key: torch.randn(shape, generator=generator) * 0.2 for key, shape in shapes_for(name, base).items()}
    folder = base / "newer-adapters"
    folder.mkdir(exist_ok=True)
    if name in ("kolors", "sd3"):
        parts = {part: {} for part in ("image_proj", "ip_adapter")}
        for key, value in weights.items():
            part, _, rest = key.partition(".")
            parts[part][rest] = value
        torch.save(parts, folder / f"{name}.bin")
        return folder / f"{name}.bin"
    save_file(weights, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


