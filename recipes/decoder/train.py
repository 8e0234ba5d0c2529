"""Train the bundled decoder: a Kandinsky 2.2 decoder in miniature, from nothing, on the CPU or a GPU, on what
`recipes.common.pictures` wrote.

    python -m recipes.decoder.train autoencoder --steps 3000          # the VQModel that turns pictures into latents and back
    python -m recipes.decoder.train decoder --steps 9000              # a picture from an image embedding
    python -m recipes.decoder.train inpaint --steps 3000              # the same into a hole, from the decoder's weights
    python -m recipes.decoder.train export                            # writes maskinversion/bundled/decoder and decoder-inpaint

Each resumes from what it left in recipes/build or, where there is nothing, goes on from the weights that are bundled already. The
models see image embeddings of the bundled CLIP, and tokens of MaskInversion (preset `region`), with noise; some are left out, for
guidance to lead away from (Ho and Salimans, arXiv 2207.12598). The decoder learns to paint one object in the middle of a grey
picture, from the embedding of that object on another background, or of its region in a scene of one to three objects; the inpainter
to paint an object back into its scene, from the same. Losses are weighted as in Hang et al., "Efficient Diffusion Training via
Min-SNR Weighting Strategy" (ICCV 2023). The second half of the U-Net's output, a variance in Kandinsky's, is not trained, and the
scheduler (DDIM) does not read it.

--bf16 pays where clip/train.py says so.
"""

import argparse
import json
import logging

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.tasks.diffusion.files import ABOUT
from recipes.common.arguments import add_training, parser, run_stage
from recipes.common.pictures import PICTURES
from recipes.common.training import Run
from recipes.decoder.models import CELL, CHANNELS, SCHEDULE, autoencoder, shipped, trained, unet

log = logging.getLogger(__name__)


def as_input(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pictures).to(device).movedim(-1, 1) / 127.5 - 1


def train_autoencoder(args: argparse.Namespace) -> None:
    """Absolute error, at three scales and of edges; latents kept near mean 0 and deviation 1, as the diffusion expects."""
    model = autoencoder()
    model.quantize.requires_grad_(False)
    run = Run(args, "autoencoder", model, shipped("autoencoder"))
    data = np.load(PICTURES)
    pictures = np.concatenate([data["scenes"], data["portraits"]])
    rng = np.random.default_rng((args.seed, run.step))
    for _ in run.steps():
        batch = as_input(pictures[rng.integers(0, len(pictures), args.batch)], run.device)
        batch = batch.flip(-1) if rng.random() < 0.5 else batch
        with run.autocast():
            latents = model.encode(batch).latents.float()
            made = model.decode(latents + 0.05 * torch.randn_like(latents), force_not_quantize=True).sample
        loss, a, b = 0.0, made.float(), batch
        for _scale in range(3):
            loss = loss + (a - b).abs().mean()
            loss = loss + sum((a.diff(dim=d) - b.diff(dim=d)).abs().mean() for d in (-1, -2))
            a, b = (F.avg_pool2d(t, 2) for t in (a, b))
        centre, spread = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        run.learn(loss + 0.1 * (centre.square() + (spread - 1).square()).sum())


