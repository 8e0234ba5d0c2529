"""Captions of regions: written by a ClipCap (Mokady et al., arXiv 2111.09734), or the best of a list.

ClipCap is a mapping network, which turns one image embedding into a few word embeddings, and a GPT-2 that goes on from them. A
token takes the place of the image embedding, as in arXiv 2407.20034. The modules below carry the names of the published
checkpoints' keys. GPT-2 and its decoding are transformers', imported when a captioner is loaded, not before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as shown
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from ..bundled import BUNDLED
from ..compute.ambient import settled
from ..errors import InputError, ModelError, first_line, memory_advice
from ..files import read_json
from ..identity import check_made_for
from ..models.clip import Clip
from ..models.content import WEIGHT_SUFFIXES, is_weights
from ..models.loading import usable_device
from ..models.weights import KINDS, MOST_LAYERS, check_finite, read_state
from ..operations import embeddings_of, lengths, stack
from ..packages import require
from ..tokens import Sets
from .classify import classify
from .decoding import Decoding

BUNDLED_CAPTIONER = BUNDLED / "captioner" / "captioner.safetensors"
TOKENIZER_FILES = ("vocab.json", "merges.txt")
ABOUT = {"normalize": bool, "clip_fingerprint": str, "clip": str}  # what the JSON file beside the weights may hold
HEAD = 64  # numbers in one head of every published GPT-2
MAPPER_HEADS = 8  # of every published mapping network
MOST_POSITIONS = 2048  # GPT-2 has 1024, and each of its layers a mask of that by that
STOP = "."

# The CLIP that the published checkpoints of each width were trained with, where it is a ViT, by its open_clip name.
PUBLISHED_CLIPS = {512: "ViT-B-32/openai"}

# (regions captioned, of how many), from 0. It may raise to stop.
Callback = Callable[[int, int], None]


class MlpMapper(nn.Module):
    """Embeddings [M, D] to prefixes [M, prefix, width]."""

    def __init__(self, width_in: int, width: int, prefix: int):
        super().__init__()
        self.width_in, self.width = width_in, width
        hidden = width * prefix // 2
        self.model = nn.Sequential(nn.Linear(width_in, hidden), nn.Tanh(), nn.Linear(hidden, width * prefix))

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.model(embeddings).unflatten(1, (-1, self.width))


class TransformerMapper(nn.Module):
    """Embeddings [M, D] to prefixes [M, prefix, width]: learnt vectors that look at `clip` words made of the embedding."""

    def __init__(self, width_in: int, width: int, prefix: int, clip: int, layers: int):
        super().__init__()
        self.width_in, self.width = width_in, width
        self.linear = nn.Linear(width_in, clip * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix, width))
        self.transformer: Any = nn.Module()  # named as in the published weights
        self.transformer.layers = nn.ModuleList(MapperLayer(width) for _ in range(layers))

    def forward(self, embeddings: Tensor) -> Tensor:
        words = self.linear(embeddings).unflatten(1, (-1, self.width))
        words = torch.cat([words, self.prefix_const.expand(len(words), -1, -1)], 1)
        for layer in self.transformer.layers:
            words = layer(words)
        return words[:, -len(self.prefix_const) :]


class MapperLayer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = MapperAttention(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 2 * width), "fc2": nn.Linear(2 * width, width)})

    def forward(self, words: Tensor) -> Tensor:
        words = words + self.attn(self.norm1(words))
        return words + self.mlp["fc2"](self.mlp["fc1"](self.norm2(words)).relu())


class MapperAttention(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, words: Tensor) -> Tensor:
        parts = (self.to_queries(words), *self.to_keys_values(words).chunk(2, -1))
        queries, keys, values = (part.unflatten(-1, (MAPPER_HEADS, -1)).transpose(1, 2) for part in parts)
        seen = nn.functional.scaled_dot_product_attention(queries, keys, values)
        return self.project(seen.transpose(1, 2).flatten(2))


class ClipCap(nn.Module):
    """clip_project: a mapping network. gpt: a GPT2LMHeadModel of transformers."""

    def __init__(self, clip_project: MlpMapper | TransformerMapper, gpt: Any):
        super().__init__()
        self.clip_project = clip_project
        self.gpt = gpt


@dataclass(frozen=True, eq=False)
class Captioner:
    """What `load_captioner` returns.

    name: where it came from. width: of the embeddings that it takes. tokenizer: GPT-2's. normalize: whether it was trained with
    embeddings of length 1. fingerprint, clip: of the CLIP that it was trained with, and that CLIP's name, where known.
    """

    name: str
    model: ClipCap
    tokenizer: Any
    width: int
    normalize: bool
    fingerprint: str | None = None
    clip: str | None = None
    one_at_a_time: Any = field(default_factory=RLock, init=False, repr=False)  # its tokenizer and GPT-2 are changed as they work

    def check(self, tokens: Sets) -> None:
        """Raises InputError for tokens that this captioner does not understand, naming both models and the one to load."""
        check_made_for(tokens, self.name, self.width, self.fingerprint, self.clip)

    @settled()
    def caption(
        self,
        tokens: Sets | Tensor,
        decoding: Decoding | None = None,
        callback: Callback | None = None,
    ) -> list[list[str]]:
        """`count` captions of each of M regions, best first but for sampling; None is greedy.

        tokens: of one picture or several; or any image embeddings [M, D] of the CLIP that the captioner was trained with, of
            which only the width can be checked.

        A region is captioned by itself, so its captions are the same whatever the others are. torch's own random numbers are left
        alone. Several threads may call it, and take turns. Raises InputError for tokens of another CLIP, and for a length that
        GPT-2 has no room for; MemoryLimitError when it does not fit.
        """
        decoding = decoding or Decoding()
        if isinstance(tokens, Tensor):
            embeddings = tokens
            if embeddings.ndim != 2 or embeddings.shape[1] != self.width:
                raise InputError(f"the embeddings have shape {tuple(embeddings.shape)}; {self.name} takes (M, {self.width})")
        else:
            tokens = stack(tokens)
            self.check(tokens)
            embeddings = embeddings_of(tokens)
        if self.normalize:
            embeddings = embeddings / lengths(embeddings)
        captions = []
        for number, embedding in enumerate(embeddings):
            if callback is not None:
                callback(number, len(embeddings))
            advice = memory_advice(f"{decoding.count} captions with {self.name}", "take fewer beams, or fewer captions at once")
            with self.one_at_a_time, advice:
                captions.append(self._caption(embedding, decoding))
        if callback is not None:
            callback(len(embeddings), len(embeddings))
        return captions

    def _caption(self, embedding: Tensor, decoding: Decoding) -> list[str]:
        weight = next(self.model.clip_project.parameters())
        prefix = self.model.clip_project(embedding[None].to(weight))
        room = self.model.gpt.config.n_positions - prefix.shape[1]
        if decoding.length > room:
            raise InputError(f"length is {decoding.length}; {self.name} has room for {room} tokens")
        arguments: dict[str, Any] = {}
        if decoding.how == "beam":
            arguments = {"num_beams": decoding.beams, "num_return_sequences": decoding.count}
        elif decoding.how == "sample":
            prefix = prefix.expand(decoding.count, -1, -1)
            arguments = {"logits_processor": sampling(decoding)}
        end = self.tokenizer.eos_token_id
        found = self.model.gpt.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device),
            max_new_tokens=decoding.length,
            do_sample=False,
            eos_token_id=[end, *self.tokenizer.encode(STOP)],
            pad_token_id=end,
            **arguments,
        )
        texts = self.tokenizer.batch_decode(found, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [" ".join(text.split()) for text in texts]


def sampling(decoding: Decoding) -> list:
    """Logits processors after which the likeliest word is a word drawn at random: by Gumbel noise of each row's own seed."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    generators = [torch.Generator().manual_seed((decoding.seed + k) % 2**63) for k in range(decoding.count)]

    def draw(words: Tensor, scores: Tensor) -> Tensor:
        noise = torch.stack([torch.empty(scores.shape[1]).exponential_(generator=each) for each in generators])
        return scores.float() - noise.log().to(scores.device)

    return LogitsProcessorList(
        [TemperatureLogitsWarper(float(decoding.temperature)), TopPLogitsWarper(float(decoding.top_p)), draw]
    )


