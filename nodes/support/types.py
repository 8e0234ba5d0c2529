"""The types of this pack's sockets, and the widget that several nodes have."""

from comfy_api.latest import io

from ...maskinversion import LocalizedTokens
from ...maskinversion.tasks.classifier_settings import LARGEST_SEED

CATEGORY = "MaskInversion"
TOKENS_CATEGORY = f"{CATEGORY}/tokens"
REGIONS_CATEGORY = f"{CATEGORY}/regions"
CONSUMERS_CATEGORY = f"{CATEGORY}/for other models"
COLLECTION_CATEGORY = f"{CATEGORY}/collection"

ClipSocket = io.Custom("MASKINVERSION_CLIP")  # a ManagedClip
TokensSocket = io.Custom("MASKINVERSION_TOKENS")  # Tokens
PipelineSocket = io.Custom("MASKINVERSION_PIPELINE")  # a ManagedDecoder
PriorSocket = io.Custom("MASKINVERSION_PRIOR")  # a ManagedPrior
CaptionerSocket = io.Custom("MASKINVERSION_CAPTIONER")  # a ManagedCaptioner
ClassifierSocket = io.Custom("MASKINVERSION_CLASSIFIER")  # a RegionClassifier
EmbedsSocket = io.Custom("EMBEDS")  # of IPAdapter_plus: [M, D] for the basic adapters, [M, N, d] for Plus and Kolors
WanEmbedsSocket = io.Custom("WANVIDIMAGE_CLIPEMBEDS")  # of WanVideoWrapper: two of [1, N, d] by their names, the second may be None
RegionTableSocket = io.Custom("MASKINVERSION_REGION_TABLE")  # a RegionSearch
SegmentsSocket = io.Custom("SEGS")  # of the Impact Pack: the picture's (height, width), and the segments
CornersSocket = io.Custom("BBOX")  # of packs around Florence-2 and SAM 2: [left, top, right, bottom]
JsonSocket = io.Custom("JSON")  # what Florence-2 says
# Everything that is a region of a picture, where masks go.
RegionSockets = [io.Mask, io.BoundingBox, SegmentsSocket, CornersSocket, JsonSocket]

Tokens = list[LocalizedTokens]  # each of one image


def seed_input(tooltip: str, changing: bool = True) -> io.Input:
    """A seed. changing: whether the page takes another one after each run, unless it is told not to."""
    return io.Int.Input("seed", default=0, min=0, max=LARGEST_SEED, control_after_generate=changing, tooltip=tooltip)
