"""Gives inputs to one reader until the time is over; ends where one takes too long or too much memory, which the caller sees."""

import faulthandler
import hashlib
import json
import os
import random
import sys
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

TIMEOUT = 30  # seconds for one input
MEMORY = 4096  # MB of this process, of which PyTorch and transformers take one
MOST = 2**20  # bytes of an input

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import atheris
except ImportError:
    atheris = None


def main() -> None:
    name, scratch, finds, seconds, inputs, seed = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:])
    warnings.simplefilter("ignore")
    if atheris:
        with atheris.instrument_imports(include=["maskinversion"]):
            from tests.fuzz import readers
    else:
        from tests.fuzz import readers
    from maskinversion.errors import MaskInversionError
    from tests.fuzz.mutate import mutated

    readers.allow_own_pickles()
    reader, end, count = readers.READERS[name], time.monotonic() + seconds, 0
    (scratch / "seeds").mkdir()
    (scratch / "here").mkdir()
    seeds = reader.seeds(scratch / "seeds")
    taken = 0
    for content in seeds:
        with suppress(MaskInversionError):  # a picture in colour is no mask
            readers.run(reader, content, scratch / "here")
            taken += 1
    if reader.begins and not taken:
        sys.exit(f"{name} takes none of the inputs to begin with")
    watch(scratch)

    def one(content: bytes) -> None:
        nonlocal count
        if time.monotonic() > end or count >= inputs:
            (scratch / "count.json").write_text(json.dumps(count))
            os._exit(0)
        (scratch / "current").write_bytes(content)
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        try:
            readers.run(reader, content, scratch / "here")
        except MaskInversionError as error:
            str(error).encode()
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            sign = f"{type(error).__name__} {Path(last.filename).name} {last.lineno}"
            find = finds / f"{name}-{type(error).__name__}-{hashlib.sha256(sign.encode()).hexdigest()[:8]}"
            if not find.exists():
                find.write_bytes(content)
                find.with_name(f"{find.name}.txt").write_text(traceback.format_exc(), errors="backslashreplace")
        faulthandler.cancel_dump_traceback_later()
        count += 1
        if count % 50 == 0:
            (scratch / "count.json").write_text(json.dumps(count))

    if atheris is None:
        chance = random.Random(seed)
        while True:
            one(mutated(chance.choice(seeds), chance.randrange(2**32), MOST))
    corpus = scratch / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds):
        (corpus / str(number)).write_bytes(content)
    options = [f"-seed={seed}", f"-max_len={MOST}", f"-rss_limit_mb={MEMORY}", f"-artifact_prefix={scratch}/", "-len_control=0"]

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        """Of a seed half of the time: most of what reached something new was refused early."""
        return mutated(content if seed % 2 else seeds[seed // 2 % len(seeds)], seed, most)

    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def watch(scratch: Path) -> None:
    """From now on, nothing is run, and nothing written outside of `scratch` but finds."""

    def check(event: str, arguments: tuple) -> None:
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
            raise SystemError(f"{event} {arguments}")
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            allowed = (str(scratch), sys.argv[3], "/dev/", "/proc/")
            if writes and not os.path.abspath(arguments[0]).startswith(allowed):
                raise SystemError(f"{event} {arguments}")

    sys.addaudithook(check)


if __name__ == "__main__":
    main()
