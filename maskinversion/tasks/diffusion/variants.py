"""Which of the weights in a folder of diffusers to load: those at full precision, or a variant where there are no others."""

import re
from pathlib import Path

from ...errors import ModelError
from ...models.content import SAFETENSORS, kind_of

# model.safetensors, model.fp16.safetensors, and in parts model.fp16-00001-of-00002.safetensors or, as it was, the other way round.
PART = r"-\d+-of-\d+"
NAME = re.compile(rf"(?:diffusion_pytorch_model|pytorch_model|model)(?:{PART})?(?:\.(?P<variant>\w+?))?(?:{PART})?\.safetensors")
PREFERRED = ("fp16", "bf16")


def variant_in(folder: Path) -> str | None:
    """The variant to load, such as "fp16"; None where every part has weights without one.

    Raises ModelError for weights that are something else, such as a Git LFS pointer, and where there is no variant of all parts.
    """
    by_part: dict[str, set[str | None]] = {}
    for file in sorted(folder.glob("*/*")):
        if match := NAME.fullmatch(file.name.lower()):
            if kind_of(file) != SAFETENSORS:
                raise ModelError(f"{file} is not a safetensors file: download it again")
            by_part.setdefault(file.parent.name, set()).add(match["variant"])
    lacking = {part: variants for part, variants in by_part.items() if None not in variants}
    if not lacking:
        return None
    common = set.intersection(*lacking.values()) - {None}
    if not common:
        some = "; ".join(f"{part} as {', '.join(sorted(map(str, variants)))}" for part, variants in lacking.items())
        raise ModelError(f"{folder} has its parts in variants that do not go together ({some}): download one variant of all parts")
    return min(map(str, common), key=lambda name: (*(name != one for one in PREFERRED), name))
