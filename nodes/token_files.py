"""Tokens in files: inside ComfyUI's output and input folders, and nowhere else."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..maskinversion import InputError, LocalizedTokens
from ..maskinversion.operations import stack
from .support.files import NOTHING_FOUND, inside, relative, stamp, written_name
from .support.progress import with_shown
from .support.token_outputs import outputs, result
from .support.types import TOKENS_CATEGORY, Tokens, TokensSocket

OUTPUT = " [output]"
TOKENS = ("tokens", "Save Tokens")  # what is in the files, and which node writes them


class SaveTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionSaveTokens",
            display_name="Save Tokens",
            category=TOKENS_CATEGORY,
            description="Writes tokens as safetensors into ComfyUI's output folder, with the name of the CLIP that they are of.",
            search_aliases=["save embedding"],
            inputs=[
                TokensSocket.Input("tokens", tooltip="What to save: from MaskInversion, or changed since."),
                io.String.Input(
                    "filename_prefix",
                    default="tokens/region",
                    tooltip="Folder and beginning of the name, as in Save Image; a number is added. One file per picture.",
                ),
            ],
            outputs=[io.String.Output(display_name="files", tooltip="What was written, one a line, inside the output folder.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, tokens: Tokens, filename_prefix: str) -> io.NodeOutput:
        return saved(filename_prefix, [one.save for one in tokens])


class LoadTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MaskInversionLoadTokens",
            display_name="Load Tokens",
            category=TOKENS_CATEGORY,
            description="Reads tokens that Save Tokens, or the library, wrote.",
            search_aliases=["load embedding"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=found_files() or [NOTHING_FOUND],
                    tooltip="A safetensors file of tokens in ComfyUI's input or output folder. Press R to refresh the list.",
                )
            ],
            outputs=[*outputs("The tokens of the file."), io.String.Output(display_name="clip", tooltip="Which CLIP they are of.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str) -> tuple:
        return file, stamp(located(file, *TOKENS))

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        tokens = stack([LocalizedTokens.load(located(file, *TOKENS))])
        return result(tokens, tokens[0].model)


def found_files() -> list[str]:
    """Files in the input folder, then those in the output folder, which end in `[output]`."""
    found = []
    for base, mark in ((folder_paths.get_input_directory(), ""), (folder_paths.get_output_directory(), OUTPUT)):
        paths = sorted(path for path in Path(base).rglob("*.safetensors") if not path.name.startswith("."))
        found += [name + mark for name in relative([(Path(base), path) for path in paths])]
    return found


def located(file: str, what: str, node: str) -> Path:
    """A file or folder. what: it holds; node: that writes such.

    Raises InputError for one that is not there, or not inside ComfyUI's two folders.
    """
    in_output = file.endswith(OUTPUT)
    base = folder_paths.get_output_directory() if in_output else folder_paths.get_input_directory()
    path = inside(base, file.removesuffix(OUTPUT))
    if file == NOTHING_FOUND or path is None or not os.path.exists(path):
        missing = f"there are no {what} yet" if file == NOTHING_FOUND else f"there is no {file} in {base}"
        raise InputError(f"{missing}: write some with {node}, or put them into {folder_paths.get_input_directory()}")
    return path


def saved(filename_prefix: str, writers: Sequence[Callable[[Path], None]]) -> io.NodeOutput:
    """The names of the files that each of `writers` wrote, numbered, in ComfyUI's output folder.

    Raises InputError for a prefix that is not the beginning of a file's name there.
    """
    base = folder_paths.get_output_directory()
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(written_name(filename_prefix, base), base)
    except OSError as error:
        raise InputError(
            f"filename_prefix {filename_prefix!r} cannot be written ({error.strerror}): choose another folder or name"
        ) from error
    written = []
    for number, write in enumerate(writers, counter):
        path = Path(folder, f"{name}_{number:05}_.safetensors")
        write(path)
        written.append(path.relative_to(base).as_posix())
    files = "\n".join(written)
    return with_shown(files, text=files)


NODES = (SaveTokens, LoadTokens)
