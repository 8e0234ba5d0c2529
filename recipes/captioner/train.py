"""Train the bundled captioner: a ClipCap in miniature (Mokady et al., arXiv 2111.09734), from nothing, on the CPU or a GPU, on what
`recipes.common.pictures` wrote.

    python -m recipes.captioner.train train             # resumes from what it left in recipes/build
    python -m recipes.captioner.train export            # writes maskinversion/bundled/captioner

It sees image embeddings of the bundled CLIP, of pictures of one object, and tokens of MaskInversion (preset `region`), of one
object of scenes of up to three; of the trained styles and kinds, divided by their length, with noise. (Trained on the embeddings of
whole scenes of up to four, it took what a token keeps of its surroundings for more objects, and named two to four of them.) A
caption names the object ("a cat.") and nothing else: from an embedding of this CLIP no more than a third of the variance of the
background's colour can be read. The vocabulary is a byte pair encoding of these captions. Unlike a published ClipCap, whose GPT-2
has read the web, this one knows no other words.

--bf16 pays where clip/train.py says so.
"""

import argparse
import json
import logging

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

import maskinversion as mi
from maskinversion.tasks.caption import BUNDLED_CAPTIONER, HEAD, ClipCap, MlpMapper, load_captioner
from recipes.common.arguments import add_training, parser, run_stage
from recipes.common.captions import with_article
from recipes.common.paths import BUILD
from recipes.common.pictures import PICTURES
from recipes.common.training import Run, trained

log = logging.getLogger(__name__)
WORDS = BUILD / "captioner-words"
END = "<|endoftext|>"
NO_ARTICLE = ("bread", "cheese", "cherries", "corn", "fire", "glasses", "grapes", "ice cream", "scissors")
PREFIX, WIDTH, LAYERS, POSITIONS = 4, 192, 4, 64


def caption(name: str) -> str:
    return f"{name if name in NO_ARTICLE else with_article(name)}."


def make_words(names: list[str]) -> GPT2TokenizerFast:
    """The vocabulary, from the captions of all names."""
    learner = ByteLevelBPETokenizer()
    learner.train_from_iterator(map(caption, names), vocab_size=1024, min_frequency=1, special_tokens=[END], show_progress=False)
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
    data = np.load(PICTURES)
    kinds = ("only", "token")
    embeddings = F.normalize(torch.from_numpy(np.concatenate([data[kind] for kind in kinds])), dim=1)
    named, names = np.tile(data["named"], len(kinds)), [str(name) for name in data["names"]]
    tokenizer = make_words(names)
    width = embeddings.shape[1]
    torch.manual_seed(args.seed)
    run = Run(args, "captioner", captioner(width, len(tokenizer)))
    rng = np.random.default_rng((args.seed, run.step))
    generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
    log.info("%d words, %.1f million numbers", len(tokenizer), sum(p.numel() for p in run.model.parameters()) / 1e6)
    for _ in run.steps():
        chosen = rng.integers(0, len(named), args.batch)
        token = embeddings[chosen]
        away = torch.randn(token.shape, generator=generator) / width**0.5
        token = F.normalize(token + args.noise * torch.rand(len(token), 1, generator=generator) * away, dim=1).to(run.device)
        rows = [torch.tensor(ids) for ids in tokenizer([caption(names[which]) for which in named[chosen]])["input_ids"]]
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
    options.add_argument("--noise", type=float, default=1.0, help="most that is added to an embedding, as a part of its length")
    run_stage(options, {"train": train, "export": export})


if __name__ == "__main__":
    main()
