"""Which of the weights in a folder of diffusers to load: those at full precision, or a variant where there are no others."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...errors import ModelError
from ...files import read_json
from ...models.content import SAFETENSORS, kind_of

# model.safetensors, model.fp16.safetensors, and in parts model.fp16-00001-of-00002.safetensors or, as it was, the other way round.
PART = r"-\d+-of-\d+"
NAME = re.compile(rf"(?:diffusion_pytorch_model|pytorch_model|model)(?:{PART})?(?:\.(?P<variant>\w+?))?(?:{PART})?\.safetensors")
PREFERRED = ("fp16", "bf16")
INDEX = "model_index.json"
DESCRIPTIONS = (".json", ".txt", ".model")


def variant_in(folder: Path) -> str | None:
    """The variant to load, such as "fp16"; None where every part has weights without one.

    Raises ModelError for weights that are something else, such as a Git LFS pointer, and where there is no variant of all parts.
    """
    files = sorted(folder.glob("*/*"))
    for file in files:
        if NAME.fullmatch(file.name.lower()) and kind_of(file) != SAFETENSORS:
            raise ModelError(f"{file} is not a safetensors file: download it again")
    return variant_of((file.relative_to(folder).as_posix() for file in files), str(folder))


def variant_of(names: Iterable[str], where: str) -> str | None:
    """The same of names such as unet/diffusion_pytorch_model.fp16.safetensors. where: the pipeline, in the message."""
    lacking = {part: variants for part, variants in variants_by_part(names).items() if None not in variants}
    if not lacking:
        return None
    common = set.intersection(*lacking.values()) - {None}
    if not common:
        some = "; ".join(f"{part} as {', '.join(sorted(map(str, variants)))}" for part, variants in lacking.items())
        raise ModelError(f"{where} has its parts in variants that do not go together ({some}): download one variant of all parts")
    return min(map(str, common), key=lambda name: (*(name != one for one in PREFERRED), name))


def variants_by_part(names: Iterable[str]) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for part, variant in filter(None, map(part_and_variant, names)):
        found.setdefault(part, set()).add(variant)
    return found


def part_and_variant(name: str) -> tuple[str, str | None] | None:
    """Of a file of weights in one of a pipeline's folders; None for others."""
    part, _, file = name.partition("/")
    match = NAME.fullmatch(file.lower())
    return (part, match["variant"]) if match else None


def to_download(names: Sequence[str], where: str) -> list[str]:
    """Of all files of a pipeline on the hub: its descriptions, and the weights of each part once, of no variant where it can be.

    Raises ModelError for what is no pipeline of diffusers, or has no safetensors.
    """
    if INDEX not in names:
        raise ModelError(f"{where} is no pipeline of diffusers: it has no {INDEX}")
    by_part = variants_by_part(names)
    if not by_part:
        raise ModelError(f"{where} has no weights as safetensors: take another copy of this pipeline")
    variant = variant_of(names, where)
    small = [name for name in names if name.count("/") <= 1 and name.endswith(DESCRIPTIONS)]
    best = {part: variant if variant in variants else None for part, variants in by_part.items()}
    return small + [name for name in names if (found := part_and_variant(name)) and found[1] == best[found[0]]]


def is_complete(folder: Path) -> bool:
    """Whether every part that a pipeline names is there, with weights where it has a description of a model."""
    index = read_json(folder / INDEX, ModelError)
    parts = [folder / name for name, made_of in index.items() if isinstance(made_of, list) and None not in made_of]
    return all(
        part.is_dir() and (any(part.glob("*.safetensors")) or not (part / "config.json").exists()) for part in parts
    )
