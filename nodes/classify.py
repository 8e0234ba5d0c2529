"""Name regions."""

from comfy_api.latest import io

from ..maskinversion.operations import embeddings_of
from ..maskinversion.tasks.classify import classify
from ..maskinversion.tasks.phrases import CLASS_TEMPLATE, TEMPLATES
from .managed_clip import ManagedClip
from .progress import counter, with_text
from .types import CATEGORY, ClipSocket, TokensSocket
from .words import WRITTEN, check_made_with, chosen_phrases, list_input, list_stamp, phrases_input

SHOWN = 3


class ClassifyRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionClassify",
            display_name="Classify Region",
            category=CATEGORY,
            description="Says which of your phrases each region is.",
            search_aliases=["label region", "zero-shot classification", "interrogate"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                phrases_input(),
                io.String.Input(
                    "template",
                    default=CLASS_TEMPLATE,
                    multiline=True,
                    tooltip="Each phrase is read in place of {}. Several, one a line, are averaged.",
                ),
                list_input(),
                io.Combo.Input(
                    "templates",
                    options=[WRITTEN, *TEMPLATES],
                    default=WRITTEN,
                    optional=True,
                    advanced=True,
                    tooltip="Instead of yours: the 7 or 80 sentences that CLIP's authors average for ImageNet. 80 take 80 times "
                    "longer the first time.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="labels", tooltip="The best phrase of each region, one a line."),
                io.String.Output(display_name="scores", tooltip="Tab-separated: region, phrase, probability, cosine."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, word_list=WRITTEN, **others) -> tuple:
        return list_stamp(word_list)

    @classmethod
    def execute(cls, tokens, clip: ManagedClip, phrases, template, word_list=WRITTEN, templates=WRITTEN) -> io.NodeOutput:
        ready = clip.ready()
        check_made_with(tokens, ready)
        sentences = TEMPLATES[templates] if templates in TEMPLATES else [line for line in template.splitlines() if line.strip()]
        embeddings = embeddings_of(tokens)
        lines = chosen_phrases(phrases, word_list, ready)
        found = classify(embeddings, ready, lines, sentences, counter(cls.hidden.unique_id))
        values, order = found.probabilities.sort(descending=True)
        shown, rows = [], []
        for region, (p_row, row) in enumerate(zip(values.tolist(), order.tolist(), strict=True)):
            best = (f"{found.phrases[i]} {p:.0%}" for i, p in list(zip(row, p_row, strict=True))[:SHOWN])
            shown.append(f"region {region + 1}: {', '.join(best)}")
            rows += [
                f"{region + 1}\t{found.phrases[i]}\t{p:.4f}\t{found.similarities[region, i]:.4f}"
                for i, p in zip(row, p_row, strict=True)
            ]
        labels = "\n".join(phrase for phrase, _ in found.best)
        return with_text("\n".join(shown), cls.hidden.unique_id, labels, "\n".join(rows))
