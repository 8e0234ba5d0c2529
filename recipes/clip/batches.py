"""What the CLIP learns from: batches of scenes, with the texts that are true of them."""

from dataclasses import dataclass, fields

import numpy as np
import open_clip
import torch
from torch.utils.data import IterableDataset

from recipes.clip.model import CONTEXT, MODEL, PREPROCESS
from recipes.common.captions import listed, with_article
from recipes.common.scenes import IMAGE_SIZE, TRAINED_KINDS, Scenes
from recipes.common.sprites import TRAINING_STYLES

TEMPLATES = (
    "{}", "{}", "a photo of {}", "a photo of {}", "a photo of {}", "a picture of {}", "an image of {}",
    "a drawing of {}", "an icon of {}", "a scene with {}", "there is {} here", "you can see {}",
)  # fmt: skip


def caption(rng: np.random.Generator, names: list[str]) -> str:
    """One phrase that names all of `names`, in a random template and order."""
    names = [with_article(name) if rng.random() < 0.9 else name for name in rng.permutation(names)]
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(listed(names))


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
        scenes = Scenes(TRAINING_STYLES)
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
