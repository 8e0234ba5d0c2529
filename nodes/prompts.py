"""Regions in words, for models that read text only."""

from comfy_api.latest import io

from ..maskinversion import Clip, InputError
from ..maskinversion.identity import check_made_with
from ..maskinversion.operations import embeddings_of
from ..maskinversion.tasks.phrases import PROMPT_LISTS, PROMPT_TEMPLATE, REGION_TEMPLATE, prompt_phrases
from ..maskinversion.tasks.prompt import SEPARATOR, describe, join, place_of
from .support.convert import masks_or_maps
from .support.managed import ManagedClip
from .support.progress import counter, warnings_told, with_shown
from .support.types import CATEGORY, ClipSocket, RegionSockets, Tokens, TokensSocket
from .support.words import CONNECT, LISTS, NONE, THINGS, WRITTEN, list_stamp, read_list, text_files

QUALITIES = PROMPT_LISTS[1:]


class RegionToPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionPrompt",
            display_name="Region to Prompt",
            category=CATEGORY,
            description="Writes a prompt of each region, of the phrases that are nearest to it, for any model that reads text.",
            search_aliases=["clip interrogator", "interrogate region", "image to prompt", "describe region"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                io.Combo.Input(
                    "things",
                    options=[THINGS, *LISTS, NONE, *text_files()],
                    default=THINGS,
                    tooltip="What a prompt begins with. With the bundled CLIP, 'things' are the names that it knows. A .txt file "
                    "of yours, one phrase a line, goes into ComfyUI's input folder.",
                ),
                *(io.Boolean.Input(name, default=True, tooltip=f"Add one of the pack's phrases for {name}.") for name in QUALITIES),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    placeholder="One phrase a line, such as: with a blue collar",
                    tooltip="A list of your own, one phrase a line, beside the others.",
                ),
                io.Combo.Input(
                    "word_list",
                    options=[WRITTEN, *text_files()],
                    default=WRITTEN,
                    advanced=True,
                    tooltip="More phrases of your own: a .txt file, one phrase a line, in ComfyUI's input folder.",
                ),
                io.String.Input(
                    "template",
                    default=PROMPT_TEMPLATE,
                    tooltip="The phrases are written in place of {}, as in: a photo of {}. It is compared with the region as well.",
                ),
                io.Int.Input("each", default=1, min=1, max=20, advanced=True, tooltip="Most phrases of one list."),
                io.Float.Input(
                    "rise",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    advanced=True,
                    tooltip="A further phrase is taken if it raises the cosine of the whole prompt by more. Higher is shorter.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="prompts", tooltip="One of each region, one a line: for any text encoder."),
                io.String.Output(display_name="scores", tooltip="Tab-separated: region, cosine, and list: phrase for each phrase."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, things: str = THINGS, word_list: str = WRITTEN, **others: object) -> tuple:
        return list_stamp(things), list_stamp(word_list)

    @classmethod
    def execute(
        cls,
        tokens: Tokens,
        clip: ManagedClip,
        things: str,
        phrases: str,
        word_list: str,
        template: str,
        each: int,
        rise: float,
        **qualities: bool,
    ) -> io.NodeOutput:
        ready = clip.ready()
        check_made_with(tokens, ready, CONNECT)
        lists = {"things": things_of(things, ready)}
        lists |= {name: prompt_phrases(name, ready.name) for name in QUALITIES if qualities[name]}
        lists["own"] = [*phrases.splitlines(), *(read_list(word_list) if word_list != WRITTEN else [])]
        with warnings_told() as told:
            found = describe(embeddings_of(tokens), ready, lists, template, each, rise, counter(cls.hidden.unique_id))
        shown = "\n".join(f"region {number}: {prompt.text} ({prompt.similarity:.2f})" for number, prompt in enumerate(found, 1))
        rows = (
            "\t".join([str(number), f"{prompt.similarity:.4f}", *(f"{name}: {phrase}" for name, phrase in prompt.phrases)])
            for number, prompt in enumerate(found, 1)
        )
        return with_shown("\n".join(prompt.text for prompt in found), "\n".join(rows), text=shown, told=told)


class JoinPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionJoinPrompts",
            display_name="Join Region Prompts",
            category=CATEGORY,
            description="One prompt of several regions, each with its place in the picture: on the left, a fox; ...",
            search_aliases=["combine prompts", "regional prompt", "layout prompt"],
            inputs=[
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="One of each region, one a line: from Region to Prompt, Caption Region, Classify Region, or your own.",
                ),
                io.MultiType.Input("mask", types=RegionSockets, optional=True, tooltip="The regions, for their places."),
                TokensSocket.Input("tokens", optional=True, tooltip="Of the regions: where they look, for places without masks."),
                io.String.Input("begin", multiline=True, default="", tooltip="Written before all of them."),
                io.String.Input(
                    "template", default=REGION_TEMPLATE, tooltip="For each region: {prompt} is its prompt, {place} where it is."
                ),
                io.String.Input("separator", default=SEPARATOR, tooltip="Written between two regions."),
                io.String.Input("end", multiline=True, default="", tooltip="Written after all of them."),
            ],
            outputs=[
                io.String.Output(display_name="prompt", tooltip="For any text encoder."),
                io.String.Output(display_name="places", tooltip="Of each region, one a line."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        prompts: str,
        begin: str,
        template: str,
        separator: str,
        end: str,
        mask: object = None,
        tokens: Tokens | None = None,
    ) -> io.NodeOutput:
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        if mask is not None or tokens is not None:
            places = [place_of(region) for region in masks_or_maps(mask, tokens or [])]
        elif "{place}" not in template:
            places = [""] * len(lines)
        else:
            raise InputError("the places are not known: connect the masks or tokens, or take {place} out of the template")
        text = begin + join(lines, places, template, separator) + end
        return with_shown(text, "\n".join(places), text=text)


def things_of(chosen: str, clip: Clip) -> list[str]:
    if chosen == NONE:
        return []
    return prompt_phrases("things", clip.name) if chosen == THINGS else read_list(chosen)


NODES = (RegionToPrompt, JoinPrompts)
