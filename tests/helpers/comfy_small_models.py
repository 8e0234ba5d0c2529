"""Nodes for tests: models of ComfyUI's own classes and file formats, of random weights, as small as their loaders allow.

Copied into the custom_nodes of the tests' ComfyUI server. The widths that consumers of hidden states ask for are the real ones.
"""

import json

import comfy.ldm.flux.model
import comfy.ldm.flux.redux
import comfy.ldm.hunyuan_video.model
import comfy.ldm.wan.model
import comfy.ldm.wan.model_animate
import comfy.ldm.wan.vae
import comfy.ops
import comfy.sd
import comfy.taesd.taesd
import torch
from comfy.clip_vision import ClipVisionModel

CLIP = dict(model_type="clip_vision_model", num_attention_heads=16, intermediate_size=128, patch_size=14, num_channels=3,
            image_size=224)  # fmt: skip
SIGLIP = dict(model_type="siglip_vision_model", hidden_size=1152, num_attention_heads=16, intermediate_size=128, image_size=384,
              hidden_act="gelu_pytorch_tanh", patch_size=14, num_channels=3, image_mean=[0.5] * 3, image_std=[0.5] * 3)  # fmt: skip
ENCODERS = {
    "ViT-L": CLIP | dict(hidden_size=1024, num_hidden_layers=3, projection_dim=768, hidden_act="quick_gelu"),
    "ViT-H": CLIP | dict(hidden_size=1280, num_hidden_layers=3, projection_dim=1024, hidden_act="gelu"),
    "SigLIP": SIGLIP | dict(num_hidden_layers=2),
    "SigLIP, deep": SIGLIP | dict(num_hidden_layers=20),  # USO reads the block that is 20 from the end
    "SigLIP, unmixed": SIGLIP | dict(num_hidden_layers=2),
}  # fmt: skip
UNMIXED = "self_attn.out_proj"  # without it no row knows of another
OPERATIONS = dict(operations=comfy.ops.disable_weight_init, device="cpu", dtype=torch.float32)
WAN = dict(patch_size=(1, 2, 2), dim=128, ffn_dim=128, out_dim=16, num_heads=1, **OPERATIONS)
TRANSFORMER = dict(hidden_size=128, mlp_ratio=4.0, num_heads=1, depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56],
                   qkv_bias=True)  # fmt: skip
VIDEO = dict(image_model="hunyuan_video", in_channels=65, out_channels=32, vec_in_dim=None, context_in_dim=3584, theta=256,
             patch_size=[1, 1, 1], guidance_embed=False, byt5=False, meanflow=False, use_cond_type_embedding=True,
             vision_in_dim=1152, meanflow_sum=True)  # fmt: skip
FLUX = dict(image_model="flux", in_channels=16, out_channels=16, vec_in_dim=768, context_in_dim=4096, theta=10000, patch_size=2,
            guidance_embed=True, txt_ids_dims=[])  # fmt: skip
DIFFUSION = {
    "FLUX": lambda: comfy.ldm.flux.model.Flux(**TRANSFORMER, **FLUX, **OPERATIONS),
    "Wan": lambda: comfy.ldm.wan.model.WanModel("i2v", in_dim=36, num_layers=1, **WAN),
    "Wan Animate": lambda: comfy.ldm.wan.model_animate.AnimateWanModel("animate", in_dim=36, num_layers=5, **WAN),
    "SCAIL 2": lambda: comfy.ldm.wan.model.SCAIL2WanModel("scail2", in_dim=20, num_layers=1, **WAN),
    "HunyuanVideo 1.5": lambda: comfy.ldm.hunyuan_video.model.HunyuanVideo(**TRANSFORMER, **VIDEO, **OPERATIONS),
}


def filled(module: torch.nn.Module) -> torch.nn.Module:
    """With random weights in place of whatever was in memory."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            noise *= parameter.shape[1:].numel() ** -0.5
        is_norm = "norm" in name and parameter.ndim == 1 and not name.endswith("bias")
        parameter.data = (1 + 0.1 * noise if is_norm else noise).to(parameter.dtype)
    return module


class TestClipVision:
    INPUT_TYPES = classmethod(lambda s: {"required": {"kind": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CLIP_VISION",), "make", "test"

    def make(self, kind):
        model = ClipVisionModel(ENCODERS[kind])
        for name, parameter in filled(model.model).named_parameters():
            if kind.endswith("unmixed") and UNMIXED in name:
                parameter.data.zero_()
        return (model,)


class TestDiffusionModel:
    """Through ComfyUI's own loader, which recognises a model by the keys of its file."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"kind": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "make", "test"

    def make(self, kind):
        return (comfy.sd.load_diffusion_model_state_dict(filled(DIFFUSION[kind]()).state_dict()),)


