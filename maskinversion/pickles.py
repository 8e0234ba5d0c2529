"""Pickles: read where they hold plain data, without ever running what is in them; walked where PyTorch reads them."""

import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import IO, Any

from .errors import InputError, first_line
from .files import check_file

# Of the largest published file, RefCOCOg's: 9 million instructions, half a million containers.
LARGEST = 2**28  # bytes
MOST_STEPS = 2**25
MOST_CONTAINERS = 2**22
TORCH = 0x1950A86A20F9469CFC6C  # with which files of PyTorch before 1.6 begin
LONGEST_NUMBER = 2**63

NAMES = ("GLOBAL", "STACK_GLOBAL", "INST")  # what looks up a function or a class
EMPTY = {"EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "EMPTY_SET"}
MAKERS = EMPTY | {"LIST", "DICT", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
REMEMBERS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
RECALLS = {"GET", "BINGET", "LONG_BINGET"}
CONTAINERS = (pickletools.pylist, pickletools.pydict, pickletools.pytuple, pickletools.pyset, pickletools.pyfrozenset)
MARK = pickletools.markobject
ANYTHING = pickletools.anyobject  # and with it what a copy is of


class PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, tuples, sets, strings, numbers and None, and nothing else.

    Whatever else a pickle could do starts with looking up a function or a class by its name, and no name is allowed.
    """

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: str | os.PathLike) -> Any:
    """The plain data in a pickle of any protocol, of Python 2 or 3. Raises InputError for anything that is not plain data."""
    if check_file(path).st_size > LARGEST:
        raise InputError(f"{path} has more than {LARGEST} bytes, which no file of expressions needs: it is not read")
    try:
        content = Path(path).read_bytes()
        check_steps(io.BytesIO(content), names=False)
        return PlainUnpickler(io.BytesIO(content), encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path} was refused: {error}. Get it from its publisher, or give the same content as .json") from error
    except OSError as error:
        raise InputError(f"{path} could not be read ({first_line(error)})") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} was refused: it is not plain lists, dicts, strings and numbers, and could run code ({error}). "
            f"Get it from its publisher, or give the same content as .json"
        ) from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise InputError(f"{path} is not a complete pickle ({type(error).__name__}: {first_line(error)})") from error


def check_steps(file: IO[bytes], names: bool = True) -> None:
    """Raises InputError for a pickle that could exhaust the memory or the C stack of who follows its instructions.

    Follows them as far as needed to know the kind of everything on the pickle's stack: keys of dicts and elements of sets must be
    texts or numbers, since a tuple of tuples is hashed by as many calls, one inside the other, as it is deep. file: read up to the
    end of the pickle. names: whether to go on after what looks up a function or a class, for a reader that knows which it allows.
    """
    stack: list[pickletools.StackObject] = []
    memo: dict[Any, pickletools.StackObject] = {}
    marks: list[int] = []
    containers = 0
    for step, (code, argument, _) in enumerate(pickletools.genops(file)):
        if code.name in NAMES and not names:
            return
        if step > MOST_STEPS:
            raise InputError(f"it has more than {MOST_STEPS} instructions")
        if isinstance(argument, int) and not -LONGEST_NUMBER <= argument < LONGEST_NUMBER and argument != TORCH:
            raise InputError("it has a number of more than 64 bits")
        if code.name in REMEMBERS:
            place: Any = len(memo) if code.name == "MEMOIZE" else argument
            if not 0 <= place <= step:  # who writes pickles counts from 0
                raise InputError(f"it remembers something as number {place}, and has done {step} steps")
            memo[place] = stack[-1]
            continue
        if code.name in RECALLS:
            stack.append(memo[argument])
            continue
        if code.name == "MARK":
            marks.append(len(stack))
            continue
        taken = popped(stack, marks, code)
        check_keys(code.name, taken)
        containers += code.name in MAKERS
        if containers > MOST_CONTAINERS:
            raise InputError(f"it has more than {MOST_CONTAINERS} lists, dicts, tuples and sets")
        stack += code.stack_after


def popped(stack: list, marks: list[int], code: pickletools.OpcodeInfo) -> list:
    """What an instruction takes from the stack. marks: how high the stack was at each mark that is still there."""
    before = code.stack_before
    if code.name == "POP" and marks and marks[-1] == len(stack):
        marks.pop()
        return []
    start = len(stack) - len(before)
    if MARK in before:
        if not marks:
            raise InputError("it takes more than there is")
        start = marks.pop() - before.index(MARK)
    if start < 0:
        raise InputError("it takes more than there is")
    taken = stack[start:]
    del stack[start:]
    return taken


def check_keys(name: str, taken: list) -> None:
    """Raises InputError for a key of a dict or an element of a set that is a container, or may be one."""
    if name == "SETITEMS":
        keys = taken[1::2]
    elif name == "SETITEM":
        keys = taken[1:2]
    elif name == "ADDITEMS":
        keys = taken[1:]
    elif name == "DICT":
        keys = taken[::2]
    else:
        keys = taken if name == "FROZENSET" else ()
    if any(key is ANYTHING or key in CONTAINERS for key in keys):
        raise InputError("a key in it is neither a text nor a number")
