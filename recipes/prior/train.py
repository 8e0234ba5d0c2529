"""Train a prior: lambda-ECLIPSE's network in miniature, from nothing, on the bundled CLIP.

    python -m recipes.prior.train pairs               # draws pairs of objects, of those that `recipes.common.pictures` wrote
    python -m recipes.prior.train train               # goes on from what it left in recipes/build
    python -m recipes.prior.train export              # writes maskinversion/bundled/prior

As in arXiv 2402.05195, a prompt such as "a fox beside a cup" is read by the CLIP's text side, the token of the fox's region stands
in the place of "fox", and the network learns the image embedding of a picture of both: its squared error, and which of the batch's
pictures it is (the paper's contrastive loss, here between image embeddings). The token is of another scene than the picture, of the
same drawing of a fox; so it says which fox. Some subjects are not a region's token but the embedding of the object on another
background, as the paper trains on; some are only called "thing" or "object"; some prompts have two regions, and some none.

What differs from the published prior, for the bundled CLIP is 128 wide inside of its text side and its embeddings have 64 numbers:
the states of the text are projected into the space of the embeddings, as `Prior.read` does. No picture of edges is ever shown.
"""

import argparse
import json
import logging
from dataclasses import asdict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.models.text_states import pieces_of, places_of, states_of
from maskinversion.operations import nothing
from maskinversion.tasks.diffusion.files import ABOUT
from maskinversion.tasks.diffusion.prior import FILES
from maskinversion.tasks.diffusion.prior_model import PriorConfig, PriorModel
from recipes.common.arguments import add_training, parser, run_stage
from recipes.common.scenes import Scenes
from recipes.common.sprites import TRAINING_STYLES
from recipes.common.training import Run, trained
from recipes.prior.pairs import PAIRS, TEMPLATES, UNNAMED, draw_pairs, sentence

log = logging.getLogger(__name__)
FOLDER = BUNDLED / "prior"
CONFIG = PriorConfig(num_attention_heads=4, attention_head_dim=32, num_layers=3, embedding_dim=64, num_embeddings=24)
SUBJECTS = (0.15, 0.55, 0.3)  # how often no region, one and two stand in a prompt
NAMELESS = 0.35  # how often a subject is called a thing
WHOLE = 0.25  # how often the embedding of a picture of the subject stands there, and no region's token
SINGLE = 0.15  # how often a prompt is of one object


class Prompts:
    """Draws prompts of pairs of objects, and what the prior is given for them."""

    def __init__(self, clip: mi.Clip, names: list[str]):
        self.clip, self.names = clip, names
        self.pieces = {word: pieces_of(clip, word) for word in (*names, *UNNAMED)}

    def draw(self, rng: np.random.Generator, pair: np.ndarray) -> tuple[str, list[tuple[int, str]], bool]:
        """A prompt of two classes; its subjects, each as first or second of the pair, and its word; and whether the first is
        alone."""
        single = rng.random() < SINGLE
        count = int(rng.choice(3, p=SUBJECTS))
        chosen = [0] if single and count else list(rng.permutation(2)[:count])
        words = [self.names[c] for c in pair]
        for which in chosen:
            if rng.random() < NAMELESS:
                words[which] = UNNAMED[which]
        if single:
            return sentence("{}", words[:1]), [(which, words[which]) for which in chosen], True
        order = [0, 1] if rng.random() < 0.5 else [1, 0]
        text = sentence(TEMPLATES[int(rng.integers(len(TEMPLATES)))], [words[which] for which in order])
        return text, [(int(which), words[which]) for which in chosen], False

    @torch.no_grad()
    def read(self, texts: list[str], subjects: list[list[str]], tokens: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """What the network takes: states [B, L, D] with the tokens [n, D] of each text in the places of its subjects, lengths [B],
        and embeddings of the texts [B, D]."""
        numbers = self.clip.tokenizer(texts)
        ends = numbers.argmax(1)
        _, projected = states_of(self.clip, numbers)
        states = projected[:, : int(ends.max()) + 1].clone()
        for row, (words, some) in enumerate(zip(subjects, tokens, strict=True)):
            for word, token in zip(words, some, strict=True):
                states[row, places_of(numbers[row].tolist(), self.pieces[word])] = token
        return states, ends + 1, projected[torch.arange(len(texts)), ends]


def train(args: argparse.Namespace) -> None:
    data = np.load(PAIRS)
    clip = mi.load_clip("bundled")
    prompts = Prompts(clip, Scenes(TRAINING_STYLES).names)
    classes = data["classes"]
    tokens, alone, together = (torch.from_numpy(data[name]) for name in ("tokens", "alone", "together"))
    scale = together.square().mean()
    torch.manual_seed(args.seed)
    run = Run(args, "prior", starting(CONFIG), every=50)
    edges = nothing(clip).embeddings.expand(args.batch, -1)
    rng = np.random.default_rng((args.seed, run.step))
    for _ in run.steps():
        chosen = rng.integers(0, len(classes), args.batch)
        texts, words, some, targets = [], [], [], []
        for index in chosen:
            text, subjects, single = prompts.draw(rng, classes[index])
            texts.append(text)
            words.append([word for _, word in subjects])
            source = alone if rng.random() < WHOLE else tokens
            some.append(source[index, [which for which, _ in subjects]])
            targets.append(alone[index, 0] if single else together[index])
        states, lengths, whole = prompts.read(texts, words, some)
        noise = torch.from_numpy(rng.standard_normal((args.batch, tokens.shape[-1]), np.float32))
        given = (one.to(run.device) for one in (states, lengths, whole, edges, noise))
        with run.autocast():
            found = run.model(*given).float()
        target = torch.stack(targets).to(run.device)
        error = (found - target).square().mean() / scale
        alike = F.normalize(found, dim=1) @ F.normalize(target, dim=1).T / args.temperature
        which = F.cross_entropy(alike, torch.arange(len(found), device=run.device))
        run.learn(error + args.contrast * which, {"error": error, "contrast": which})


def starting(config: PriorConfig) -> PriorModel:
    """With learnt places and the last of the sequence as small random numbers, as published priors have them."""
    model = PriorModel(config)
    for parameter in (model.positional_embedding, model.prd_embedding):
        torch.nn.init.normal_(parameter, std=0.02)
    return model


def export(args: argparse.Namespace) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    weights = {key: value.half().contiguous() for key, value in trained("prior").items()}
    save_file(weights, FOLDER / FILES[0])
    about = {"clip": "the bundled CLIP", "clip_fingerprint": mi.load_clip("bundled").fingerprint}
    for name, content in (("config.json", asdict(CONFIG)), (ABOUT, about)):
        (FOLDER / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{FOLDER}: {sum(file.stat().st_size for file in FOLDER.iterdir()) / 1e6:.1f} MB")


def main() -> None:
    options = parser(__spec__.name, __doc__)
    add_training(options, steps=1500, batch=64, lr=2e-3)
    options.add_argument("--count", type=int, default=18_000, help="of pairs to draw")
    options.add_argument("--contrast", type=float, default=0.2, help="how much the contrastive loss counts")
    options.add_argument("--temperature", type=float, default=0.07)
    run_stage(options, {"pairs": draw_pairs, "train": train, "export": export})


if __name__ == "__main__":
    main()
