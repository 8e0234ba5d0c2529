"""Phrases to choose from: what is written on a node, a list that comes with the pack, or a text file in ComfyUI's input folder."""

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ...maskinversion import Clip, InputError
from ...maskinversion.files import read_lines
from ...maskinversion.tasks.phrases import NAMES, TEMPLATES
from .files import inside, relative, stamp

WRITTEN = "as written"
THINGS = "things"
NONE = "none"
LISTS = {"98 names of the bundled CLIP": "bundled", "1000 names of ImageNet": "imagenet"}
CONNECT = (
    "connect the CLIP that made them. A CLIP_VISION cannot read text: load its weights with Load CLIP for MaskInversion instead"
)
OR_LISTED = "One a line. Empty: those of word_list or, with the bundled CLIP, all names that it knows."


def phrases_input(tooltip: str = OR_LISTED) -> io.Input:
    return io.String.Input(
        "phrases",
        multiline=True,
        default="",
        placeholder="One phrase a line, such as: a red car",
        tooltip=tooltip,
    )


def list_input() -> io.Input:
    return io.Combo.Input(
        "word_list",
        options=[WRITTEN, *LISTS, *text_files()],
        default=WRITTEN,
        optional=True,
        tooltip="More phrases: a list that comes with the pack, or a .txt file, one phrase a line, in ComfyUI's input folder.",
    )


def text_files() -> list[str]:
    base = Path(folder_paths.get_input_directory())
    return relative([(base, path) for path in sorted(base.rglob("*.txt"))])


def list_stamp(word_list: str) -> tuple:
    """Changes when a text file does."""
    return stamp(Path(folder_paths.get_input_directory(), word_list))


def read_list(name: str) -> list[str]:
    """The phrases of a list that comes with the pack, or of a text file.

    Raises InputError for a file that is gone, is not text, or is not in the input folder.
    """
    if name in LISTS:
        return NAMES[LISTS[name]]()
    path = inside(folder_paths.get_input_directory(), name)
    if path is None:
        raise InputError(f"{name} is not in ComfyUI's input folder: choose a list, or put the file there")
    try:
        return read_lines(path)
    except InputError as error:
        raise InputError(f"the phrases could not be read from {name}: {error}") from error


def chosen_phrases(phrases: str, word_list: str, clip: Clip) -> list[str]:
    """Raises InputError as `read_list`."""
    lines = phrases.splitlines() + (read_list(word_list) if word_list != WRITTEN else [])
    if not any(line.strip() for line in lines) and clip.name == "bundled":
        lines = NAMES["bundled"]()
    return lines


def sentences(template: str, templates: str) -> list[str]:
    """What phrases are put into: what is written in `template`, one a line, or the list that `templates` names."""
    return TEMPLATES[templates] if templates in TEMPLATES else [line for line in template.splitlines() if line.strip()]


def one_a_line(text: str, count: int) -> list[str]:
    """The lines of a text that should have `count`, without blanks around them: what follows the last line break is none."""
    lines = [line.strip() for line in text.split("\n")]
    return lines[:-1] if len(lines) == count + 1 and not lines[-1] else lines


def whole_numbers(text: str) -> list[int]:
    """Of a text with commas between them. Raises InputError for anything else."""
    try:
        return [int(number) for number in text.replace(",", " ").split()]
    except ValueError as error:
        raise InputError(f"numbers is {text!r}; write whole numbers with commas between, such as 0, 2") from error
