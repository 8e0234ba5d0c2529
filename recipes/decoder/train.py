"""Train the bundled decoder: a Kandinsky 2.2 decoder in miniature, from nothing, on the CPU or a GPU.

    python -m recipes.decoder.train pictures                          # draws them and embeds them with the bundled CLIP, 10 minutes
    python -m recipes.decoder.train autoencoder --steps 3000          # the VQModel that turns pictures into latents and back
    python -m recipes.decoder.train decoder --steps 9000              # a picture from an image embedding
    python -m recipes.decoder.train inpaint --steps 3000              # the same into a hole, from the decoder's weights
    python -m recipes.decoder.train export                            # writes maskinversion/bundled/decoder and decoder-inpaint

Each resumes from what it left in recipes/build or, where there is nothing, goes on from the weights that are bundled already. The
models see image embeddings of the bundled CLIP only, never a token of MaskInversion, with noise; some are left out, for guidance to
lead away from (Ho and Salimans, arXiv 2207.12598). The decoder learns to paint one object in the middle of a grey picture, from the
embedding of that object on another background or of a scene of one to three objects which it stands in; the inpainter to paint an
object back into its scene, from the embedding of it alone. Losses are weighted as in Hang et al., "Efficient Diffusion Training via
Min-SNR Weighting Strategy" (ICCV 2023). The second half of the U-Net's output, a variance in Kandinsky's, is not trained, and the
scheduler (DDIM) does not read it.

--bf16 pays where clip/train.py says so.
"""

import argparse
import json
import logging
import time

import diffusers
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.operations import nothing
from maskinversion.tasks.diffusion import ABOUT
from recipes.common.scenes import BUILD, TRAINED_KINDS, TRAINING_STYLES, Scene, Scenes, background

log = logging.getLogger("train_decoder")
SIDE = 64  # pixels, of the pictures that the decoder makes
CELL = 4  # pixels, the side of one latent
BACKDROP = (208, 208, 208)  # behind the objects that it makes; some of them are white
CHANNELS = 8  # numbers of one latent; with Kandinsky's 4, details were lost
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False, "set_alpha_to_one": False,
            "steps_offset": 1, "prediction_type": "epsilon"}  # fmt: skip
SHIPPED = {"autoencoder": "decoder/movq", "decoder": "decoder/unet", "inpaint": "decoder-inpaint/unet"}
PICTURES = BUILD / "decoder-pictures.npz"


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


def cut_out(scene: Scene, which: int) -> Image.Image | None:
    """One object of a scene by its mask, RGBA. None where too little of it is seen."""
    mask = scene.masks[which]
    rows, columns = np.flatnonzero(mask.max(1) > 0.5), np.flatnonzero(mask.max(0) > 0.5)
    if len(rows) < 8 or len(columns) < 8:
        return None
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Image.fromarray(np.dstack([scene.image[cut], (mask[cut] * 255).astype(np.uint8)]))


def resized(cutout: Image.Image, longest: float) -> Image.Image:
    return cutout.resize([max(1, round(side * longest / max(cutout.size))) for side in cutout.size], Image.BICUBIC)


def alone(rng: np.random.Generator, scene: Scene, which: int) -> np.ndarray | None:
    """One object of a scene, somewhere and large on a background of its own: [S, S, 3] uint8. None where too little is seen."""
    cutout = cut_out(scene, which)
    if cutout is None:
        return None
    size = len(scene.image)
    cutout = resized(cutout, rng.uniform(0.5, 0.95) * size)
    canvas = Image.fromarray((background(rng, size).clip(0, 1) * 255).astype(np.uint8))
    canvas.paste(cutout, [int(rng.integers(0, size - side + 1)) for side in cutout.size], cutout)
    return np.asarray(canvas)


