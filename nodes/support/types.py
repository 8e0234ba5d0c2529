"""The types of this pack's sockets."""

from comfy_api.latest import io

from ...maskinversion import LocalizedTokens

CATEGORY = "MaskInversion"
TOKENS_CATEGORY = f"{CATEGORY}/tokens"
REGIONS_CATEGORY = f"{CATEGORY}/regions"

ClipSocket = io.Custom("MASKINVERSION_CLIP")  # a ManagedClip
TokensSocket = io.Custom("MASKINVERSION_TOKENS")  # Tokens
PipelineSocket = io.Custom("MASKINVERSION_PIPELINE")  # a ManagedDecoder
CaptionerSocket = io.Custom("MASKINVERSION_CAPTIONER")  # a ManagedCaptioner
ClassifierSocket = io.Custom("MASKINVERSION_CLASSIFIER")  # a RegionClassifier
EmbedsSocket = io.Custom("EMBEDS")  # [M, D], as IPAdapter_plus has it for the basic adapters
SegmentsSocket = io.Custom("SEGS")  # of the Impact Pack: the picture's (height, width), and the segments
CornersSocket = io.Custom("BBOX")  # of packs around Florence-2 and SAM 2: [left, top, right, bottom]
JsonSocket = io.Custom("JSON")  # what Florence-2 says
# Everything that is a region of a picture, where masks go.
RegionSockets = [io.Mask, io.BoundingBox, SegmentsSocket, CornersSocket, JsonSocket]

Tokens = list[LocalizedTokens]  # each of one image
