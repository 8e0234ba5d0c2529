"""The judge: a small convolutional network that names what is drawn, and knows nothing of the CLIP."""

import argparse
import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from recipes.common.paths import BUILD
from recipes.common.pictures import SIDE, shrunk
from recipes.common.scenes import TRAINED_KINDS, Scenes
from recipes.common.sprites import TRAINING_STYLES

log = logging.getLogger(__name__)
JUDGE = BUILD / "judge.safetensors"


def judge(classes: int) -> nn.Module:
    """[B, 3, SIDE, SIDE] in -1..1 to scores [B, classes]."""
    layers: list[nn.Module] = []
    width = 3
    for out, stride in ((32, 2), (64, 1), (64, 2), (128, 1), (128, 2), (256, 1), (256, 2)):
        layers += [nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(width, classes))


def train_judge(args: argparse.Namespace) -> None:
    """On scenes of one to three objects, some of them blurred as small pictures are; an even target over the objects there."""
    rng = np.random.default_rng(args.seed + 1)
    scenes = Scenes(TRAINING_STYLES)
    classes = len(scenes.names)
    pictures, targets = [], np.zeros((args.pictures, classes), np.float32)
    for i in range(args.pictures):
        count = int(rng.choice((1, 2, 3), p=(0.7, 0.15, 0.15)))
        scene = scenes.draw(rng, TRAINED_KINDS[int(rng.random() < 0.3)], count)
        pictures.append(shrunk(scene.image))
        targets[i, scene.classes] = 1 / count
    pixels = torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
    targets = torch.from_numpy(targets)
    torch.manual_seed(args.seed)
    model = judge(classes).train()
    total = args.epochs * (len(pixels) // 128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total)
    begin, done, running = time.monotonic(), 0, None
    for _ in range(args.epochs):
        order = torch.randperm(len(pixels))
        for i in range(0, len(order) - 127, 128):
            batch = pixels[order[i : i + 128]].float() / 127.5 - 1
            if torch.rand(()) < 0.5:
                batch = batch.flip(-1)
            if torch.rand(()) < 0.6:
                small = F.interpolate(batch, scale_factor=float(torch.empty(()).uniform_(0.3, 0.9)), mode="area")
                batch = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
            loss = F.cross_entropy(model(batch), targets[order[i : i + 128]])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            done += 1
            running = loss.item() if running is None else 0.97 * running + 0.03 * loss.item()
            if done % 100 == 0:
                log.info("step %d of %d loss %.3f, %.0f pictures/s", done, total, running, done * 128 / (time.monotonic() - begin))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, JUDGE)


def load_judge(classes: int) -> nn.Module:
    model = judge(classes)
    model.load_state_dict(load_file(JUDGE))
    return model.eval()


def names_of(model: nn.Module, pictures: np.ndarray) -> np.ndarray:
    """The judge's first answers [n] for pictures [n, h, w, 3] in 0..1."""
    return best_of(model, pictures, 1)[:, 0]


def best_of(model: nn.Module, pictures: np.ndarray, count: int) -> np.ndarray:
    """The judge's best answers [n, count], the first of them first."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).float().movedim(-1, 1) * 2 - 1
    with torch.no_grad():
        return model(F.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)).topk(count, 1).indices.numpy()