def portrait(cutout: Image.Image) -> np.ndarray:
    """It alone in the middle, on grey: [SIDE, SIDE, 3] uint8."""
    cutout = resized(cutout, 0.9 * SIDE)
    canvas = Image.new("RGB", (SIDE, SIDE), BACKDROP)
    canvas.paste(cutout, [(SIDE - side) // 2 for side in cutout.size], cutout)
    return np.asarray(canvas)


def hole(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Where to paint an object, from its mask: grown, or the box around it; [SIDE, SIDE] bool."""
    small = np.asarray(Image.fromarray(mask).resize((SIDE, SIDE), Image.BOX)) > 0.2
    grow = int(rng.integers(0, 7))
    if rng.random() < 0.5:
        rows, columns = np.flatnonzero(small.max(1)), np.flatnonzero(small.max(0))
        box = np.zeros_like(small)
        box[max(rows[0] - grow, 0) : rows[-1] + grow + 1, max(columns[0] - grow, 0) : columns[-1] + grow + 1] = True
        return box
    grown = F.max_pool2d(torch.from_numpy(small)[None].float(), 2 * grow + 1, stride=1, padding=grow)
    return grown[0].bool().numpy()


def draw_pictures(args: argparse.Namespace) -> None:
    """Of each scene and one object of it: scenes and portraits [n, SIDE, SIDE, 3] uint8, the embeddings of the whole and of the
    object only, somewhere on another background, whole and only [n, D], and a hole around it, holes [n, SIDE, SIDE] bool."""
    rng = np.random.default_rng(args.seed)
    drawn = Scenes(tuple(TRAINING_STYLES))
    inverter = mi.MaskInverter(mi.load_clip("bundled"))
    scenes, portraits, holes = [], [], []
    seen: dict[str, list] = {"whole": [], "only": []}  # by the CLIP
    begin = time.monotonic()
    while len(holes) < args.count:
        count = int(rng.choice((1, 2, 3), p=(0.65, 0.2, 0.15)))
        scene = drawn.draw(rng, TRAINED_KINDS[int(rng.random() < 0.15)], count, augment=rng.random() < 0.5)
        which = int(rng.integers(count))
        only = alone(rng, scene, which)
        if only is None:
            continue
        scenes.append(np.asarray(Image.fromarray(scene.image).resize((SIDE, SIDE), Image.BICUBIC)))
        portraits.append(portrait(cut_out(scene, which)))
        holes.append(hole(rng, scene.masks[which]))
        seen["whole"].append(scene.image)
        seen["only"].append(only)
    log.info("%d scenes drawn, %.0f a second", len(holes), len(holes) / (time.monotonic() - begin))
    found = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        for name, images in seen.items():
            found[name] = np.concatenate([embed(inverter.clip, np.stack(images[i : i + 256])) for i in range(0, len(images), 256)])
    log.info("all embedded, %.0f a second", len(holes) / (time.monotonic() - begin))
    nothings = np.stack([nothing(inverter.clip, what).embeddings[0].numpy() for what in ("grey", "black")])
    drawings = {"scenes": scenes, "portraits": portraits, "holes": holes}
    np.savez(PICTURES, **{name: np.stack(some) for name, some in drawings.items()}, **found, nothings=nothings)


@torch.no_grad()
def embed(clip: mi.Clip, images: np.ndarray) -> np.ndarray:
    """Image embeddings [n, D] of images [n, S, S, 3] uint8 of the model's own size."""
    mean, std = (torch.tensor(v) for v in (clip.tower.mean, clip.tower.std))
    pixels = (torch.from_numpy(images) / 255 - mean) / std
    return clip.model.encode_image(pixels.movedim(-1, 1).contiguous().to(clip.device)).float().cpu().numpy()


def as_input(pictures: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pictures).to(device).movedim(-1, 1) / 127.5 - 1


class Run:
    """A model in training: its optimiser, its average, and how it is saved and resumed. The average is what is exported."""

    def __init__(self, args: argparse.Namespace, name: str, model: torch.nn.Module, start: dict | None = None):
        self.args, self.path = args, BUILD / f"{name}.safetensors"
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).train()
        self.step = 0
        self.optimizer = torch.optim.AdamW([p for _, p in self.learning()], lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01)
        state = load_file(self.path) if self.path.is_file() else None
        if state is not None:
            self.step = int(state.pop("step"))
            self.model.load_state_dict(part(state, "model."))
            for key, p in self.learning():
                mean, square = (state[f"{kind}.{key}"].to(p) for kind in ("mean", "square"))
                self.optimizer.state[p] = {"step": torch.tensor(float(self.step)), "exp_avg": mean, "exp_avg_sq": square}
            self.average = {k: v.to(self.device) for k, v in part(state, "average.").items()}
            log.info("resumed %s at step %d", name, self.step)
        else:
            if start is not None:
                self.model.load_state_dict(start)
            self.average = {k: v.clone() for k, v in self.model.state_dict().items()}

    def learning(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(key, p) for key, p in self.model.named_parameters() if p.requires_grad]

    def steps(self):
        """Yields until --steps are done; the loss that comes back by `learn` is logged."""
        self.began, self.first, self.running = time.monotonic(), self.step, None
        while self.step < self.args.steps:
            rate = self.args.lr * min(1.0, (self.step + 1) / 200, (self.args.steps - self.step) / (0.3 * self.args.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            yield

    def learn(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        for key, value in self.model.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)
        now = loss.item()
        self.running = now if self.running is None else 0.98 * self.running + 0.02 * now
        if self.step % 100 == 0 or self.step == self.args.steps:
            speed = (self.step - self.first) * self.args.batch / (time.monotonic() - self.began)
            log.info("step %d loss %.4f, %.0f pictures/s", self.step, self.running, speed)
        if self.step % 500 == 0 or self.step == self.args.steps:
            self.save()

    def save(self) -> None:
        state = {"step": torch.tensor(self.step)}
        state |= {f"model.{k}": v.contiguous() for k, v in self.model.state_dict().items()}
        state |= {f"average.{k}": v.contiguous() for k, v in self.average.items()}
        for key, p in self.learning():
            state[f"mean.{key}"], state[f"square.{key}"] = self.optimizer.state[p]["exp_avg"], self.optimizer.state[p]["exp_avg_sq"]
        partial = self.path.with_suffix(".part")
        save_file(state, partial)
        partial.replace(self.path)


def part(state: dict, prefix: str) -> dict:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def trained(name: str) -> dict:
    """What is to be used of a model: its average, or what is bundled where it was not trained here."""
    path = BUILD / f"{name}.safetensors"
    found = part(load_file(path), "average.") if path.is_file() else shipped(name)
    if found is None:
        raise SystemExit(f"{path} is missing: train it first")
    return found


def shipped(name: str) -> dict | None:
    """Bundled weights, where there are any."""
    if name not in SHIPPED:
        return None
    path = BUNDLED / SHIPPED[name] / "diffusion_pytorch_model.safetensors"
    return {k: v.float() for k, v in load_file(path).items()} if path.is_file() else None


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
        with torch.autocast(run.device.type, torch.bfloat16, enabled=args.bf16):
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
    # The decoder paints an object alone, from its own embedding or from that of a scene which it stands in.
    embeddings = torch.from_numpy(np.stack([data["only"]] if paints else [data["only"], data["whole"]]))
    width = embeddings.shape[-1]
    start = shipped(args.what)
    if paints and start is None:
        start = trained("decoder")
        first = start["conv_in.weight"]
        start["conv_in.weight"] = torch.cat([first, first.new_zeros(len(first), CHANNELS + 1, *first.shape[2:])], 1)
    run = Run(args, args.what, unet(2 * CHANNELS + 1 if paints else CHANNELS, width), start)
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
        with torch.autocast(run.device.type, torch.bfloat16, enabled=args.bf16), sdpa_kernel(SDPBackend.MATH):
            inputs = (t.to(run.device) for t in (sample, time))
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "autoencoder", "decoder", "inpaint", "export"))
    parser.add_argument("--count", type=int, default=40_000, help="of pictures to draw")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--noise", type=float, default=1.2, help="most that is added to an embedding, as a part of its length")
    parser.add_argument("--bf16", action="store_true", help="see above")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stages = {"pictures": draw_pictures, "autoencoder": train_autoencoder, "export": export}
    stages.get(args.what, train_unet)(args)


if __name__ == "__main__":
    main()
