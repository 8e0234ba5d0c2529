"""What models are on disk, and what each can be used for: one list for `maskinversion doctor` and for people who look for a file.

Of weights only their names and shapes are read. What a file is called, and the folder that it is in, say nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import MaskInversionError, ModelError
from ..files import read_json
from ..models.catalogue import names_on_the_hub
from ..models.content import SAFETENSORS, TORCHSCRIPT, is_weights, kind_of
from ..models.fitting import architectures_of, described
from ..models.folder import CONFIG, check_folder, weights_in
from ..models.weights import metadata_in, shapes_in
from ..tokens import FORMAT as TOKENS
from .classifier_files import FORMAT as CLASSIFIER
from .diffusion.kinds import KINDS
from .diffusion.variants import INDEX, is_complete, variant_in

OURS = {TOKENS: ("tokens of regions", "Load Tokens"), CLASSIFIER: ("a classifier of regions", "Load Region Classifier")}
LAYER = "vision_model.encoder.layers.{}.layer_norm1.weight"
LOAD_CLIP, NATIVE = "Load CLIP for MaskInversion", "Load CLIP Vision"


@dataclass(frozen=True)
class Found:
    """A file or folder. what: it is. use: where to load it, and for what; '' where it is of no use here, and `what` says why."""

    path: Path
    what: str
    use: str = ""

    def __str__(self) -> str:
        return f"{self.path.name}: {self.what}{f' -> {self.use}' if self.use else ''}"


def inventory(folders: Iterable[Path]) -> list[Found]:
    """Every model in these folders and those inside; a folder that is a model counts once."""
    return [look(path) for folder in folders if folder.is_dir() for path in models_in(folder)]


def models_in(folder: Path) -> Iterator[Path]:
    inside = sorted(folder.iterdir())
    if any((folder / name).is_file() for name in (CONFIG, INDEX)):
        yield folder
        return
    for path in inside:
        if path.is_dir():
            yield from models_in(path)
        elif is_weights(path):
            yield path


def look(path: Path) -> Found:
    """What a file of weights, or a model's folder, is. Damaged ones are named, too: nothing is raised."""
    try:
        return of_folder(path) if path.is_dir() else of_file(path)
    except MaskInversionError as error:
        return Found(path, str(error).removeprefix(f"{path} "))


def of_folder(path: Path) -> Found:
    if not (path / INDEX).is_file():
        check_folder(path)
        weights_in(path)
        return Found(path, "a CLIP of open_clip with its description", f"{LOAD_CLIP}, file; local-dir:{path}")
    kind = str(read_json(path / INDEX, ModelError).get("_class_name"))
    called = KINDS.get(kind)
    if called is None:
        return Found(path, f"a pipeline of diffusers ({kind}) that takes no CLIP image embedding here")
    if not is_complete(path):
        return Found(path, f"a pipeline of diffusers ({kind}) that is not complete: download it again, as safetensors")
    variant = variant_in(path)
    what = f"a pipeline of diffusers ({kind}{f', as {variant}' if variant else ''})"
    uses = ["new pictures"] * called.makes + ["painting into a picture"] * (called.inpainter is not None)
    adapter = f" and an IP-Adapter for {called.adapter}" if called.adapter else ""
    return Found(path, what, f"Load Pipeline for Tokens{adapter}, for {' and '.join(uses)}")


def of_file(path: Path) -> Found:
    kind = kind_of(path)
    if kind == TORCHSCRIPT:
        return Found(path, "a TorchScript archive, as OpenAI published its CLIPs", f"{LOAD_CLIP}, file")
    if kind != SAFETENSORS:
        return Found(path, "a file of PyTorch, which says what it is when it is loaded", "the node of its folder")
    shapes, written_as = shapes_in(path), metadata_in(path).get("format")
    return Found(path, *OURS[written_as]) if written_as in OURS else of_weights(path, shapes)


