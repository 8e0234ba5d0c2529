"""Train the bundled CLIP on emoji scenes, from nothing, on the CPU or a GPU.

    python -m recipes.clip.train --steps 6000 --cooldown 1500       # resumes from recipes/build/clip.safetensors
    python -m recipes.clip.train --export                           # writes maskinversion/bundled/ in local-dir format

Four losses. Two are a CLIP's own, contrastive between a scene and (a) the name of every class in a prompt, (b) the captions of
the batch. Several objects are in a scene, so several texts are right: the target is spread evenly over them, as in Yang et al.,
"Unified Contrastive Learning in Image-Text-Label Space" (CVPR 2022). Two use the scenes' exact masks, since an hour on a CPU is
no match for the billions of pictures from which a large CLIP learns where things are: (c) what the last attention takes from a
patch that an object fills is asked for that object's name (the dense features of Zhou et al., "Extract Free Dense Labels from
CLIP", ECCV 2022, trained instead of found); (d) the explainability map (LeGrad, arXiv 2404.03214) of a token between the
scene's embedding and the name of one of its objects is asked for that object's mask, by Dice.

Until the cooldown, the last quarter, a part of the patches is dropped (Li et al., "Scaling Language-Image Pre-training via
Masking", CVPR 2023), which trains about twice as fast; the cooldown sees whole pictures while the rate falls.

--bf16 is about twice as fast where the processor multiplies bfloat16 (AVX-512 BF16, AMX, or a GPU), and a hundred times slower
where it does not.
"""

import argparse
import json
import logging
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, IterableDataset

from recipes.common.scenes import BUILD, IMAGE_SIZE, TRAINED_KINDS, TRAINING_STYLES, Scenes

