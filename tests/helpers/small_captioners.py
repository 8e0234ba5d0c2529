"""Captioners of random weights in the published format, and the files beside them."""

import json

import torch
from safetensors.torch import save_file

WORDS = ["<|endoftext|>", ".", *(chr(code) for code in range(ord("a"), ord("z") + 1)), "Ġ"]
# width, blocks, positions, words, and of the mapping network: prefix, CLIP words, layers
SIZES = {"small": (64, 2, 48, len(WORDS), 4, 3, 2), "published": (768, 12, 1024, 50257, 10, 10, 8)}


def checkpoint(form, width_in, size="small", seed=0):
    """Random weights with the keys and shapes of the published files, as torch 1.9 and transformers 4.10 wrote them."""
    width, blocks, positions, words, prefix, clip, layers = SIZES[size]
    generator = torch.Generator().manual_seed(seed)
    shapes = {"wte.weight": (words, width), "wpe.weight": (positions, width)}
    for i in range(blocks):
        shapes |= {f"h.{i}.ln_{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
        for name, (a, b) in {
            "attn.c_attn": (width, 3 * width),
            "attn.c_proj": (width, width),
            "mlp.c_fc": (width, 4 * width),
            "mlp.c_proj": (4 * width, width),
        }.items():
            shapes |= {f"h.{i}.{name}.weight": (a, b), f"h.{i}.{name}.bias": (b,)}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,)}
    shapes = {f"gpt.transformer.{key}": shape for key, shape in shapes.items()}
    if form == "mlp":
        hidden = width * prefix // 2
        linears = {"model.0": (hidden, width_in), "model.2": (width * prefix, hidden)}
        shapes |= {f"clip_project.{key}.weight": shape for key, shape in linears.items()}
        shapes |= {f"clip_project.{key}.bias": shape[:1] for key, shape in linears.items()}
    else:
        shapes |= {"clip_project.prefix_const": (prefix, width)}
        shapes |= {"clip_project.linear.weight": (clip * width, width_in), "clip_project.linear.bias": (clip * width,)}
        for i in range(layers):
            own = {f"norm{n}.{part}": (width,) for n in (1, 2) for part in ("weight", "bias")}
            own |= {"attn.to_queries.weight": (width, width), "attn.to_keys_values.weight": (2 * width, width)}
            own |= {"attn.project.weight": (width, width), "attn.project.bias": (width,)}
            own |= {"mlp.fc1.weight": (2 * width, width), "mlp.fc1.bias": (2 * width,)}
            own |= {"mlp.fc2.weight": (width, 2 * width), "mlp.fc2.bias": (width,)}
            shapes |= {f"clip_project.transformer.layers.{i}.{key}": shape for key, shape in own.items()}
    scale = 0.3 if size == "small" else 0.02
    state = {key: scale * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    state["gpt.lm_head.weight"] = state["gpt.transformer.wte.weight"]
    for i in range(blocks):
        state[f"gpt.transformer.h.{i}.attn.bias"] = torch.ones(positions, positions).tril()[None, None].byte()
        state[f"gpt.transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
    return state


def write(folder, state, name="captioner.pt", words=WORDS):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.suffix == ".safetensors":
        save_file({key: value.clone() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return path