def of_weights(path: Path, shapes: Mapping[str, Sequence[int]]) -> Found:
    if "clip_project.model.0.weight" in shapes or any(key.startswith("clip_project.") for key in shapes):
        return Found(path, "a captioner (ClipCap)", "Load Captioner")
    if any(key.startswith(("image_proj.", "ip_adapter.")) for key in shapes):
        shape = shapes.get("image_proj.proj.weight", ())
        if len(shape) == 2 and "image_proj.norm.weight" in shapes:
            what = f"a basic IP-Adapter for embeddings of {shape[1]} numbers"
            return Found(path, what, "Load Pipeline for Tokens, with SD 1.5 or XL")
        if "image_proj.latents" in shapes and len(shape := shapes.get("image_proj.proj_in.weight", ())) == 2:
            timed = "image_proj.time_embedding.linear_1.weight" in shapes
            what = f"an IP-Adapter{'' if timed else ' Plus'} for hidden states of {shape[1]} numbers"
            return Found(path, what, f"Load Pipeline for Tokens, with {'SD 3.5' if timed else 'SD 1.5, XL or Kolors'}")
        return Found(path, "an IP-Adapter that reads something else, as Full and FaceID do: take a basic one or Plus")
    if len(shape := shapes.get("ip_adapter_proj_model.proj.weight", ())) == 2:
        what = f"XLabs's IP-Adapter for embeddings of {shape[1]} numbers"
        return Found(path, what, "Load Pipeline for Tokens, with FLUX or Chroma")
    if any(key.startswith("embedder.model.visual.") for key in shapes):
        use = "unCLIPCheckpointLoader, and its CLIP_VISION for MaskInversion"
        return Found(path, "a checkpoint of unCLIP with its own CLIP vision", use)
    if found := architectures_of(shapes):
        return Found(path, f"a CLIP of open_clip ({' or '.join(found)})", f"{LOAD_CLIP}, file, with that architecture")
    if any(key.startswith("vision_model.") for key in shapes):
        return Found(path, f"an image side of a CLIP{native_name(shapes)}", f"{NATIVE}, for MaskInversion")
    if any(key.startswith("visual.") for key in shapes) and described(shapes):
        return Found(path, "an image side of a CLIP of open_clip", f"{NATIVE}, for MaskInversion")
    if what := described(shapes):
        return Found(path, what)
    if any(key.startswith("visual.") for key in shapes):
        return Found(path, "a CLIP of open_clip", f"{LOAD_CLIP}, file, with the architecture that it was made for")
    return Found(path, "holds weights of something that this pack does not know")


def native_name(shapes: Mapping[str, Sequence[int]]) -> str:
    """Which of those that ComfyUI knows, by what it tells them apart."""
    positions = shapes.get("vision_model.embeddings.position_embedding.weight", (0,))[0]
    if LAYER.format(47) in shapes:
        return " (ViT-bigG-14)"
    if LAYER.format(30) in shapes:
        return " (ViT-H-14)"
    if LAYER.format(22) not in shapes:
        return ""
    if shapes[LAYER.format(0)][0] == 1152:
        flat = len(shapes.get("vision_model.embeddings.patch_embedding.weight", ())) == 2
        return " (SigLIP 2 naflex)" if flat else f" (SigLIP so400m {512 if positions == 1024 else 384})"
    return " (ViT-L-14-336)" if positions == 577 else " (ViT-L-14)"


def downloaded(cache: Path) -> list[tuple[str, Found]]:
    """What the hub's cache has, each with its OWNER/NAME, and the names by which open_clip's are chosen."""
    names, found = names_on_the_hub(), []
    for folder in sorted(cache.glob("models--*")):
        repository = folder.name.removeprefix("models--").replace("--", "/")
        snapshots = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime)
        for model in inventory(snapshots[-1:]):
            if chosen := names.get(repository):
                model = Found(model.path, model.what, f"{LOAD_CLIP}, open_clip: {', '.join(chosen)}")
            found.append((repository, model))
    return found
