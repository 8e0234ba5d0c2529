"""The nodes: each translates ComfyUI's types into the library's, calls it, and translates back."""

from comfy_api.latest import ComfyExtension, io

from .caption import BestCaption, CaptionRegion, LoadCaptioner
from .classify import ClassifyRegion
from .diffusion import GenerateFromTokens, InpaintFromTokens, LoadPipeline
from .example import ExampleScene
from .invert import MaskInversion
from .ip_adapter import TokensToEmbeds
from .labels import LabelRegions
from .load_clip import LoadClip
from .operations import BlendTokens, PickTokens, PullTokens, StackTokens, SubtractTokens, TokenOfNothing, VaryTokens
from .overlay import MapOverlay
from .refer import FindRegions
from .token_files import LoadTokens, SaveTokens


class MaskInversionExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            *(LoadClip, MaskInversion, MapOverlay, ExampleScene),
            *(ClassifyRegion, FindRegions, LabelRegions),
            *(LoadCaptioner, CaptionRegion, BestCaption),
            *(BlendTokens, PullTokens, SubtractTokens, VaryTokens, StackTokens, PickTokens, SaveTokens, LoadTokens),
            *(TokenOfNothing, TokensToEmbeds),
            *(LoadPipeline, GenerateFromTokens, InpaintFromTokens),
        ]
