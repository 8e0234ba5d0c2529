"""The types of this pack's sockets."""

from comfy_api.latest import io

CATEGORY = "MaskInversion"

ClipSocket = io.Custom("MASKINVERSION_CLIP")  # a ManagedClip
TokensSocket = io.Custom("MASKINVERSION_TOKENS")  # a list of LocalizedTokens, each of one image
