"""Name regions: say what each one is, find the one that a phrase means, and write names on a picture."""

import torch
from comfy_api.latest import io

from ..maskinversion import InputError
from ..maskinversion.drawing.labels import draw_labels
from ..maskinversion.identity import check_made_with
from ..maskinversion.operations import embeddings_of
from ..maskinversion.pictures import read_mask
from ..maskinversion.tasks.classifier import RegionClassifier
from ..maskinversion.tasks.classify import classify
from ..maskinversion.tasks.phrases import CLASS_TEMPLATE, EXPRESSION_TEMPLATE, TEMPLATES
from ..maskinversion.tasks.refer import refer
from .support.convert import mask_at, masks_from, masks_or_maps, one_picture
from .support.managed import ManagedClip
from .support.progress import counter, warnings_told, with_shown
from .support.types import CATEGORY, ClassifierSocket, ClipSocket, RegionSockets, Tokens, TokensSocket
from .support.words import CONNECT, WRITTEN, chosen_phrases, list_input, list_stamp, one_a_line, phrases_input, sentences

SHOWN = 3
NONE = "(none left)"


class ClassifyRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionClassify",
            display_name="Classify Region",
            category=CATEGORY,
            description="Says which of your phrases, or which class of a classifier, each region is.",
            search_aliases=["label region", "zero-shot classification", "interrogate"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion."),
                ClipSocket.Input("clip", optional=True, tooltip="The CLIP that made the tokens. Not needed with a classifier."),
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
                ClassifierSocket.Input(
                    "classifier", optional=True, tooltip="Its classes instead of phrases: from Train or Load Region Classifier."
                ),
            ],
            outputs=[
                io.String.Output(display_name="labels", tooltip="The best phrase of each region, one a line."),
                io.String.Output(
                    display_name="scores",
                    tooltip="Tab-separated: region, phrase, probability, cosine; with a classifier its score, no cosine.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, word_list: str = WRITTEN, **others: object) -> tuple:
        return list_stamp(word_list)

    @classmethod
    def execute(
        cls,
        tokens: Tokens,
        phrases: str,
        template: str,
        clip: ManagedClip | None = None,
        word_list: str = WRITTEN,
        templates: str = WRITTEN,
        classifier: RegionClassifier | None = None,
    ) -> io.NodeOutput:
        told: list[str] = []
        if classifier is not None:
            found = classifier.classify(tokens)
        elif clip is None:
            raise InputError("there is nothing to classify with: connect the CLIP that made the tokens, or a classifier")
        else:
            ready = clip.ready()
            check_made_with(tokens, ready, CONNECT)
            lines = chosen_phrases(phrases, word_list, ready)
            read = sentences(template, templates)
            with warnings_told() as told:
                found = classify(embeddings_of(tokens), ready, lines, read, counter(cls.hidden.unique_id))
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
        return with_shown(labels, "\n".join(rows), text="\n".join(shown), told=told)


class FindRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionRefer",
            display_name="Find Regions by Phrase",
            category=CATEGORY,
            description="Which region each of your phrases means, and which phrase means each region.",
            search_aliases=["referring expression", "grounding", "text to mask", "select mask by text"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="Of one picture's masks. In MaskInversion, alpha 5 keeps what is around."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                phrases_input("One a line."),
                io.Boolean.Input(
                    "one_to_one",
                    default=False,
                    tooltip="Every region belongs to one phrase at most, so that all fit best together.",
                ),
                io.String.Input(
                    "template", default=EXPRESSION_TEMPLATE, advanced=True, tooltip="Each phrase is read in place of {}."
                ),
                io.MultiType.Input(
                    "mask",
                    types=RegionSockets,
                    optional=True,
                    tooltip="The masks, boxes or SEGS that the tokens are of, to choose from; else their maps.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks", tooltip="The region of each phrase that has one, in the order of the phrases."
                ),
                io.String.Output(display_name="numbers", tooltip="Of the same regions, counted from 0, for Pick Tokens."),
                io.String.Output(display_name="phrases", tooltip="The phrase of each region, one a line."),
                io.String.Output(display_name="scores", tooltip="Tab-separated: region, phrase, cosine."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, tokens: Tokens, clip: ManagedClip, phrases: str, one_to_one: bool, template: str, mask: object = None
    ) -> io.NodeOutput:
        ready = clip.ready()
        check_made_with(tokens, ready, CONNECT)
        embeddings = embeddings_of(tokens)
        masks = masks_or_maps(mask, tokens)
        if len(masks) != len(embeddings):
            raise InputError(f"there are {len(masks)} masks and {len(embeddings)} tokens: connect the masks that the tokens are of")
        with warnings_told() as told:
            found = refer(embeddings, ready, phrases.splitlines(), template, one_to_one)
        regions = [region for region in found.region_of if region is not None]
        summary = "\n".join(
            f"{phrase}: {NONE if region is None else f'region {region + 1}'}"
            for phrase, region in zip(found.phrases, found.region_of, strict=True)
        )
        of_regions = "\n".join(NONE if text is None else found.phrases[text] for text in found.phrase_of)
        scores = "\n".join(
            f"{region + 1}\t{phrase}\t{cosine:.4f}"
            for region, row in enumerate(found.similarities.tolist())
            for phrase, cosine in zip(found.phrases, row, strict=True)
        )
        numbers = ", ".join(map(str, regions))
        chosen = torch.stack([read_mask(masks[region]) for region in regions])
        return with_shown(chosen, numbers, of_regions, scores, text=summary, told=told)


class LabelRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLabels",
            display_name="Label Regions",
            category=CATEGORY,
            description="Draws each region in a colour of its own, with its label on it.",
            search_aliases=["draw labels", "annotate", "segmentation overlay"],
            inputs=[
                io.Image.Input("image", tooltip="One picture."),
                io.MultiType.Input("mask", types=RegionSockets, tooltip="The regions: masks, boxes or SEGS."),
                io.String.Input(
                    "labels",
                    multiline=True,
                    default="",
                    tooltip="One a line, in the order of the regions: from Classify Region, Caption Region, or your own.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture with its labels.")],
        )

    @classmethod
    def execute(cls, image: torch.Tensor, mask: object, labels: str) -> io.NodeOutput:
        picture = one_picture(image, "to label")
        height, width, _ = picture.shape
        masks = [mask_at(one, (height, width)) for one in masks_from(mask, (height, width))]
        drawn = draw_labels(picture, masks, one_a_line(labels, len(masks)))
        return io.NodeOutput(torch.stack([drawn]).to(image))


NODES = (ClassifyRegion, FindRegions, LabelRegions)
