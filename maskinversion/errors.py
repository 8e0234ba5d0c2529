"""The errors that people see. Every message says what was wrong with which input, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class MaskInversionError(Exception):
    """Base class of every error that this library raises on purpose. Its message can be written in UTF-8, whatever the names of
    files in it are: what cannot be sent or logged stops ComfyUI's queue."""

    def __init__(self, message: object = ""):
        super().__init__(encodable(str(message)))


class InputError(MaskInversionError, ValueError):
    """An image, a mask or a parameter cannot be used."""


class InputWarning(UserWarning):
    """An image or a mask is used, but not quite as it is, or looks like something else."""


class ModelError(MaskInversionError, ValueError):
    """A model cannot be found, read, or used for MaskInversion."""


class PackageError(MaskInversionError):
    """A package that this task needs is missing, too old, or does not work with those beside it."""


class MemoryLimitError(MaskInversionError, MemoryError):
    """There is not enough memory for this image, these masks and this model."""


@contextmanager
def memory_advice(what: str, advice: str) -> Iterator[None]:
    """Turns an out-of-memory error, of any device, into a MemoryLimitError that says for what, and what to change."""
    try:
        yield
    except MemoryLimitError:  # which has better advice
        raise
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryLimitError(f"there is not enough memory for {what}: {advice}") from error


def out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    by_class = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, on any device
    return by_class or "out of memory" in words or "allocate" in words


def encodable(text: str) -> str:
    """A text with what UTF-8 cannot write, as in names of files in another encoding, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; the name of its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
