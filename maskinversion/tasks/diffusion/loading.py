"""Pipelines of diffusers, from folders and the hub. diffusers is imported when one is loaded, not before."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.torch_version import TorchVersion

from ...bundled import BUNDLED
from ...compute.ambient import settled
from ...errors import ModelError
from ...models.hub import Progress, cached, fetch
from ...models.loading import usable_device
from ...packages import require, require_part
from .adapters import add_adapter
from .decoder import USE, Decoder
from .files import INDEX, check_folder, check_weights, loading_advice, trained_with
from .kinds import KINDS
from .variants import is_complete, to_download, variant_in

BUNDLED_DECODERS = {"bundled": BUNDLED / "decoder", "bundled-inpaint": BUNDLED / "decoder-inpaint"}
LARGEST_SIDE = 8192  # pixels that a pipeline may be made for
OLDEST = "0.31"  # diffusers that this is tested with


@settled()
def load_decoder(
    source: str | Path,
    dtype: torch.dtype = torch.float32,
    adapter: str | Path | None = None,
    device: str | torch.device = "cpu",
    offload: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Decoder:
    """Load a pipeline, from safetensors only, that makes pictures of CLIP image embeddings.

    source: "bundled" or "bundled-inpaint", a miniature of Kandinsky 2.2 for tokens of the bundled CLIP; a folder with a
        model_index.json; or the id of one on the Hugging Face hub (downloaded once, then cached).
    adapter: the file of an IP-Adapter, for pipelines that read text: see `adapters`.
    progress: called with bytes that are here, of how many, while it is downloaded; it may raise to stop, and the next time goes on
        from there. Without, diffusers downloads.
    device: where it is, and runs. offload: a device to bring each part to only while it computes; `device` is then the CPU.

    Raises ModelError when it is not there, not of a kind that takes image embeddings, or has no safetensors; InputError for a
    device that is not here; PackageError when diffusers or a package that it needs is missing, too old, or does not work with those
    beside it.
    """
    device, offload = usable_device(device), None if offload is None else usable_device(offload)
    for package in ("transformers", *(["accelerate"] if offload else [])):
        require(package, USE)
    diffusers = require("diffusers", USE, OLDEST)
    name = str(source)
    source = str(BUNDLED_DECODERS.get(name, source))
    if progress is not None and name not in BUNDLED_DECODERS and not Path(name).is_dir():
        source = str(fetched(name, progress))
    folder = Path(source)
    if name in BUNDLED_DECODERS:
        if not folder.is_dir():
            raise ModelError(f"{folder} is missing: this copy of the library came without its bundled models; install it again")
        name = f"the {name} decoder"
    elif Path(name).is_dir():
        name = folder.name
    if folder.is_dir() and not os.path.isfile(folder / INDEX):
        raise ModelError(f"{folder} is not a folder of diffusers: it has no {INDEX}")
    fingerprint = trained_with(folder)
    with loading_advice(name):
        kind = str(diffusers.DiffusionPipeline.load_config(source).get("_class_name"))
    if kind not in KINDS:
        raise ModelError(f"{name} is a {kind}, which takes no CLIP image embedding here: use one of {', '.join(sorted(KINDS))}")
    called = KINDS[kind]
    require("diffusers", f"{USE} with {kind}", called.since)
    pipeline_class = require_part("diffusers", kind, USE)
    with loading_advice(name):
        variant = variant_in(folder)
        if folder.is_dir():
            check_folder(folder)
        # Each version ignores the other's word for it, and loads float32.
        word = "dtype" if TorchVersion(diffusers.__version__) >= "0.40" else "torch_dtype"
        pipeline = pipeline_class.from_pretrained(source, use_safetensors=True, variant=variant, **{word: dtype})
    pipeline.set_progress_bar_config(disable=True)
    states = False
    if called.way == "decoder":
        width = pipeline.unet.config.encoder_hid_dim
    elif called.way == "unclip":
        width = pipeline.image_normalizer.config.embedding_dim
    elif adapter is None:
        raise ModelError(f"{name} ({kind}) reads text only: choose an IP-Adapter for it, which lets it see image embeddings")
    else:
        added = add_adapter(pipeline, Path(adapter), name)
        width, states = added.width, added.reads_states
        name = f"{name} + {Path(adapter).stem}"
    check_weights(pipeline, name)
    pipeline.to("cpu" if offload else device, silence_dtype_warnings=True)
    decoder = Decoder(name, pipeline, width, states, offload, fingerprint)
    try:
        possible = 1 <= decoder.side <= LARGEST_SIDE and width >= 1
    except (TypeError, ValueError, ArithmeticError):
        possible = False
    if not possible:
        raise ModelError(f"{name} has a sample_size or a width of embeddings that no pipeline has: its config is damaged")
    return decoder


def fetched(name: str, progress: Progress) -> Path:
    """The folder of a pipeline of the hub, downloaded where it is not complete yet. Raises ModelError."""
    here = cached(name, [INDEX])
    if here is not None and is_complete(here.parent):
        return here.parent
    return fetch(name, lambda names: to_download(names, name), progress)
