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

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from maskinversion.bundled import BUNDLED
from recipes.clip.batches import Batches
from recipes.clip.model import MODEL, PREPROCESS, build, encode, explain
from recipes.common.arguments import add_training, parser, start_log
from recipes.common.scenes import Scenes
from recipes.common.sprites import TRAINING_STYLES
from recipes.common.training import Run, saved, trained

# Of an exported image embedding, on average. It changes no cosine, but makes a step of the published learning rate, 0.1, as
# long for this model as for ViT-B/16 (embeddings of 512 numbers, about 10 long).
LENGTH = 3.6


def contrastive(logits: torch.Tensor, positive: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways, the target of a row (column) spread evenly over its positives; rows without one are left out."""
    total = logits.new_zeros(())
    for scores, right in ((logits, positive), (logits.T, positive.T)):
        right = right[rows := right.sum(1) > 0]
        total = total + F.cross_entropy(scores[rows], right / right.sum(1, keepdim=True))
    return total / 2


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    model = build()
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    run = Run(args, "clip", model, groups=groups, betas=(0.9, 0.98), warm_up=300, cooldown=args.cooldown, every=50, average=False)
    device = run.device
    loader = iter(DataLoader(Batches(args.batch, args.seed, run.step), batch_size=None, num_workers=1, prefetch_factor=4))
    for _ in run.steps():
        batch = next(loader).to(device)
        cells = batch.patches.shape[1]
        dropped = 0 if run.left <= args.cooldown else int(args.patch_dropout * cells)
        kept = torch.randperm(cells, device=device)[: cells - dropped]
        with run.autocast():
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
        hit = batch.present.gather(1, by_name.argmax(1, keepdim=True)).mean()
        figures = {"contrast": contrast, "top name is in the scene": hit, "patches": dense, "maps": dice, "scale": scale}
        run.learn(contrast + dense + dice, figures)


@torch.no_grad()
def export() -> None:
    model = build().eval()
    model.load_state_dict(trained("clip"))
    steps = int(saved("clip")["step"])
    images = next(iter(Batches(256, 1, 10**6))).images
    model.visual.proj *= LENGTH / model.encode_image(images).norm(dim=-1).mean()
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    BUNDLED.mkdir(exist_ok=True)
    save_file(weights, BUNDLED / "open_clip_model.safetensors", metadata={"format": "pt", "steps": str(steps)})
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (BUNDLED / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    names = Scenes(TRAINING_STYLES).names
    (BUNDLED / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    print(f"{BUNDLED}: {sum(f.stat().st_size for f in BUNDLED.iterdir()) / 1e6:.1f} MB after {steps} steps")


def main() -> None:
    options = parser(__spec__.name, __doc__)
    add_training(options, steps=6000, batch=64, lr=4e-4)
    options.add_argument("--cooldown", type=int, default=1500, help="last steps, with a falling rate and every patch")
    options.add_argument("--patch-dropout", type=float, default=0.5)
    options.add_argument("--export", action="store_true", help="write the trained model where the library finds it, and stop")
    args = options.parse_args()
    start_log()
    export() if args.export else train(args)


if __name__ == "__main__":
    main()
