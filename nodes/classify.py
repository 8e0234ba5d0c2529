"""Name regions."""

import torch
from comfy_api.latest import io, ui
from server import PromptServer

from ..maskinversion import InputError
from ..maskinversion.loading import bundled_classes
from ..maskinversion.tasks.classify import classify
from .managed_clip import ManagedClip
from .types import CATEGORY, ClipSocket, TokensSocket

SHOWN = 3


class ClassifyRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="MaskInversionClassify",
            display_name="Classify Region",
            category=CATEGORY,
            description="Says which of your phrases each region is.",
            inputs=[
                TokensSocket.Input("tokens", tooltip="From MaskInversion."),
                ClipSocket.Input("clip", tooltip="The CLIP that made the tokens."),
                io.String.Input(
                    "phrases",
                    multiline=True,
                    default="",
                    placeholder="One phrase a line, such as: a red car. Empty: all names that the bundled CLIP knows.",
                    tooltip="One a line. With the bundled CLIP, nothing here means all names that it knows.",
                ),
                io.String.Input("template", default="a photo of a {}", tooltip="Each phrase is read in place of {}."),
            ],
            outputs=[
                io.String.Output(display_name="labels", tooltip="The best phrase of each region, one a line."),
                io.String.Output(display_name="scores", tooltip="Tab-separated: region, phrase, probability, cosine."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, tokens, clip: ManagedClip, phrases, template) -> io.NodeOutput:
        ready = clip.ready()
        for t in tokens:
            if t.fingerprint != ready.fingerprint:
                raise InputError(
                    f"the tokens were made with {t.model}, not with {ready.name}: connect the CLIP that made them. A CLIP_VISION "
                    f"cannot read text: load its weights with Load CLIP for MaskInversion instead"
                )
        lines = phrases.splitlines()
        if not phrases.strip() and ready.name == "bundled":
            lines = bundled_classes()
        found = classify(torch.cat([t.embeddings for t in tokens]), ready, lines, template)
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
        summary = "\n".join(shown)
        PromptServer.instance.send_progress_text(summary, cls.hidden.unique_id)  # the page shows `ui` text on its own nodes only
        return io.NodeOutput(labels, "\n".join(rows), ui=ui.PreviewText(summary))
