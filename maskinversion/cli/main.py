"""The command line, `maskinversion COMMAND`. It only translates; the library does the work.

A command is a module beside this one, which is imported when the command is called. `add_arguments` says what it takes without
importing torch, so that --help is quick; `run` imports what it needs.
"""

import argparse
import sys
import warnings
from importlib import import_module

from ..errors import InputWarning, MaskInversionError

# The module of each command, and its line in --help.
COMMANDS = {
    "invert": ("invert", "learn the token of each masked region"),
    "classify": ("classify", "say which phrase each region is"),
    "caption": ("caption", "write captions of each region"),
    "demo": ("demo", "name the regions of a bundled scene, offline"),
    "eval": ("evaluate", "how well regions are named and found on a data set, against other methods"),
    "bench": ("bench", "time and memory against other ways to the same tokens (many minutes)"),
    "doctor": ("doctor", "print versions, devices and the models found"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status, 1 after an error that is printed in one line."""
    argv = sys.argv[1:] if argv is None else argv
    args = parser(argv).parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = show_warning
        try:
            args.run(args)
        except MaskInversionError as error:
            print(f"maskinversion: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    return 0


def show_warning(message: Warning | str, category: type[Warning], *where: object, **others: object) -> None:
    words = message if issubclass(category, InputWarning) else f"{category.__name__}: {message}"
    print(f"maskinversion: {words}", file=sys.stderr)


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """Knows every command by name, and the arguments of the one that is called."""
    top = argparse.ArgumentParser(prog="maskinversion", description="A picture and a mask in, an embedding of that region out.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    called = next((word for word in argv if not word.startswith("-")), None)
    for name, (module, words) in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        if name == called:
            found = import_module(f".{module}", __package__)
            found.add_arguments(command)
            command.set_defaults(run=found.run)
    return top
