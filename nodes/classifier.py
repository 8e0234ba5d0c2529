"""Classifiers of regions: learnt from tokens with labels, saved, loaded; and points of the boxes that LARE learns."""

from comfy_api.latest import io

from ..maskinversion.tasks.classifier import RegionClassifier, train
from ..maskinversion.tasks.classifier_files import load_classifier, read_labelled, save_classifier
from ..maskinversion.tasks.classifier_settings import PRIORS, TrainingSettings
from ..maskinversion.tasks.phrases import CLASS_TEMPLATE
from .support.files import NOTHING_FOUND, stamp
from .support.managed import ManagedClip
from .support.progress import warnings_told, with_shown
from .support.token_outputs import outputs, result
from .support.types import CATEGORY, TOKENS_CATEGORY, ClassifierSocket, ClipSocket, Tokens, TokensSocket, seed_input
from .support.words import WRITTEN, one_a_line, sentences
from .token_files import OUTPUT, found_files, located, saved

CLASSIFIERS = ("classifiers", "Save Region Classifier")
FOLDERS = ("folders with a folder of tokens for each class", "Save Tokens, prefix CLASSES/NAME/region,")
DEFAULTS = TrainingSettings()


class TrainClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionTrainClassifier",
            display_name="Train Region Classifier",
            category=CATEGORY,
            description="Learns your classes from tokens with labels, for Classify Region. Seconds for a few hundred tokens.",
            search_aliases=["LARE", "linear probe", "few-shot classifier", "learn classes"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="The examples: from Load Labelled Tokens, Stack Tokens or MaskInversion."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                io.String.Input(
                    "labels",
                    multiline=True,
                    default="",
                    placeholder="What each token is, one a line",
                    tooltip="What each token is, one a line, in their order. Tokens of an empty line are left out.",
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("lare", lare_inputs()),
                        io.DynamicCombo.Option("probe", []),
                    ],
                    tooltip="'lare' learns a box around every token in which its class does not change, and learns from points "
                    "of it. 'probe' learns from the tokens themselves.",
                ),
                io.Combo.Input(
                    "prior",
                    options=list(PRIORS),
                    default=DEFAULTS.prior,
                    tooltip="What a class is before its examples are seen: what its label says to the CLIP, or nothing. 'none' "
                    "with 'probe' is for labels that mean nothing, such as numbers.",
                ),
                io.Float.Input(
                    "decay",
                    default=DEFAULTS.decay,
                    min=0.000001,
                    max=100.0,
                    step=0.000001,
                    advanced=True,
                    tooltip="How firmly the prior holds against the examples.",
                ),
                io.String.Input(
                    "template",
                    default=CLASS_TEMPLATE,
                    multiline=True,
                    advanced=True,
                    tooltip="Each label is read in place of {}. Several, one a line, are averaged.",
                ),
            ],
            outputs=[ClassifierSocket.Output(display_name="classifier", tooltip="For Classify Region and Save Region Classifier.")],
        )

    @classmethod
    def execute(
        cls, tokens: Tokens, clip: ManagedClip, labels: str, method: dict, prior: str, decay: float, template: str
    ) -> io.NodeOutput:
        options = {name: value for name, value in method.items() if name != "method"}
        settings = TrainingSettings(method=method["method"], prior=prior, decay=decay, **options)
        lines = one_a_line(labels, sum(map(len, tokens)))
        with warnings_told() as told:
            found = train(tokens, lines, clip.ready(), settings, sentences(template, WRITTEN))
        counts = "\n".join(f"{name}: {count}" for name, count in found.parameters["examples"].items())
        return with_shown(found, text=counts, told=told)


class SaveClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionSaveClassifier",
            display_name="Save Region Classifier",
            category=CATEGORY,
            description="Writes a classifier as safetensors into ComfyUI's output folder, with the name of its CLIP.",
            search_aliases=["save LARE"],
            inputs=[
                ClassifierSocket.Input("classifier", tooltip="From Train Region Classifier."),
                io.String.Input(
                    "filename_prefix",
                    default="classifiers/regions",
                    tooltip="Folder and beginning of the name, as in Save Image; a number is added.",
                ),
            ],
            outputs=[io.String.Output(display_name="files", tooltip="What was written, inside the output folder.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, classifier: RegionClassifier, filename_prefix: str) -> io.NodeOutput:
        return saved(filename_prefix, [lambda path: save_classifier(classifier, path)])


class LoadClassifier(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadClassifier",
            display_name="Load Region Classifier",
            category=CATEGORY,
            description="Reads a classifier that Save Region Classifier, or `maskinversion train`, wrote.",
            search_aliases=["load LARE"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=found_files() or [NOTHING_FOUND],
                    tooltip="A safetensors file of a classifier in ComfyUI's input or output folder. Press R to refresh the list.",
                )
            ],
            outputs=[
                ClassifierSocket.Output(display_name="classifier", tooltip="For Classify Region."),
                io.String.Output(display_name="names", tooltip="Of its classes, one a line."),
                io.String.Output(display_name="clip", tooltip="Which CLIP it is for."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> tuple:
        return file, stamp(located(file, *CLASSIFIERS))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        found = load_classifier(located(file, *CLASSIFIERS))
        return io.NodeOutput(found, "\n".join(found.names), found.clip)


class LoadLabelled(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadLabelled",
            display_name="Load Labelled Tokens",
            category=TOKENS_CATEGORY,
            description="Reads all tokens of a folder that has a folder for each class, and their labels: the folders' names.",
            search_aliases=["load dataset", "examples of classes"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=found_folders() or [NOTHING_FOUND],
                    tooltip="In ComfyUI's input or output folder. Save Tokens with the prefix animals/cat/region puts tokens into "
                    "the folder of the class cat in animals. Press R to refresh the list.",
                )
            ],
            outputs=[
                *outputs("All tokens, class by class."),
                io.String.Output(display_name="labels", tooltip="What each token is, one a line, for Train Region Classifier."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str) -> tuple:
        return folder, stamp(located(folder, *FOLDERS))

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        tokens, labels = read_labelled(located(folder, *FOLDERS))
        return result(tokens, "\n".join(labels))


class SampleBox(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionSampleBox",
            display_name="Sample from Region Box",
            category=TOKENS_CATEGORY,
            description="Variations of a region that keep its class: points of the box that LARE learnt around its token.",
            search_aliases=["LARE", "latent augmentation", "token variations"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion, of the CLIP that the classifier is for."),
                ClassifierSocket.Input("classifier", tooltip="One trained by lare: it has the boxes."),
                io.Int.Input("count", default=4, min=1, max=256, tooltip="How many points of each token's box."),
                seed_input("The same seed gives the same points."),
            ],
            outputs=outputs("All points of the first token's box, then of the second's, and so on."),
        )

    @classmethod
    def execute(cls, tokens: Tokens, classifier: RegionClassifier, count: int, seed: int) -> io.NodeOutput:
        return result(classifier.sample(tokens, count, seed))


def lare_inputs() -> list[io.Input]:
    return [
        io.Int.Input("points", default=DEFAULTS.points, min=1, max=1024, tooltip="Of each box, to learn from."),
        io.Float.Input(
            "reach",
            default=DEFAULTS.reach,
            min=0.01,
            max=100.0,
            step=0.01,
            tooltip="How far a box can go from its token in every number; 1 is the size of the numbers themselves.",
        ),
        io.Float.Input(
            "size", default=DEFAULTS.size, min=0.0, max=100.0, step=0.001, tooltip="More makes the boxes larger."
        ),
        io.Int.Input("steps", default=DEFAULTS.steps, min=1, max=10_000, tooltip="Of learning the boxes."),
        io.Float.Input("lr", default=DEFAULTS.lr, min=0.00001, max=1.0, step=0.00001, tooltip="Rate of those steps."),
        seed_input("The same seed, the same classifier.", changing=False),
    ]


def found_folders() -> list[str]:
    """Folders that have folders with tokens in them, as `found_files` names files."""
    found = []
    for file in found_files():
        folders = file.removesuffix(OUTPUT).split("/")[:-2]
        mark = OUTPUT if file.endswith(OUTPUT) else ""
        found += ["/".join(folders[:depth]) + mark for depth in range(1, len(folders) + 1)]
    return list(dict.fromkeys(found))


NODES = (TrainClassifier, SaveClassifier, LoadClassifier, LoadLabelled, SampleBox)