class TestVAE:
    """kind: `image` has 4 numbers a latent (TAESD), `video` 16 (Wan)."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"kind": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("VAE",), "make", "test"

    def make(self, kind):
        if kind == "image":
            model = comfy.taesd.taesd.TAESD(latent_channels=4)
        else:
            model = comfy.ldm.wan.vae.WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                                             temperal_downsample=[False, True, True], dropout=0.0)  # fmt: skip
        return (comfy.sd.VAE(sd=filled(model).state_dict()),)


class TestStyleModel:
    """FLUX Redux."""

    INPUT_TYPES = classmethod(lambda s: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("STYLE_MODEL",), "make", "test"

    def make(self):
        return (comfy.sd.StyleModel(filled(comfy.ldm.flux.redux.ReduxImageEncoder())),)


class TestUSOPatch:
    """The projector of USO, as the node Load Model Patch gives it."""

    INPUT_TYPES = classmethod(lambda s: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL_PATCH",), "make", "test"

    def make(self):
        from comfy.model_patcher import ModelPatcher
        from comfy_extras.nodes_model_patch import SigLIPMultiFeatProjModel

        model = filled(SigLIPMultiFeatProjModel(**OPERATIONS))
        return (ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu")),)


class TestText:
    """A conditioning of the width that a model asks for, since the real text encoders have billions of weights."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"width": ("INT",), "pooled": ("INT",), "seed": ("INT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "test"

    def make(self, width, pooled, seed):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, 8, width, generator=generator)
        return ([[text, {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}]],)


class TestConditioningState:
    """Everything in a conditioning: shapes and sums of tensors."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"conditioning": ("CONDITIONING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, conditioning):
        ((text, more),) = conditioning
        found = {"text": text} | {name: value for name, value in more.items() if torch.is_tensor(value)}
        report = {name: [[*value.shape], value.double().sum().item(), value.abs().sum().item()] for name, value in found.items()}
        report["others"] = {name: str(value) for name, value in more.items() if not torch.is_tensor(value)}
        return {"ui": {"text": [json.dumps(report)]}}


class TestReplaced:
    """What Token into Conditioning changes: by how much the vectors differ from the token, and the rest from what was there."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"before": ("CONDITIONING",), "after": ("CONDITIONING",), "tokens": ("MASKINVERSION_TOKENS",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, before, after, tokens):
        (token,) = torch.cat([one.embeddings for one in tokens])
        ((a, more_a),), ((b, more_b),) = before, after
        width = len(token)
        report = {
            "shape": [*b.shape],
            "token": float((b[..., :width] - token).abs().max()),
            "picture": float((a[..., :width] - token).abs().max()),
            "rest": float((b[..., width:] - a[..., width:]).abs().sum()),
            "others": more_a.keys() == more_b.keys() and all(more_a[name] is more_b[name] for name in more_a),
        }
        return {"ui": {"text": [json.dumps(report)]}}


class TestCloseLatents:
    """The mean difference of two latents [..., h, w] in the left half and in the right half."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"a": ("LATENT",), "b": ("LATENT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, a, b):
        change = (a["samples"] - b["samples"]).abs()
        middle = change.shape[-1] // 2
        return {"ui": {"text": [json.dumps([float(change[..., :middle].mean()), float(change[..., middle:].mean())])]}}


class TestStates:
    """How far EMBEDS of hidden states, and those of WanVideoWrapper, are from the outputs that they are of."""

    INPUT_TYPES = classmethod(
        lambda s: {
            "required": {
                "pos_embed": ("EMBEDS",),
                "neg_embed": ("EMBEDS",),
                "wan": ("WANVIDIMAGE_CLIPEMBEDS",),
                "region": ("CLIP_VISION_OUTPUT",),
                "black": ("CLIP_VISION_OUTPUT",),
            }
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, pos_embed, neg_embed, wan, region, black):
        states, nothing = region.penultimate_hidden_states, black.penultimate_hidden_states
        report = {
            "pos": [*pos_embed.shape],
            "neg": [*neg_embed.shape],
            "wan": [*wan["clip_embeds"].shape],
            "same": torch.equal(pos_embed, states),
            "black": float((neg_embed - nothing).abs().max() / nothing.abs().max()),
            "rows": float((wan["clip_embeds"] - 0.5 * states.reshape(1, -1, states.shape[-1])).abs().max()),
            "negative": None if wan["negative_clip_embeds"] is None else torch.equal(wan["negative_clip_embeds"], nothing),
        }
        return {"ui": {"text": [json.dumps(report)]}}


class TestUSO:
    """What a model patched with USO puts before FLUX's text, for a text of 4 tokens."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"model": ("MODEL",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, model):
        (patch,) = model.model_options["transformer_options"]["patches"]["post_input"]
        found = patch({"txt": torch.zeros(1, 4, 3072), "txt_ids": torch.zeros(1, 4, 3)})
        report = [[*found["txt"].shape], [*found["txt_ids"].shape], found["txt"].double().sum().item()]
        return {"ui": {"text": [json.dumps(report)]}}


KINDS = (TestClipVision, TestDiffusionModel, TestVAE, TestStyleModel, TestUSOPatch, TestText, TestConditioningState, TestReplaced)
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (*KINDS, TestCloseLatents, TestStates, TestUSO)}
