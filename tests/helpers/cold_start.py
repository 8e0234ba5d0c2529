"""Threads that share one inverter, CLIP, decoder and captioner from a cold start, in many processes: the same bits everywhere.

    python -m tests.helpers.cold_start --processes 50 --threads 8

Each process makes everything once and lets its threads begin at the same moment, each with another job first. The first process has
one thread, whose digests all others must have. Prints how many jobs there were and which differed; the status is 1 where one did.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import torch

import maskinversion as mi
from maskinversion.compute.cached_product import forget_products
from maskinversion.files import CACHE
from maskinversion.tasks.caption import Decoding, load_captioner
from maskinversion.tasks.classify import classify
from maskinversion.tasks.diffusion import Settings, load_decoder
from maskinversion.tasks.texts import remembered
from tests.helpers.digests import digest


class Shared:
    """One of everything, as nobody has used it yet; and the jobs that are done with it."""

    def __init__(self):
        forget_products()
        remembered.clear()
        self.clip = mi.load_clip("bundled", device="cpu")
        self.inverter = mi.MaskInverter(self.clip)
        self.decoder, self.inpainter = load_decoder("bundled"), load_decoder("bundled-inpaint")
        self.captioner = load_captioner("bundled", device="cpu")
        generator = torch.Generator().manual_seed(0)
        self.image = torch.rand(96, 128, 3, generator=generator)
        self.masks = torch.zeros(3, 96, 128)
        for number, mask in enumerate(self.masks):
            mask[10 * number : 40 + 10 * number, 20:90] = 1
        picture = torch.rand(96, 128, 3, generator=generator)
        inverter = mi.MaskInverter(mi.load_clip("bundled", device="cpu"))
        self.tokens = inverter.invert(inverter.encode(picture), self.masks)
        forget_products()

    def inversion(self) -> str:
        found = self.inverter.invert(self.inverter.encode(self.image), self.masks)
        return digest(found.embeddings, found.maps, found.losses)

    def names(self) -> str:
        return digest(classify(self.tokens.embeddings, self.clip, [f"thing {number}" for number in range(12)]).similarities)

    def captions(self) -> str:
        decodings = Decoding(), Decoding("beam", 2, beams=3), Decoding("sample", 2)
        return json.dumps([self.captioner.caption(self.tokens, decoding) for decoding in decodings])

    def pictures(self) -> str:
        return digest(self.decoder.generate([self.tokens], Settings(steps=3)))

    def painting(self) -> str:
        return digest(self.inpainter.inpaint([self.tokens], self.image, self.masks[:1], Settings(steps=3)))

    def jobs(self, start: int = 0) -> dict[str, str]:
        """The digest of every job, done in turn from one of them on."""
        every = [self.inversion, self.names, self.captions, self.pictures, self.painting]
        done = {job.__name__: job() for number in range(len(every)) for job in [every[(start + number) % len(every)]]}
        return dict(sorted(done.items()))


def at_once(threads: int, work: Callable[[int], dict]) -> list[dict]:
    """What work(0), work(1), ... give, each in a thread of its own, all begun at the same moment."""
    barrier = threading.Barrier(threads)
    found: list[dict] = [{} for _ in range(threads)]

    def run(number: int) -> None:
        barrier.wait()
        try:
            found[number] = work(number)
        except Exception as error:
            found[number] = {"error": repr(error)}

    started = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return found


def process(threads: int) -> list[dict]:
    command = [sys.executable, "-m", "tests.helpers.cold_start", "--threads", str(threads), "--here"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {CACHE: "off"})
    if done.returncode:
        return [{"error": done.stderr.strip()[-300:]}]
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=50)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--here", action="store_true", help="in this process only; prints the digests")
    args = parser.parse_args()
    if args.here:
        shared = Shared()
        print(json.dumps(at_once(args.threads, lambda number: shared.jobs(start=number))))
        return 0
    begun = time.monotonic()
    (alone,) = process(1)
    print("alone:", alone, flush=True)
    if "error" in alone:
        return 1
    jobs, differ = 0, []
    for number in range(1, args.processes + 1):
        for thread, found in enumerate(process(args.threads)):
            jobs += len(found)
            other = {name: value for name, value in found.items() if alone.get(name) != value}
            differ += [f"process {number}, thread {thread}: {name} {value}" for name, value in other.items()]
        print(f"{number} processes, {jobs} jobs, {len(differ)} differ, {time.monotonic() - begun:.0f} s", flush=True)
    print(*differ, sep="\n", end="\n" if differ else "")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
