"""Train the bundled CLIP on emoji scenes, from nothing, on the CPU or a GPU.

    python recipes/train_clip.py --steps 6000 --cooldown 1500       # resumes from recipes/build/clip.safetensors
    python recipes/train_clip.py --export                           # writes maskinversion/bundled/ in local-dir format

The losses are contrastive, between a scene and (a) the name of every class in a prompt, (b) the captions of the batch.
Several objects are in a scene,
so several texts are right: the target is spread evenly over them, as in Yang et al., "Unified Contrastive Learning in
Image-Text-Label Space" (CVPR 2022). Until the cooldown, two things make it learn in an hour what would take days: half of
the patches are dropped (Li et al., "Scaling Language-Image Pre-training via Masking", CVPR 2023), and a patch that an object
fills is also asked for that object's name (region-text contrast, as in Zhong et al., "RegionCLIP", CVPR 2022). The cooldown,
the last quarter, sees whole pictures and captions only, as any CLIP.
"""

import argparse
import json
import logging
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.pos_embed import get_2d_sincos_pos_embed
from safetensors.torch import load_file, save_file
from scenes import BUILD, IMAGE_SIZE, TRAINED_KINDS, TRAINING_STYLES, Scene, Scenes
from torch.utils.data import DataLoader, IterableDataset

log = logging.getLogger("train_clip")
BUNDLED = Path(__file__).parents[1] / "maskinversion" / "bundled"
CONTEXT = 24
MODEL = {
    "embed_dim": 256,
    "vision_cfg": {
        "image_size": IMAGE_SIZE, "patch_size": 8, "width": 192, "layers": 6, "head_width": 64,
        "pool_type": "avg", "final_ln_after_pool": True,
    },
    "text_cfg": {"context_length": CONTEXT, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}  # fmt: skip
PREPROCESS = {"size": IMAGE_SIZE, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
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


class Batches(IterableDataset):
    """Endless batches of B scenes over C classes.

    images [B, 3, S, S], present [B, C], the class of every patch [B, P] (-1 where no object fills half of it), caption tokens
    [B, T], the captions' classes [B, C], name tokens [C, T].
    """

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
            images, captions, patches = [], [], []
            present, captioned = np.zeros((2, self.batch, classes), np.float32)
            for i in range(self.batch):
                count = rng.choice((1, 2, 3, 4), p=counts)
                scene = scenes.draw(rng, TRAINED_KINDS[rng.integers(len(TRAINED_KINDS))], count)
                images.append((scene.image.astype(np.float32) / 255 - mean) / std)
                patches.append(patch_classes(scene))
                named = rng.permutation(scene.classes)[: rng.integers(1, min(count, 3) + 1)]
                captions.append(caption(rng, [scenes.names[c] for c in named]))
                present[i, scene.classes] = 1
                captioned[i, named] = 1
            names = [caption(rng, [name]) for name in scenes.names]
            images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
            patches = torch.from_numpy(np.stack(patches))
            yield images, torch.from_numpy(present), patches, tokenizer(captions), torch.from_numpy(captioned), tokenizer(names)


def patch_classes(scene: Scene) -> np.ndarray:
    """The class of the object that fills at least half of each patch, or -1: [P]."""
    patch = MODEL["vision_cfg"]["patch_size"]
    cells = IMAGE_SIZE // patch
    covered = scene.masks.reshape(-1, cells, patch, cells, patch).mean((2, 4)).reshape(len(scene.masks), -1)
    return np.where(covered.max(0) >= 0.5, np.array(scene.classes)[covered.argmax(0)], -1)


def encode(visual: torch.nn.Module, images: torch.Tensor, kept: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit embeddings of images [B, D], and of each of their `kept` patches by itself [B, K, D]."""
    patches = visual.conv1(images).flatten(2).mT + visual.positional_embedding[1:]
    first = (visual.class_embedding + visual.positional_embedding[0]).expand(len(images), 1, -1)
    tokens = visual.transformer(visual.ln_pre(torch.cat([first, patches[:, kept]], 1)))[:, 1:]
    pooled, each = (visual.ln_post(t) @ visual.proj for t in (tokens.mean(1), tokens))
    return F.normalize(pooled, dim=-1), F.normalize(each, dim=-1)


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
        images, present, classes, captions, captioned, names = (t.to(device) for t in next(loader))
        cells = classes.shape[1]
        dropped = 0 if left <= args.cooldown else int(args.patch_dropout * cells)
        kept = torch.randperm(cells, device=device)[: cells - dropped]
        image, each = encode(model.visual, images, kept)
        name = F.normalize(model.encode_text(names), dim=-1)
        text = F.normalize(model.encode_text(captions), dim=-1)
        scale = model.logit_scale.exp().clamp(max=100)
        by_name = scale * image @ name.T
        inside = (captioned @ present.T == captioned.sum(1, keepdim=True)).float()  # caption j is true of image i: [j, i]
        loss = contrastive(by_name, present) + contrastive(scale * image @ text.T, inside.T)
        if left > args.cooldown:
            filled = classes[:, kept] >= 0
            loss = loss + args.patch_loss * F.cross_entropy(scale * each[filled] @ name.T, classes[:, kept][filled])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        seen += len(images)
        with torch.no_grad():
            hit = present.gather(1, by_name.argmax(1, keepdim=True)).mean().item()
        now = np.array((loss.item(), hit))
        running = now if running is None else 0.98 * running + 0.02 * now
        if step % 50 == 0:
            log.info("step %d loss %.3f, top name is in the scene %.3f, scale %.1f, %.0f images/s",
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


def export() -> None:
    state = load_file(BUILD / "clip.safetensors")
    steps = int(state.pop("step"))
    weights = {k: v.half().contiguous() for k, v in state.items() if not k.startswith("adam.")}
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
    parser.add_argument("--patch-loss", type=float, default=1.0, help="weight of the patches' own names, until the cooldown")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="write the trained model where the library finds it, and stop")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    export() if args.export else train(args)


if __name__ == "__main__":
    main()
