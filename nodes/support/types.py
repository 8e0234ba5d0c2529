"""The types of this pack's sockets."""

from comfy_api.latest import io

from ...maskinversion import LocalizedTokens

CATEGORY = "MaskInversion"
TOKENS_CATEGORY = f"{CATEGORY}/tokens"

ClipSocket = io.Custom("MASKINVERSION_CLIP")  # a ManagedClip
TokensSocket = io.Custom("MASKINVERSION_TOKENS")  # Tokens
PipelineSocket = io.Custom("MASKINVERSION_PIPELINE")  # a ManagedDecoder
CaptionerSocket = io.Custom("MASKINVERSION_CAPTIONER")  # a ManagedCaptioner
ClassifierSocket = io.Custom("MASKINVERSION_CLASSIFIER")  # a RegionClassifier
EmbedsSocket = io.Custom("EMBEDS")  # [M, D], as IPAdapter_plus has it for the basic adapters

Tokens = list[LocalizedTokens]  # each of one image
