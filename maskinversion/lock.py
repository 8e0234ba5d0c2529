"""One run at a time in a folder, by a lock of the operating system, which ends with the process however that ends."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError

NAME = "running.lock"
HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
AWAY = 2**30  # the byte that is locked on Windows: beyond the text, which stays readable

if sys.platform == "win32":
    import msvcrt

    def hold(handle: int) -> None:
        os.lseek(handle, AWAY, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def hold(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps others from working in a folder, which is made if need be, for as long as the block runs.

    Raises InputError when another does, with the number of its process, or when nothing can be written there.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = take(path)
    except OSError as error:
        raise InputError(f"{folder} cannot be written to ({error.strerror}): give another folder") from error
    try:
        os.write(handle, f"{os.getpid()}\n".encode())
        os.truncate(handle, os.lseek(handle, 0, os.SEEK_CUR))
        yield
    finally:
        if sys.platform == "win32":  # where an open file cannot be deleted
            os.close(handle)
            delete(path)
        else:  # before it is let go, so that nobody's own is deleted
            delete(path)
            os.close(handle)


def take(path: Path) -> int:
    """The handle of the locked file."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            hold(handle)
        except OSError as error:
            if error.errno in HELD:
                number = os.read(handle, 20).decode("ascii", "replace").strip()
                os.close(handle)
                raise InputError(
                    f"another run{f' (process {number})' if number else ''} is writing to {path.parent}: wait until it ends, or "
                    f"give another folder"
                ) from error
            return handle  # a file system without locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        os.close(handle)  # the run before deleted it between our opening and locking it


def delete(path: Path) -> None:
    with suppress(OSError):  # another run may have opened it
        path.unlink()