log = logging.getLogger("train_clip")
BUNDLED = Path(__file__).parents[2] / "maskinversion" / "bundled"
CONTEXT = 24
MODEL = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": IMAGE_SIZE, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64,
        "pool_type": "tok",
    },
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}  # fmt: skip
PREPROCESS = {"size": IMAGE_SIZE, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
# Of an exported image embedding, on average. It changes no cosine, but makes a step of the published learning rate, 0.1, as
# long for this model as for ViT-B/16 (embeddings of 512 numbers, about 10 long).
LENGTH = 3.6
TEMPLATES = (
    "{}", "{}", "a photo of {}", "a photo of {}", "a photo of {}", "a picture of {}", "an image of {}",
    "a drawing of {}", "an icon of {}", "a scene with {}", "there is {} here", "you can see {}",
)  # fmt: skip


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption(rng: np.random.Generator, names: list[str]) -> str:
    """One phrase that names all of `names`, in a random template and order."""
    names = [with_article(name) if rng.random() < 0.9 else name for name in rng.permutation(names)]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(listed)


@dataclass(frozen=True)
class Batch:
    """B scenes over C classes, P patches.

    images [B, 3, S, S]; present [B, C]; patches [B, P], the class that fills most of each patch, -1 where none fills half;
    asked [B], one class of each scene, and region [B, P], how much of each patch it fills; captions [B, T] and the classes that
    they name, captioned [B, C]; names [C, T].
    """

    images: torch.Tensor
    present: torch.Tensor
    patches: torch.Tensor
    asked: torch.Tensor
    region: torch.Tensor
    captions: torch.Tensor
    captioned: torch.Tensor
    names: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


class Batches(IterableDataset):
    """Endless batches of scenes of the trained styles and kinds."""

    def __init__(self, batch: int, seed: int, first_step: int):
        self.batch, self.seed, self.step = batch, seed, first_step

    def __iter__(self):
        scenes = Scenes(tuple(TRAINING_STYLES))
        rng = np.random.default_rng((self.seed, self.step))
        tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
        mean, std = np.float32(PREPROCESS["mean"]), np.float32(PREPROCESS["std"])
        classes = len(scenes.names)
        while True:
            single = np.interp(self.step, (1000, 2000), (0.85, 0.2))  # a name is learnt sooner from a scene of one object
            counts = (single, *np.array((0.4, 0.35, 0.25)) * (1 - single))
            self.step += 1
            images, captions, patches, asked, region = [], [], [], [], []
            present, captioned = np.zeros((2, self.batch, classes), np.float32)
            for i in range(self.batch):
                count = rng.choice((1, 2, 3, 4), p=counts)
                scene = scenes.draw(rng, TRAINED_KINDS[rng.integers(len(TRAINED_KINDS))], count)
                images.append((scene.image.astype(np.float32) / 255 - mean) / std)
                filled = fill(scene.masks)
                patches.append(np.where(filled.max(0) >= 0.5, np.array(scene.classes)[filled.argmax(0)], -1))
                one = rng.integers(count)
                asked.append(scene.classes[one])
                region.append(filled[one])
                named = rng.permutation(scene.classes)[: rng.integers(1, min(count, 3) + 1)]
                captions.append(caption(rng, [scenes.names[c] for c in named]))
                present[i, scene.classes] = 1
                captioned[i, named] = 1
            yield Batch(
                images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
                present=torch.from_numpy(present),
                patches=torch.from_numpy(np.stack(patches)),
                asked=torch.tensor(asked),
                region=torch.from_numpy(np.stack(region)),
                captions=tokenizer(captions),
                captioned=torch.from_numpy(captioned),
                names=tokenizer([caption(rng, [name]) for name in scenes.names]),
            )


def fill(masks: np.ndarray) -> np.ndarray:
    """How much of each patch masks [n, S, S] fill: [n, P]."""
    patch = MODEL["vision_cfg"]["patch_size"]
    cells = IMAGE_SIZE // patch
    return masks.reshape(-1, cells, patch, cells, patch).mean((2, 4)).reshape(len(masks), -1)


@dataclass(frozen=True)
class Encoded:
    """Unit embeddings of B images.

    image [B, D]: the model's own, from the class token. mean [B, D]: of the mean token, on which the map is defined. patches
    [B, K, D]: of what the last attention takes from each kept patch. attention [B, h, N, N]: the last block's, in the graph.
    """

    image: torch.Tensor
    mean: torch.Tensor
    patches: torch.Tensor
    attention: torch.Tensor


def encode(visual: torch.nn.Module, images: torch.Tensor, kept: torch.Tensor) -> Encoded:
    tokens = visual.conv1(images).flatten(2).mT + visual.positional_embedding[1:]
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([first, tokens[:, kept]], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    projected = F.linear(last.ln_1(tokens), last.attn.in_proj_weight, last.attn.in_proj_bias)
    query, key, value = (t.unflatten(-1, (last.attn.num_heads, -1)).transpose(1, 2) for t in projected.chunk(3, -1))
    attention = (query @ key.mT * query.shape[-1] ** -0.5).softmax(-1)
    attended = tokens + last.attn.out_proj((attention @ value).transpose(1, 2).flatten(2))
    leaving = attended + last.mlp(last.ln_2(attended))
    alone = last.attn.out_proj(value.transpose(1, 2).flatten(2)[:, 1:])
    alone = alone + last.mlp(last.ln_2(alone))
    found = (F.normalize(visual.ln_post(t) @ visual.proj, dim=-1) for t in (leaving[:, 0], leaving.mean(1), alone))
    return Encoded(*found, attention)


def explain(score: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """LeGrad maps [B, K] in 0..1 of scores [B] over the kept patches, differentiable."""
    (gradient,) = torch.autograd.grad(score.sum(), attention, create_graph=True)
    relevance = gradient.relu().float().mean((1, 2))[:, 1:]
    low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
    return (relevance - low) / (high - low + 1e-12)


def contrastive(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways, the target of a row (column) spread evenly over its positives; rows without one are left out."""
    total = logits.new_zeros(())
    for scores, right in ((logits, positive), (logits.T, positive.T)):
        right = right[rows := right.sum(1) > 0]
        total = total + F.cross_entropy(scores[rows], right / right.sum(1, keepdim=True))
    return total / 2


def build() -> open_clip.CLIP:
    model = open_clip.CLIP(**MODEL)
    # Learnt positions start from sines: neighbours are alike from the first step (Beyer et al., arXiv 2205.01580).
    waves = get_2d_sincos_pos_embed(MODEL["vision_cfg"]["width"], model.visual.grid_size[0], cls_token=True)
    model.visual.positional_embedding.data.copy_(torch.from_numpy(waves))
    return model


def train(args: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(args.seed)
    path = BUILD / "clip.safetensors"
    step = 0
    state = load_file(path) if path.is_file() else None
    model = build().to(device).train()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=args.lr, betas=(0.9, 0.98)
    )
    if state is not None:
        step = int(state.pop("step"))
        model.load_state_dict({k: v for k, v in state.items() if not k.startswith("adam.")})
        moments = {k[5:]: v for k, v in state.items() if k.startswith("adam.")}
        names = {id(p): n for n, p in model.named_parameters()}
        for p in decayed + plain:
            n = names[id(p)]
            mean, square = (moments[f"{kind}.{n}"].to(device) for kind in "mv")
            optimizer.state[p] = {"step": torch.tensor(float(step)), "exp_avg": mean, "exp_avg_sq": square}
        log.info("resumed at step %d", step)
    loader = iter(DataLoader(Batches(args.batch, args.seed, step), batch_size=None, num_workers=1, prefetch_factor=4))
    start, seen, running = time.monotonic(), 0, None
    while step < args.steps:
        left = args.steps - step
        rate = args.lr * min(1.0, (step + 1) / 300, left / max(args.cooldown, 1))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = next(loader).to(device)
        cells = batch.patches.shape[1]
        dropped = 0 if left <= args.cooldown else int(args.patch_dropout * cells)
        kept = torch.randperm(cells, device=device)[: cells - dropped]
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            found = encode(model.visual, batch.images, kept)
            name, text = (F.normalize(model.encode_text(t), dim=-1) for t in (batch.names, batch.captions))
            blend = 0.8 * torch.rand(len(batch.images), 1, device=device)
            token = F.normalize(blend * found.image + (1 - blend) * name[batch.asked], dim=-1).detach()
            maps = explain((found.mean * token).sum(-1), found.attention)
        image, patches, name, text = (t.float() for t in (found.image, found.patches, name, text))
        scale = model.logit_scale.exp().clamp(max=100)
        by_name = scale * image @ name.T
        inside = batch.captioned @ batch.present.T == batch.captioned.sum(1, keepdim=True)  # caption j is true of image i: [j, i]
        contrast = contrastive(by_name, batch.present) + contrastive(scale * image @ text.T, inside.T.float())
        classes, region = batch.patches[:, kept], batch.region[:, kept]
        dense = F.cross_entropy(scale * patches[classes >= 0] @ name.T, classes[classes >= 0])
        dice = (1 - (2 * (maps * region).sum(1) + 0.1) / (maps.sum(1) + region.sum(1) + 0.1)).mean()
        loss = contrast + dense + dice
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        seen += len(batch.images)
        with torch.no_grad():
            hit = batch.present.gather(1, by_name.argmax(1, keepdim=True)).mean().item()
        now = np.array((contrast.item(), hit, dense.item(), dice.item()))
        running = now if running is None else 0.98 * running + 0.02 * now
        if step % 50 == 0 or step == args.steps:
            log.info("step %d contrast %.3f, top name is in the scene %.3f, patches %.3f, maps %.3f, scale %.1f, %.0f images/s",
                     step, *running, scale.item(), seen / (time.monotonic() - start))  # fmt: skip
        if step % 250 == 0 or step == args.steps:
            save(model, optimizer, step, path)


def save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, path: Path) -> None:
    state = {k: v.contiguous() for k, v in model.state_dict().items()} | {"step": torch.tensor(step)}
    for n, p in model.named_parameters():
        state[f"adam.m.{n}"], state[f"adam.v.{n}"] = optimizer.state[p]["exp_avg"], optimizer.state[p]["exp_avg_sq"]
    partial = path.with_suffix(".part")
    save_file(state, partial)
    partial.replace(path)


@torch.no_grad()
def export() -> None:
    state = load_file(BUILD / "clip.safetensors")
    steps = int(state.pop("step"))
    model = build().eval()
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("adam.")})
    images = next(iter(Batches(256, 1, 10**6))).images
    model.visual.proj *= LENGTH / model.encode_image(images).norm(dim=-1).mean()
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    BUNDLED.mkdir(exist_ok=True)
    save_file(weights, BUNDLED / "open_clip_model.safetensors", metadata={"format": "pt", "steps": str(steps)})
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (BUNDLED / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    names = Scenes(tuple(TRAINING_STYLES)).names
    (BUNDLED / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{BUNDLED}: {sum(f.stat().st_size for f in BUNDLED.iterdir()) / 1e6:.1f} MB after {steps} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--cooldown", type=int, default=1500, help="last steps, with a falling rate and every patch")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=4e-4)
    parser.add_argument("--patch-dropout", type=float, default=0.5)
    parser.add_argument("--bf16", action="store_true", help="see above")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="write the trained model where the library finds it, and stop")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    export() if args.export else train(args)


if __name__ == "__main__":
    main()
