"""Captions of regions."""

from collections.abc import Sequence
from pathlib import Path

from comfy_api.latest import io

from ..maskinversion.identity import check_made_with
from ..maskinversion.models.content import is_weights
from ..maskinversion.operations import embeddings_of
from ..maskinversion.tasks.caption import BUNDLED_CAPTIONER, TOKENIZER_FILES, retrieve
from ..maskinversion.tasks.decoding import Decoding
from .support.files import NOTHING_FOUND, every_file, located, relative, stamp
from .support.managed import InUse, ManagedCaptioner, ManagedClip
from .support.progress import counter, warnings_told, with_shown
from .support.types import CATEGORY, CaptionerSocket, ClipSocket, Tokens, TokensSocket, seed_input
from .support.words import CONNECT, WRITTEN, chosen_phrases, list_input, list_stamp, phrases_input

FOLDER = "clipcap"
MOST = 64  # captions of a region

in_use: InUse[ManagedCaptioner] = InUse()


class LoadCaptioner(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadCaptioner",
            display_name="Load Captioner",
            category=CATEGORY,
            description="Loads a ClipCap, which writes captions of CLIP image embeddings. The bundled one is for tokens of the "
            "bundled CLIP.",
            search_aliases=["clipcap loader", "image captioning"],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option("bundled", []),
                        io.DynamicCombo.Option(
                            "file",
                            [
                                io.Combo.Input(
                                    "weights",
                                    options=found_files() or [NOTHING_FOUND],
                                    tooltip="A ClipCap checkpoint in models/clipcap. Press R to refresh the list.",
                                )
                            ],
                        ),
                    ],
                    tooltip="'bundled' is a miniature that comes with this pack, for tokens of the bundled CLIP. 'file' is a "
                    "ClipCap in ComfyUI's models/clipcap.",
                )
            ],
            outputs=[CaptionerSocket.Output(display_name="captioner", tooltip="For Caption Region.")],
        )

    @classmethod
    def fingerprint_inputs(cls, source: dict) -> tuple:
        return identity(chosen(source))

    @classmethod
    def execute(cls, source: dict) -> io.NodeOutput:
        what = chosen(source)
        return io.NodeOutput(in_use.get(identity(what), lambda: ManagedCaptioner.load(what)))


class CaptionRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionCaption",
            display_name="Caption Region",
            category=CATEGORY,
            description="Writes captions of each region.",
            search_aliases=["clipcap", "describe region", "interrogate"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion, with the CLIP that the captioner was trained with."),
                CaptionerSocket.Input("captioner", tooltip="From Load Captioner."),
                io.DynamicCombo.Input(
                    "decoding",
                    options=[
                        io.DynamicCombo.Option("greedy", []),
                        io.DynamicCombo.Option("beam", [beams_input(), count_input()]),
                        io.DynamicCombo.Option("sample", [count_input(), *sampling_inputs()]),
                    ],
                    tooltip="'greedy' takes the likeliest word each time. 'beam' looks for the likeliest captions. 'sample' draws "
                    "words at random.",
                ),
                io.Int.Input("length", default=40, min=1, max=256, tooltip="Most pieces of words. A caption ends at a full stop."),
            ],
            outputs=[io.String.Output(display_name="captions", tooltip="One a line: all of the first region, of the second, ...")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, tokens: Tokens, captioner: ManagedCaptioner, decoding: dict, length: int) -> io.NodeOutput:
        how = decoding["decoding"]
        options = {name: value for name, value in decoding.items() if name != "decoding"}
        found = captioner.ready().caption(tokens, Decoding(how, length=length, **options), counter(cls.hidden.unique_id))
        return shown(found, found)


class BestCaption(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionRetrieveCaption",
            display_name="Best Caption of a List",
            category=CATEGORY,
            description="Finds the captions of your list that are nearest to each region. Needs no captioner.",
            search_aliases=["retrieval captioning", "caption region"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                phrases_input(),
                count_input(),
                list_input(),
            ],
            outputs=[io.String.Output(display_name="captions", tooltip="One a line: all of the first region, of the second, ...")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, word_list: str = WRITTEN, **others: object) -> tuple:
        return list_stamp(word_list)

    @classmethod
    def execute(cls, tokens: Tokens, clip: ManagedClip, phrases: str, count: int, word_list: str = WRITTEN) -> io.NodeOutput:
        ready = clip.ready()
        check_made_with(tokens, ready, CONNECT)
        embeddings = embeddings_of(tokens)
        lines = chosen_phrases(phrases, word_list, ready)
        with warnings_told() as told:
            found = retrieve(embeddings, ready, lines, count, counter(cls.hidden.unique_id))
        captions = [[phrase for phrase, _ in region] for region in found]
        with_cosines = [[f"{phrase} ({cosine:.2f})" for phrase, cosine in region] for region in found]
        return shown(captions, with_cosines, told)


def beams_input() -> io.Input:
    return io.Int.Input("beams", default=5, min=1, max=MOST, tooltip="How many captions grow together. More take longer.")


def count_input() -> io.Input:
    return io.Int.Input("count", default=1, min=1, max=MOST, tooltip="Captions of each region; of beams, as many as those at most.")


def sampling_inputs() -> list[io.Input]:
    return [
        io.Float.Input("temperature", default=1.0, min=0.05, max=5.0, step=0.05, tooltip="Below 1 is more cautious."),
        io.Float.Input(
            "top_p", default=0.9, min=0.05, max=1.0, step=0.05, tooltip="Only the likeliest words that together are as probable."
        ),
        seed_input("Another one, other captions.", changing=False),
    ]


def shown(captions: list[list[str]], on_node: list[list[str]], told: Sequence[str] = ()) -> io.NodeOutput:
    summary = "\n".join(f"region {number}: {' | '.join(texts)}" for number, texts in enumerate(on_node, 1))
    return with_shown("\n".join(text for texts in captions for text in texts), text=summary, told=told)


def chosen(source: dict) -> str:
    """What `load_captioner` takes. Raises ModelError when the file is gone."""
    return "bundled" if source["source"] == "bundled" else str(located(source["weights"], (FOLDER,), "a ClipCap checkpoint"))


def identity(source: str) -> tuple:
    """Changes when the weights, or what is read beside them, do."""
    path = BUNDLED_CAPTIONER if source == "bundled" else Path(source)
    beside = (path.with_suffix(".json"), *(path.parent / name for name in TOKENIZER_FILES))
    return source, stamp(path), *map(stamp, beside)


def found_files() -> list[str]:
    return relative([(base, file) for base, file in every_file(FOLDER) if is_weights(file)])


NODES = (LoadCaptioner, CaptionRegion, BestCaption)
