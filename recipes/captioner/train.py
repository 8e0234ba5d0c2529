"""Train the bundled captioner: a ClipCap in miniature (Mokady et al., arXiv 2111.09734), from nothing, on the CPU or a GPU.

    python -m recipes.captioner.train embed             # draws scenes and embeds them with the bundled CLIP
    python -m recipes.captioner.train train             # resumes from what it left in recipes/build
    python -m recipes.captioner.train export            # writes maskinversion/bundled/captioner

It sees image embeddings of the bundled CLIP, of scenes of one object, and tokens of MaskInversion (preset `region`), of one object
of scenes of up to four; of the trained styles and kinds, divided by their length, with noise. (Trained on the embeddings of scenes
of up to four, it took what a token keeps of its surroundings for more objects, and named two to four of them; `--objects 4` does
that.) Captions name the objects in any order ("a cat and an owl.") and nothing else: from an embedding of this CLIP no more than a
third of the variance of the background's colour can be read. The vocabulary is a byte pair encoding of these captions. Unlike a
published ClipCap, whose GPT-2 has read the web, this one knows no other words.

--bf16 pays where clip/train.py says so.
"""

import argparse
import itertools
import json
import logging
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

import maskinversion as mi
from maskinversion.tasks.caption import BUNDLED_CAPTIONER, HEAD, ClipCap, MlpMapper, load_captioner
from recipes.common.arguments import add_training, parser, run_stage
from recipes.common.captions import listed, with_article
from recipes.common.embedding import embed, region_tokens
from recipes.common.paths import BUILD
from recipes.common.scenes import TRAINED_KINDS, Scenes
from recipes.common.sprites import TRAINING_STYLES
from recipes.common.training import Run, trained

log = logging.getLogger(__name__)
EMBEDDINGS = BUILD / "captioner-embeddings.npz"
WORDS = BUILD / "captioner-words"
END = "<|endoftext|>"
MOST = 4  # objects
NO_ARTICLE = ("bread", "cheese", "cherries", "corn", "fire", "glasses", "grapes", "ice cream", "scissors")
PREFIX, WIDTH, LAYERS, POSITIONS = 4, 192, 4, 64


def caption(names: list[str]) -> str:
    """A sentence that names all of `names`, in their order."""
    return listed([name if name in NO_ARTICLE else with_article(name) for name in names]) + "."


def draw_and_embed(args: argparse.Namespace) -> None:
    """embeddings [n, D], classes [n, MOST] with -1 where there are fewer; tokens [n, D] of one object of each scene, and its class
    [n], named; and the CLIP's names."""
    rng = np.random.default_rng(args.seed)
    scenes = Scenes(TRAINING_STYLES)
    clip = mi.load_clip("bundled")
    embeddings, classes = [], np.full((args.count, MOST), -1)
    tokens, named = [], np.zeros(args.count, int)
    begin = time.monotonic()
    for first in range(0, args.count, 256):
        images, masks = [], []
        for i in range(first, min(first + 256, args.count)):
            count = int(rng.choice((1, 2, 3, 4), p=(0.4, 0.25, 0.2, 0.15)))
            scene = scenes.draw(rng, TRAINED_KINDS[rng.integers(len(TRAINED_KINDS))], count, augment=rng.random() < 0.5)
            images.append(scene.image)
            classes[i, :count] = scene.classes
            which = int(rng.integers(count))
            masks.append(scene.masks[which])
            named[i] = scene.classes[which]
        embeddings.append(embed(clip, images, args.bf16))
        tokens.append(region_tokens(clip, images, masks))
        if first // 256 % 20 == 0:
            log.info("%d scenes, %.0f a second", first + len(images), (first + len(images)) / (time.monotonic() - begin))
    found = {"embeddings": np.concatenate(embeddings), "tokens": np.concatenate(tokens)}
    np.savez(EMBEDDINGS, **found, classes=classes, named=named, names=np.array(scenes.names))


