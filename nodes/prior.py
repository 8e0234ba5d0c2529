"""Prompts with regions in the places of their words, to embeddings for Generate from Tokens."""

from pathlib import Path

from comfy_api.latest import io

from ..maskinversion import InputError
from ..maskinversion.tasks.diffusion.prior import BUNDLED_PRIOR, FILES, PUBLISHED
from .diffusion import SUBCATEGORY, folder_or_hub, hub_name
from .support.files import every_file, located, relative, stamp
from .support.managed import InUse, ManagedClip, ManagedPrior
from .support.progress import counter
from .support.token_outputs import outputs, result
from .support.types import ClipSocket, PriorSocket, Tokens, TokensSocket, seed_input

in_use: InUse[ManagedPrior] = InUse()


class LoadPrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadPrior",
            display_name="Load Prior for Tokens",
            category=SUBCATEGORY,
            description="Loads a prior of lambda-ECLIPSE, which makes one image embedding of a prompt with regions in it.",
            search_aliases=["lambda-eclipse", "kandinsky prior", "eclipse prior"],
            inputs=[
                io.DynamicCombo.Input(
                    "source",
                    options=[
                        io.DynamicCombo.Option("bundled", []),
                        *folder_or_hub(
                            found_folders(), "A folder with the prior's config.json and weights, in models/diffusers.", PUBLISHED
                        ),
                    ],
                    tooltip="'bundled' is a miniature for tokens of the bundled CLIP, and knows 98 things. 'folder' is in "
                    "ComfyUI's models/diffusers. 'hub' is downloaded the first time; the published one is for ViT-bigG-14.",
                )
            ],
            outputs=[PriorSocket.Output(display_name="prior", tooltip="For Tokens in a Prompt.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, source: dict) -> tuple:
        return identity(chosen(source))

    @classmethod
    def execute(cls, source: dict) -> io.NodeOutput:
        what = chosen(source)
        return io.NodeOutput(in_use.get(identity(what), lambda: ManagedPrior.load(what, counter(cls.hidden.unique_id))))


class TokensInPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionPrior",
            display_name="Tokens in a Prompt",
            category=SUBCATEGORY,
            description="A prompt in which words are regions: 'a fox beside a cup', and the fox is that of your mask.",
            search_aliases=["lambda-eclipse", "subject prompt", "personalized prompt", "multi-subject"],
            inputs=[
                PriorSocket.Input("prior", tooltip="From Load Prior for Tokens."),
                ClipSocket.Input("clip", tooltip="From Load CLIP for MaskInversion: that made the tokens. It reads the prompt."),
                TokensSocket.Input("tokens", tooltip="One for each subject, in the same order."),
                io.String.Input("prompt", default="a fox beside a cup", multiline=True, tooltip="With the subjects in it."),
                io.String.Input(
                    "subjects",
                    default="fox",
                    tooltip="The words of the prompt that the tokens take the places of, one for each token, with commas between: "
                    "fox, cup. A word that says nothing, such as thing, leaves all to the token.",
                ),
                seed_input("Of the prior's noise, which changes little."),
                TokensSocket.Input(
                    "edges",
                    optional=True,
                    tooltip="The token of a whole picture of edges (Canny's), which the published prior follows. The bundled one "
                    "has not learnt to.",
                ),
            ],
            outputs=outputs("One, for Generate from Tokens."),
        )

    @classmethod
    def execute(
        cls,
        prior: ManagedPrior,
        clip: ManagedClip,
        tokens: Tokens,
        prompt: str,
        subjects: str,
        seed: int,
        edges: Tokens | None = None,
    ) -> io.NodeOutput:
        words = [word.strip() for word in subjects.split(",") if word.strip()]
        if not words:
            raise InputError("there is no subject: write the word of the prompt that the token takes the place of")
        return result([prior.ready().embed(prompt.strip(), clip.ready(), words, tokens, edges, seed)])


def chosen(source: dict) -> str:
    """What `load_prior` takes. Raises InputError for a name that cannot be one, ModelError for a folder that is gone."""
    if source["source"] == "bundled":
        return "bundled"
    if source["source"] == "hub":
        return hub_name(source["name"])
    return str(located(source["folder"], ("diffusers",), "a folder of a prior"))


def found_folders() -> list[str]:
    found = [(base, file.parent) for base, file in every_file("diffusers") if file.name in FILES]
    alone = [(base, folder) for base, folder in found if folder != base and not (folder.parent / "model_index.json").is_file()]
    return relative(list(dict.fromkeys(alone)))


def identity(name: str) -> tuple:
    """Changes when the weights do."""
    return name, *stamp(BUNDLED_PRIOR if name == "bundled" else Path(name))


NODES = (LoadPrior, TokensInPrompt)
