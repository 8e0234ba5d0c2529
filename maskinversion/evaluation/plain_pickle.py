"""Reading a pickle that holds plain data without ever running what is in it."""

import os
import pickle
from typing import Any

from ..errors import InputError


class PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, tuples, sets, strings, numbers and None, and nothing else.

    Whatever else a pickle could do starts with looking up a function or a class by its name, and no name is allowed.
    """

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_plain_pickle(path: str | os.PathLike) -> Any:
    """The plain data in a pickle of any protocol, of Python 2 or 3. Raises InputError for anything that is not plain data."""
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except OSError as error:
        raise InputError(f"{path} could not be read ({error})") from error
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} was refused: it is not plain lists, dicts, strings and numbers, and could run code ({error}). "
            f"Get it from its publisher, or give the same content as .json"
        ) from error
    except Exception as error:  # a damaged pickle raises almost anything
        raise InputError(f"{path} is not a complete pickle ({type(error).__name__}: {error})") from error