def make_words(names: list[str]) -> GPT2TokenizerFast:
    """The vocabulary, from captions of every pair of names."""
    learner = ByteLevelBPETokenizer()
    pairs = (caption(list(pair)) for pair in itertools.permutations(names, 2))
    learner.train_from_iterator(pairs, vocab_size=1024, min_frequency=2, special_tokens=[END], show_progress=False)
    WORDS.mkdir(exist_ok=True)
    learner.save_model(str(WORDS))
    return GPT2TokenizerFast.from_pretrained(WORDS)


def captioner(width: int, words: int) -> ClipCap:
    """width: of the embeddings. The word embeddings are not tied to the last layer, as safetensors would have it."""
    config = GPT2Config(
        vocab_size=words, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=WIDTH // HEAD, tie_word_embeddings=False,
        embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return ClipCap(MlpMapper(width, WIDTH, PREFIX), GPT2LMHeadModel(config))


def train(args: argparse.Namespace) -> None:
    data = np.load(EMBEDDINGS)
    classes, names = data["classes"], [str(name) for name in data["names"]]
    few = (classes >= 0).sum(1) <= args.objects
    embeddings = F.normalize(torch.from_numpy(np.concatenate([data["embeddings"][few], data["tokens"]])), dim=1)
    of_tokens = np.full((len(data["named"]), MOST), -1)
    of_tokens[:, 0] = data["named"]
    classes = np.concatenate([classes[few], of_tokens])
    tokenizer = make_words(names)
    width = embeddings.shape[1]
    torch.manual_seed(args.seed)
    run = Run(args, "captioner", captioner(width, len(tokenizer)))
    rng = np.random.default_rng((args.seed, run.step))
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
    log.info("%d words, %.1f million numbers", len(tokenizer), sum(p.numel() for p in run.model.parameters()) / 1e6)
    for _ in run.steps():
        chosen = rng.integers(0, len(classes), args.batch)
        token = embeddings[chosen]
        away = torch.randn(token.shape, generator=generator) / width**0.5
        token = F.normalize(token + args.noise * torch.rand(len(token), 1, generator=generator) * away, dim=1).to(run.device)
        texts = [caption([names[c] for c in rng.permutation(row[row >= 0])]) for row in classes[chosen]]
        rows = [torch.tensor(ids) for ids in tokenizer(texts)["input_ids"]]
        ids = torch.nn.utils.rnn.pad_sequence(rows, True, -100).to(run.device)
        with run.autocast():
            words = run.model.gpt.transformer.wte(ids.clamp(min=0))
            logits = run.model.gpt(inputs_embeds=torch.cat([run.model.clip_project(token), words[:, :-1]], 1)).logits
        run.learn(F.cross_entropy(logits[:, PREFIX - 1 :].float().flatten(0, 1), ids.flatten(), ignore_index=-100))


def export(args: argparse.Namespace) -> None:
    folder = BUNDLED_CAPTIONER.parent
    folder.mkdir(exist_ok=True)
    save_file({key: value.half().contiguous() for key, value in trained("captioner").items()}, BUNDLED_CAPTIONER)
    GPT2TokenizerFast.from_pretrained(WORDS).backend_tokenizer.model.save(str(folder))
    about = {"clip": "the bundled CLIP", "clip_fingerprint": mi.load_clip("bundled").fingerprint, "normalize": True}
    BUNDLED_CAPTIONER.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    load_captioner()
    print(f"{folder}: {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB")


def main() -> None:
    options = parser(__spec__.name, __doc__)
    add_training(options, steps=1000, batch=128, lr=1e-3)
    options.add_argument("--count", type=int, default=40_000, help="of scenes to draw")
    options.add_argument("--objects", type=int, default=1, help="most, in the scenes that it is trained on")
    options.add_argument("--noise", type=float, default=1.0, help="most that is added to an embedding, as a part of its length")
    run_stage(options, {"embed": draw_and_embed, "train": train, "export": export})


if __name__ == "__main__":
    main()
