"""Which pipelines of diffusers there are that take an image embedding or hidden states, and how each wants to be called."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """of: what it is called of here. makes: whether it makes new pictures. inpainter: the pipeline that paints into a picture, made
    of the same parts. way: how the conditioning is given, see `Decoder.conditioning`. adapter: which files of adapters are for it.
    since: the oldest diffusers that has all of this.
    """

    way: str
    makes: bool = True
    inpainter: str | None = None
    adapter: str | None = None
    since: str = "0.31"


# `decoder`: image_embeds and negative_image_embeds. `unclip`: image_embeds. `stacked`: both in one tensor of a list, as the U-Nets'
# pipelines have them. `apart`: two lists, as FLUX. `joint`: both in one tensor, as Stable Diffusion 3.
KINDS = {
    "KandinskyV22Pipeline": Kind("decoder"),
    "KandinskyV22InpaintPipeline": Kind("decoder", False, "KandinskyV22InpaintPipeline"),
    "StableUnCLIPImg2ImgPipeline": Kind("unclip"),
    "StableDiffusionPipeline": Kind("stacked", True, "StableDiffusionInpaintPipeline", "SD 1.5"),
    "StableDiffusionInpaintPipeline": Kind("stacked", False, "StableDiffusionInpaintPipeline", "SD 1.5"),
    "StableDiffusionXLPipeline": Kind("stacked", True, "StableDiffusionXLInpaintPipeline", "SDXL"),
    "StableDiffusionXLInpaintPipeline": Kind("stacked", False, "StableDiffusionXLInpaintPipeline", "SDXL"),
    "KolorsPipeline": Kind("stacked", True, None, "Kolors"),
    "StableDiffusion3Pipeline": Kind("joint", True, "StableDiffusion3InpaintPipeline", "SD 3.5", "0.33"),
    "FluxPipeline": Kind("apart", True, "FluxInpaintPipeline", "FLUX", "0.33"),
    # ChromaInpaintPipeline of diffusers 0.42 asks its transformer for guidance, which Chroma's has not, and fails.
    "ChromaPipeline": Kind("apart", True, None, "FLUX", "0.34"),
}
