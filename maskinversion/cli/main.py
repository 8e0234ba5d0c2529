"""The command line, `maskinversion COMMAND`. It only translates; the library does the work.

A command is a module beside this one, which is imported when the command is called. `add_arguments` says what it takes without
importing torch, so that --help is quick; `run` imports what it needs.
"""

import argparse
import os
import sys
import traceback
import warnings
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import NoReturn

from ..errors import InputError, InputWarning, MaskInversionError, memory_advice

# The module of each command, and its line in --help.
COMMANDS = {
    "invert": ("invert", "learn the token of each masked region"),
    "classify": ("classify", "say which phrase, or which class of a classifier, each region is"),
    "train": ("train", "learn a classifier of regions from tokens with labels"),
    "caption": ("caption", "write captions of each region"),
    "prompt": ("prompt", "write a prompt of each region, of lists of phrases"),
    "search": ("search", "find regions in a table, by a phrase or a region; group them; draw a map of them"),
    "demo": ("demo", "name the regions of a bundled scene, offline"),
    "embed": ("embed", "the tokens of regions of many pictures, in a table of Parquet files"),
    "eval": ("evaluate", "how well regions are named and found on a data set, against other methods"),
    "bench": ("bench", "time and memory against other ways to the same tokens (many minutes)"),
    "doctor": ("doctor", "print versions, devices and the models found"),
}
DEBUG = "--debug"
LESS_MEMORY = "give a smaller picture, fewer masks at a time, or another --device"


class Parser(argparse.ArgumentParser):
    """Its errors are the library's."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ({self.prog} --help says what there is)")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 after an error, which is printed in one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # no letter of a phrase or a file name stops a command
    argv = sys.argv[1:] if argv is None else argv
    debug = DEBUG in argv
    argv = [word for word in argv if word != DEBUG]
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show_warning
        try:
            args = parser(argv).parse_args(argv)
            with memory_advice("this", LESS_MEMORY):
                args.run(args)
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # who reads what is printed has gone, such as `head`
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if debug:
                traceback.print_exc()
            say(explained(error))
            return 1
    return 0


def explained(error: Exception) -> str:
    if isinstance(error, MaskInversionError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename} could not be read or written ({error.strerror})"
    return f"internal error: {type(error).__name__}: {error}; run with {DEBUG} for the traceback"


def show_warning(message: Warning | str, category: type[Warning], *where: object, **others: object) -> None:
    say(str(message) if issubclass(category, InputWarning) else f"{category.__name__}: {message}")


def say(words: str) -> None:
    print("maskinversion:", " ".join(words.splitlines()), file=sys.stderr)


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """Knows every command by name, and the arguments of the one that is called."""
    top = Parser(prog="maskinversion", description="A picture and a mask in, an embedding of that region out.")
    top.add_argument(DEBUG, action="store_true", help="show the traceback of an error; may stand anywhere")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, words) in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        if name == called:
            try:
                found = import_module(f".{module}", __package__)
            except ModuleNotFoundError as error:
                if not (error.name or "").startswith(__name__.partition(".cli")[0]):
                    raise
                raise InputError(f"{name} is not in the pack as ComfyUI installs it: take it from the repository") from error
            found.add_arguments(command)
            command.set_defaults(run=found.run)
    return top