def retrieve(
    embeddings: Tensor, clip: Clip, phrases: Sequence[str], count: int = 1, callback: Callback | None = None
) -> list[list[tuple[str, float]]]:
    """The `count` phrases nearest to each of embeddings [M, D], such as `LocalizedTokens.embeddings`, with their cosines, best
    first; all of them when there are fewer.

    callback: (texts read, of how many); it may raise to stop. Raises InputError as `classify` does, and for a count below 1.
    """
    if count < 1:
        raise InputError(f"count is {count}; it must be at least 1")
    found = classify(embeddings, clip, phrases, "{}", callback)
    values, indices = found.similarities.topk(min(count, len(found.phrases)))
    return [[(found.phrases[i], v) for i, v in zip(*row)] for row in zip(indices.tolist(), values.tolist())]


@settled()
def load_captioner(
    source: str | Path = "bundled",
    tokenizer: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Captioner:
    """Load a ClipCap, ready and frozen.

    source: "bundled", a miniature for tokens of the bundled CLIP; or a file of weights with the keys of the published ones, as
        safetensors or .pt. Of a .pt only tensors are read: one with code in it is refused.
    tokenizer: the folder of GPT-2's vocab.json and merges.txt, or a name on the Hugging Face hub. None takes these two files from
        beside the weights, and without them "gpt2" of the hub (downloaded once, then cached).
    device: where it runs; None picks CUDA, then MPS, then the CPU. dtype: of the weights.

    A JSON file of the same name beside the weights may hold `normalize`, whether the captioner takes embeddings of length 1 (else
    those with a transformer do, as published), and `clip_fingerprint` and `clip`, which CLIP it is for. Raises ModelError when a
    file is missing, unreadable, or not a ClipCap; InputError for a device that is not here; PackageError without transformers.
    """
    require("transformers", "a captioner")
    device = usable_device(device)
    path = BUNDLED_CAPTIONER if source == "bundled" else Path(source)
    name = "the bundled captioner" if source == "bundled" else path.name
    state = read_weights(path)
    model = build(state, name).eval().requires_grad_(False)
    model = model.to(device, dtype)
    about = read_about(path.with_suffix(".json"))
    transformer = isinstance(model.clip_project, TransformerMapper)
    width = model.clip_project.width_in
    beside = all(os.path.isfile(path.parent / file) for file in TOKENIZER_FILES)
    return Captioner(
        name=name,
        model=model,
        tokenizer=load_tokenizer(str(tokenizer or (path.parent if beside else "gpt2")), model.gpt.config.vocab_size, name),
        width=width,
        normalize=about.get("normalize", transformer),
        fingerprint=about.get("clip_fingerprint"),
        clip=about.get("clip", PUBLISHED_CLIPS.get(width)),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file, on the CPU. Raises ModelError for anything else."""
    if not is_weights(path):
        raise ModelError(f"{path} is not a file of weights: use one that ends in {', '.join(WEIGHT_SUFFIXES)}")
    state = read_state(path)
    # Older versions of transformers kept the causal mask among the weights.
    state = {key: value for key, value in state.items() if not key.endswith((".attn.bias", ".attn.masked_bias"))}
    for key, value in state.items():
        if value.dtype not in KINDS:
            raise ModelError(f"{path.name} is not a ClipCap captioner: {key} has numbers of type {value.dtype}")
    check_finite(state, path.name)
    return state


def read_about(path: Path) -> dict:
    if not os.path.exists(path):
        return {}
    about = read_json(path, ModelError)
    for key, kind in ABOUT.items():
        if not isinstance(about.get(key), kind | None):
            raise ModelError(f"{path.name} has {shown(about[key])} as {key}, which cannot be: mend it, or take it away")
    return about


def build(state: dict[str, Tensor], name: str) -> ClipCap:
    """The model of a checkpoint, its sizes told by the tensors' shapes. Raises ModelError for one that is not a ClipCap's."""
    shape_of(state, "gpt.transformer.wte.weight", 2, name)
    state.setdefault("gpt.lm_head.weight", state["gpt.transformer.wte.weight"])
    try:
        with torch.device("meta"):  # which takes no memory, whatever the sizes are
            check_weights(clipcap(state, name), state, name)
        with torch.random.fork_rng(devices=[]):  # the random weights that are about to be replaced
            model = clipcap(state, name)
    except (ValueError, IndexError, ZeroDivisionError, RuntimeError, TypeError, OverflowError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{name} is not a ClipCap captioner: its tensors have other shapes") from error
    model.load_state_dict(state)
    return model


def clipcap(state: dict[str, Tensor], name: str) -> ClipCap:
    """A model of the shapes of a checkpoint, with other weights. Raises ModelError for shapes of no captioner."""
    from transformers import GPT2Config, GPT2LMHeadModel

    words, width = shape_of(state, "gpt.transformer.wte.weight", 2, name)
    positions, _ = shape_of(state, "gpt.transformer.wpe.weight", 2, name)
    if positions > MOST_POSITIONS:
        raise ModelError(f"{name} is not a ClipCap captioner: it has {positions} positions, and GPT-2 has 1024")
    config = GPT2Config(
        vocab_size=words,
        n_positions=positions,
        n_embd=width,
        n_layer=count_of(state, "gpt.transformer.h.", name),
        n_head=width // HEAD,
        n_inner=shape_of(state, "gpt.transformer.h.0.mlp.c_fc.weight", 2, name)[1],
        tie_word_embeddings=torch.equal(state["gpt.lm_head.weight"], state["gpt.transformer.wte.weight"]),
        bos_token_id=None,
        eos_token_id=None,
    )
    return ClipCap(mapper(state, width, name), GPT2LMHeadModel(config))


def mapper(state: dict[str, Tensor], width: int, name: str) -> MlpMapper | TransformerMapper:
    """The mapping network of a checkpoint, in either of its two forms. Raises ModelError for neither."""
    if "clip_project.linear.weight" in state:
        made, width_in = shape_of(state, "clip_project.linear.weight", 2, name)
        prefix, _ = shape_of(state, "clip_project.prefix_const", 2, name)
        return TransformerMapper(
            width_in, width, prefix, made // width, count_of(state, "clip_project.transformer.layers.", name)
        )
    _, width_in = shape_of(state, "clip_project.model.0.weight", 2, name)
    made, _ = shape_of(state, "clip_project.model.2.weight", 2, name)
    return MlpMapper(width_in, width, made // width)


def shape_of(state: dict[str, Tensor], key: str, dimensions: int, name: str) -> tuple[int, ...]:
    """Raises ModelError for a tensor that is not there, or is empty or of other dimensions."""
    if key not in state:
        raise ModelError(f"{name} is not a ClipCap captioner: it has no {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions or 0 in shape:
        raise ModelError(f"{name} is not a ClipCap captioner: its tensors have other shapes, such as {shape} of {key}")
    return shape


def count_of(state: dict[str, Tensor], before: str, name: str) -> int:
    """How many layers have keys that begin like this. Raises ModelError where some are missing, or there are too many."""
    numbers = {key.removeprefix(before).partition(".")[0] for key in state if key.startswith(before)}
    if not 0 < len(numbers) <= MOST_LAYERS or numbers != {str(number) for number in range(len(numbers))}:
        raise ModelError(f"{name} is not a ClipCap captioner, or only a part of one: it has {len(numbers)} layers {before}")
    return len(numbers)


def check_weights(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Raises ModelError where a checkpoint does not have exactly what the model has."""
    own = model.state_dict()
    for what, keys in (("has no", own.keys() - state.keys()), ("has something else,", state.keys() - own.keys())):
        if keys:
            raise ModelError(f"{name} is not a ClipCap captioner, or only a part of one: it {what} {min(keys)}")
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise ModelError(
                f"{name} is not a ClipCap captioner: {key} has the shape {tuple(state[key].shape)} where the others ask for "
                f"{tuple(value.shape)}"
            )


def load_tokenizer(source: str, words: int, name: str) -> Any:
    """GPT-2's, from a folder or the hub. Raises ModelError when it is not there, or has other words than the captioner knows."""
    from huggingface_hub import snapshot_download
    from transformers import GPT2TokenizerFast  # pyright: ignore[reportAttributeAccessIssue]  # made when it is asked for

    try:
        # Not by name from transformers, which asks for nine files one after the other, minutes long without internet.
        folder = source if Path(source).is_dir() else snapshot_download(source, allow_patterns=list(TOKENIZER_FILES))
        tokenizer = GPT2TokenizerFast.from_pretrained(folder)
    except Exception as error:  # what tokenizers raises at a damaged file is no other kind
        raise ModelError(
            f"GPT-2's tokenizer could not be loaded from {source} ({first_line(error)}): put its {' and '.join(TOKENIZER_FILES)} "
            f"beside the weights, or load it once with internet"
        ) from error
    if len(tokenizer) != words:
        raise ModelError(f"the tokenizer of {source} has {len(tokenizer)} words, but {name} knows {words}: give it its own")
    return tokenizer
