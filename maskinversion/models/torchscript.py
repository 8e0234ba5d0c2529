"""The weights of a TorchScript archive, such as OpenAI published its CLIPs in, without running the program that is in it.

torch.load refuses these archives with weights_only=True, and torch.jit.load compiles them and runs their `__setstate__`. The
weights lie in them as torch.save writes them: raw numbers in data/, and data.pkl, a pickle that names the modules and their
tensors. Of its instructions those are followed that build plain objects, and nothing is ever looked up by name.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, first_line
from ..files import LARGEST_JSON

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MODULE = "__torch__."
MARK = object()


class Refused(Exception):
    """It holds something else than modules with weights."""


class Part(dict):
    """A module: its tensors and modules by name."""


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The tensors of an archive by their names, on the CPU. Raises ModelError for one that is damaged or holds other things."""
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl") and name.count("/") <= 1)
            root = pickled.removesuffix("data.pkl")
            if archive.getinfo(pickled).file_size > LARGEST_JSON:
                raise Refused("its list of weights is too long")
            top = Builder(archive, f"{root}data/").build(archive.read(pickled))
        return dict(named_tensors(top, "", set()))
    except Exception as error:  # a damaged archive raises almost anything
        raise ModelError(
            f"{path} is a TorchScript archive whose weights cannot be read ({first_line(error)}): download it again, or take the "
            f"same weights as safetensors or by name, such as 'ViT-B-32/openai'"
        ) from error


class Builder:
    """Follows the instructions of a pickle that TorchScript writes. folder: of the raw numbers in the archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}

    def build(self, data: bytes) -> Any:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        for code, argument, _ in pickletools.genops(data):
            self.step(code.name, argument, stack, memo)
        (found,) = stack
        return found

    def step(self, code: str, argument: Any, stack: list, memo: dict[int, Any]) -> None:
        match code:
            case "PROTO" | "STOP" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code])
            case "MARK":
                stack.append(MARK)
            case "EMPTY_TUPLE" | "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE" | "LIST":
                stack.append(marked(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(code[-1])
                stack[-count:] = [stack[-count:]]
            case "APPEND":
                item = stack.pop()
                stack[-1].append(item)
            case "APPENDS":
                items = marked(stack)
                stack[-1].extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = marked(stack)
                set_items(stack[-1], items)
            case "GLOBAL":
                stack.append(argument.replace(" ", "."))
            case "NEWOBJ":
                _, kind = stack.pop(), stack.pop()
                if not (isinstance(kind, str) and kind.startswith(MODULE)):
                    raise Refused(f"it holds a {kind}")
                stack.append(Part())
            case "BUILD":
                state = stack.pop()
                if not isinstance(stack[-1], Part) or not isinstance(state, dict):
                    raise Refused("it fills something else than a module")
                stack[-1].update(state)
            case "BINPERSID":
                stack.append(self.storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(reduced(function, arguments))
            case _:
                raise Refused(f"it asks for {code}")

    def storage(self, about: Any) -> Tensor:
        """The numbers [n] of one file in the archive."""
        _, kind, key, _, count = about
        dtype = DTYPES[kind.rpartition(".")[2]]
        if key not in self.storages:
            file = self.archive.getinfo(f"{self.folder}{key}")
            if file.compress_type != zipfile.ZIP_STORED or file.file_size != count * dtype.itemsize:
                raise Refused(f"the numbers of its part {key} are not complete")
            raw = bytearray(self.archive.read(file))
            self.storages[key] = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
        return self.storages[key].view(dtype)


def marked(stack: list) -> list:
    """What lies above the last mark, which goes with it."""
    start = next(index for index in reversed(range(len(stack))) if stack[index] is MARK)
    found = stack[start + 1 :]
    del stack[start:]
    return found


def set_items(into: Any, items: list) -> None:
    keys, values = items[::2], items[1::2]
    if not isinstance(into, dict) or not all(isinstance(key, str | int) for key in keys):
        raise Refused("its names are no text")
    into.update(zip(keys, values, strict=True))


def reduced(function: Any, arguments: list) -> Any:
    """What one of the few functions that TorchScript calls gives."""
    if function == "torch._utils._rebuild_tensor_v2":
        storage, offset, size, stride = arguments[:4]
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if min([offset, *size, *stride], default=0) < 0 or (0 not in size and last >= len(storage)):
            raise Refused("a tensor reaches beyond its numbers")
        return storage.as_strided(size, stride, offset)
    if function == "torch._utils._rebuild_parameter":
        return arguments[0]
    if function == "collections.OrderedDict":
        return {}
    if isinstance(function, str) and function.startswith("torch.jit._pickle."):  # lists, with the type of what is in them
        return arguments[0]
    raise Refused(f"it calls {function}")


def named_tensors(part: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """Of a module and those in it, each of which counts once."""
    if not isinstance(part, Part):
        raise Refused("it holds no module")
    seen.add(id(part))
    for name, value in part.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Part) and id(value) not in seen:
            yield from named_tensors(value, f"{prefix}{name}.", seen)