@torch.no_grad()
def encoded(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    model = autoencoder().to(device).eval()
    model.load_state_dict(trained("autoencoder"))
    found = torch.cat([model.encode(as_input(pictures[i : i + 256], device)).latents for i in range(0, len(pictures), 256)])
    log.info("latents: mean %.3f, deviation %.3f", found.mean(), found.std())
    return found


def train_unet(args: argparse.Namespace) -> None:
    data = np.load(PICTURES)
    paints = args.what == "inpaint"
    embeddings = torch.from_numpy(np.stack([data[kind] for kind in ("only", "token")]))
    width = embeddings.shape[-1]
    start = shipped(args.what)
    if paints and start is None:
        start = trained("decoder")
        first = start["conv_in.weight"]
        start["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), CHANNELS + 1, *first.shape[2:])], 1)
    model = unet(2 * CHANNELS + 1 if paints else CHANNELS, width)
    model = model.to(memory_format=torch.channels_last)  # takes 0.8 of the time on a CPU
    run = Run(args, args.what, model, start, every=20)
    latents = encoded(data["scenes" if paints else "portraits"], run.device)
    # The pipeline shrinks the mask to one number per latent, then lets the hole grow by one on every side.
    kept = 1 - F.max_pool2d(torch.from_numpy(data["holes"])[:, None, ::CELL, ::CELL].float(), 3, stride=1, padding=1)
    empty = torch.cat([torch.zeros(2, width), torch.from_numpy(data["nothings"])])
    noise_of = diffusers.DDIMScheduler(**SCHEDULE)
    alphas = noise_of.alphas_cumprod
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
    for _ in run.steps():
        chosen = torch.randint(len(latents), (args.batch,), generator=generator)
        token = embeddings[torch.randint(len(embeddings), (args.batch,), generator=generator), chosen]
        away = torch.randn(token.shape, generator=generator) / width**0.5 * token.norm(dim=1, keepdim=True)
        token = token + args.noise * torch.rand(len(token), 1, generator=generator) * away
        dropped = torch.rand(len(token), generator=generator) < 0.1
        token[dropped] = empty[torch.randint(len(empty), (int(dropped.sum()),), generator=generator)]
        clean = latents[chosen]
        time = torch.randint(len(alphas), (args.batch,), generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        sample = noise_of.add_noise(clean, noise, time)
        if paints:
            mask = kept[chosen]
            sample = torch.cat([sample, clean * mask, mask], 1)
        # On a CPU the fused attention's backward pass is slower for so few words.
        with run.autocast(), sdpa_kernel(SDPBackend.MATH):
            inputs = (sample.to(run.device, memory_format=torch.channels_last), time.to(run.device))
            found = run.model(*inputs, None, added_cond_kwargs={"image_embeds": token.to(run.device)}).sample
        error = (found[:, :CHANNELS].float() - noise.to(run.device)).square()
        error = (error * (1 - mask)).sum((1, 2, 3)) / (CHANNELS * (1 - mask).sum((1, 2, 3))) if paints else error.mean((1, 2, 3))
        ratio = alphas[time] / (1 - alphas[time])
        run.learn((error * (ratio.clamp(max=5) / ratio).to(error)).mean())


def export(args: argparse.Namespace) -> None:
    data = np.load(PICTURES)
    movq = autoencoder()
    movq.load_state_dict(trained("autoencoder"))
    movq.quantize.embedding.weight.data = codes(encoded(data["portraits"][:2048], torch.device("cpu")), 1024)
    clip = mi.load_clip("bundled")
    for name, folder, kind, channels in (
        ("decoder", "decoder", diffusers.KandinskyV22Pipeline, CHANNELS),
        ("inpaint", "decoder-inpaint", diffusers.KandinskyV22InpaintPipeline, 2 * CHANNELS + 1),
    ):
        model = unet(channels, data["whole"].shape[1])
        model.load_state_dict(trained(name))
        pipeline = kind(unet=model.half(), scheduler=diffusers.DDIMScheduler(**SCHEDULE), movq=movq.half())
        pipeline.save_pretrained(BUNDLED / folder)
        about = {"clip": "the bundled CLIP", "clip_fingerprint": clip.fingerprint}  # a token of another CLIP is refused
        (BUNDLED / folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        files = [file for file in (BUNDLED / folder).rglob("*") if file.is_file()]
        print(f"{BUNDLED / folder}: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")


def codes(latents: torch.Tensor, count: int) -> torch.Tensor:
    """[count, CHANNELS]: the nearest of these stands for a latent when decoding with quantisation, by k-means."""
    points = latents.movedim(1, -1).reshape(-1, latents.shape[1])
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[: count * 64]]
    centres = points[:count].clone()
    for _ in range(15):
        nearest = torch.cdist(points, centres).argmin(1)
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        members = torch.bincount(nearest, minlength=count)[:, None]
        centres = torch.where(members > 0, total / members.clamp(min=1), centres)
    return centres


def main() -> None:
    options = parser(__spec__.name, __doc__)
    add_training(options, steps=9000, batch=64, lr=1e-3)
    options.add_argument("--noise", type=float, default=1.2, help="most that is added to an embedding, as a part of its length")
    training = {"autoencoder": train_autoencoder, "decoder": train_unet, "inpaint": train_unet}
    run_stage(options, {**training, "export": export})


if __name__ == "__main__":
    main()
