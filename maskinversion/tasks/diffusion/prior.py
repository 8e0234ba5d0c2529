"""A prompt with regions in the places of its words, to the embedding of one picture: lambda-ECLIPSE, the generator of the paper.

Each piece of the prompt is what the CLIP's text side says of it, but for a subject's words, in whose place its region's token
stands. The prior makes of these the embedding that a picture of it all would have, for the decoder of Kandinsky 2.2 to paint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from reprlib import repr as shown

import torch
from torch import Tensor

from ...bundled import BUNDLED
from ...compute.ambient import settled
from ...errors import InputError, ModelError
from ...files import read_json
from ...identity import check_made_for, check_made_with
from ...models.clip import Clip
from ...models.hub import Progress, cached, fetch
from ...models.loading import usable_device
from ...models.text_states import TextStates, pieces_of, places_of, text_states
from ...models.weights import check_counts, check_finite, check_size, read_state
from ...operations import embeddings_of, nothing
from ...tokens import LocalizedTokens, Sets, sets_of
from .decoder import USUAL_CLIPS
from .files import MODEL, trained_with
from .prior_model import BESIDE, PriorConfig, PriorModel

BUNDLED_PRIOR = BUNDLED / "prior"
FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PUBLISHED = "ECLIPSE-Community/Lambda-ECLIPSE-Prior-v1.0"
MOST = 10**5  # of anything that a prior has a number of
# What the published code can build, and no published weights are known to have.
FIXED = {"encoder_hid_proj_type": "linear", "added_emb_type": "prd"}


@dataclass(frozen=True, eq=False)
class Prior:
    """What `load_prior` returns. name: where it came from. fingerprint: of the CLIP that it was trained with, where it says so."""

    name: str
    model: PriorModel
    fingerprint: str | None = None

    @property
    def width(self) -> int:
        """Of the embeddings that it takes and gives."""
        return self.model.config.embedding_dim

    @settled()
    def embed(
        self,
        prompt: str,
        clip: Clip,
        subjects: Sequence[str] = (),
        tokens: Sets = (),
        edges: Sets | None = None,
        seed: int = 0,
    ) -> LocalizedTokens:
        """The image embedding of the prompt, as one token for a decoder. Without subjects, that of the text alone.

        clip: that made the tokens; it reads the prompt. subjects: words of the prompt, each as it stands there, in whose places the
        tokens go, the first token for the first and so on. edges: the token of a picture of edges (Canny's) that is to be followed.

        Raises InputError for a subject that is not in the prompt, or in whose place another one is, for another number of tokens
        than of subjects, and for tokens of another CLIP than the prior's; ModelError for a CLIP that cannot read text.
        """
        ground = nothing(clip)
        subjects = [subjects] if isinstance(subjects, str) else subjects
        tokens = sets_of(tokens) if len(tokens) else []
        edges = [ground] if edges is None else sets_of(edges)
        self.check([ground, *tokens, *edges], clip)
        numbers, sequence, whole = self.read(text_states(clip, prompt))
        found = embeddings_of(tokens) if tokens else torch.zeros(0, self.width)
        if len(found) != len(subjects):
            raise InputError(
                f"there are {len(found)} tokens and {len(subjects)} subjects; give one token for each. Pick Tokens takes one of "
                f"several"
            )
        owner: dict[int, int] = {}
        for number, (subject, token) in enumerate(zip(subjects, found, strict=True)):
            places = places_of(numbers, pieces_of(clip, subject))
            if not places:
                raise InputError(f"the prompt {prompt!r} has no {subject!r}: write the subject as it stands in the prompt")
            sequence[places] = token.to(sequence)
            owner |= dict.fromkeys(places, number)
        if lost := [subject for number, subject in enumerate(subjects) if number not in owner.values()]:
            raise InputError(f"another subject stands in the place of {lost[0]!r}: write each in the prompt with words of its own")
        control = embeddings_of(edges)[:1]
        weight = self.model.proj_in.weight
        noise = torch.randn(1, self.width, generator=torch.Generator().manual_seed(seed % 2**63))
        given = (one.to(weight) for one in (sequence[None], whole[None], control, noise))
        states, text, control, noise = given
        embedding = self.model(states, torch.tensor([len(numbers)], device=weight.device), text, control, noise).float().cpu()
        record = {"prior": self.name, "prompt": prompt, "subjects": list(subjects), "seed": seed}
        return replace(ground, embeddings=embedding, parameters={"operations": [record]})

    def check(self, tokens: Sets, clip: Clip) -> None:
        """Raises InputError for tokens of another CLIP than the prior's, or than the one that is to read the prompt."""
        check_made_with(tokens, clip, "connect the CLIP that made them")
        check_made_for(tokens, self.name, self.width, self.fingerprint, USUAL_CLIPS.get(self.width))

    def read(self, found: TextStates) -> tuple[list[int], Tensor, Tensor]:
        """The numbers of a text's pieces, what stands for each [L, D], and its embedding [D].

        The published prior's CLIP is as wide inside as its embeddings are, and the states stand as they are. Where it is not, as
        with the bundled one, they are projected into the space of the embeddings, which a token is in.
        """
        states = found.states if found.states.shape[1] == self.width else found.projected
        most = self.model.config.num_embeddings
        if len(states) > most:
            raise InputError(f"the prompt has {len(states)} pieces of words, and {self.name} reads {most}: make it shorter")
        return found.numbers, states.clone(), found.embedding


@settled()
def load_prior(source: str | Path, device: str | torch.device = "cpu", progress: Progress | None = None) -> Prior:
    """Load a prior of lambda-ECLIPSE, in float32.

    source: "bundled", a miniature for the bundled CLIP; a folder with a config.json and weights, as safetensors or as PyTorch saves
        them; or the name of one on the Hugging Face hub, such as ECLIPSE-Community/Lambda-ECLIPSE-Prior-v1.0, which is downloaded
        once.
    progress: called with bytes that are here, of how many, while it is downloaded; it may raise to stop.

    Raises ModelError when it is not there, damaged, or another kind of prior, InputError for a device that is not here.
    """
    device = usable_device(device)
    folder, name = folder_of(str(source), progress)
    config = read_config(folder / MODEL)
    file = next((folder / file for file in FILES if (folder / file).is_file()), None)
    if file is None:
        raise ModelError(f"{folder} has no {' and no '.join(FILES)}: download the whole folder")
    weights = read_state(file)
    with torch.device("meta"):
        model = PriorModel(config)
    check_size(model, sum(weight.numel() for weight in weights.values()), str(folder / MODEL))
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    there = {key: tuple(value.shape) for key, value in weights.items()}
    if wanted != there:
        wrong = min(key for key in {*wanted, *there} if wanted.get(key) != there.get(key))
        raise ModelError(
            f"{file} does not fit its {MODEL}: {wrong} is {there.get(wrong, 'missing')}, and should be "
            f"{wanted.get(wrong, 'absent')}. Is it a prior of lambda-ECLIPSE, as {PUBLISHED} is?"
        )
    check_finite(weights, name)
    model.load_state_dict({key: weight.float() for key, weight in weights.items()}, assign=True)
    return Prior(name, model.eval().requires_grad_(False).to(device), trained_with(folder))


def folder_of(source: str, progress: Progress | None) -> tuple[Path, str]:
    """The folder of a prior, and what to call it."""
    if source == "bundled":
        if not BUNDLED_PRIOR.is_dir():
            raise ModelError(
                f"{BUNDLED_PRIOR} is missing: this copy of the library came without its bundled models; install it again"
            )
        return BUNDLED_PRIOR, "the bundled prior"
    folder = Path(source)
    return (folder, folder.name) if folder.is_dir() else (fetched(source, progress), source)


def fetched(name: str, progress: Progress | None) -> Path:
    """The folder of a prior of the hub, downloaded where it is not complete yet. Raises ModelError."""
    config, weights = cached(name, [MODEL]), cached(name, FILES)
    if config is not None and weights is not None:
        return weights.parent
    return fetch(name, lambda names: [MODEL, *[file for file in FILES if file in names][:1]], progress)


def read_config(path: Path) -> PriorConfig:
    """Raises ModelError for the description of anything but a prior of lambda-ECLIPSE."""
    found = read_json(path, ModelError)
    check_counts(found, str(path))
    for key, value in FIXED.items():
        if found.get(key, value) != value:
            raise ModelError(f"{path} has {shown(found[key])} as {key}; only {value!r} is supported")
    for key in ("embedding_proj_dim", "clip_embed_dim"):
        if found.get(key) not in (None, found.get("embedding_dim", PriorConfig.embedding_dim)):
            raise ModelError(f"{path} has {shown(found[key])} as {key}: embeddings of several widths are not supported")
    values = {}
    for field in fields(PriorConfig):
        values[field.name] = value = found.get(field.name, field.default)
        if field.name.endswith("_type"):
            fits = value in (None, "layer")
        else:
            fits = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MOST
        if not fits:
            raise ModelError(f"{path} has {shown(value)} as {field.name}, which no prior has: it is damaged")
    config = PriorConfig(**values)
    if config.additional_embeddings != BESIDE:
        raise ModelError(
            f"{path} has {config.additional_embeddings} as additional_embeddings; a prior of lambda-ECLIPSE has {BESIDE}, of which "
            f"one is for a picture of edges. Use {PUBLISHED}"
        )
    return config
