"""One measurement in a process of its own: `python -m maskinversion.bench.worker CASE.json`, prints JSON.

The published package has its own open_clip, and its module is called `maskinversion` too: for it this file is run by its path,
so nothing of this library may be imported at the top.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from maskinversion import EncodedImage, LocalizedTokens, MaskInverter

STARTS = ("patches", "cutout", "both")  # exact, from another start than the whole picture
QUICK = 5.0  # seconds: what is done sooner is repeated more often


def inputs(size: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image [size, size, 3] and masks [count, size, size], the same in every process."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(count, 1, 6, 6, generator=generator)
    masks = (F.interpolate(noise, size=size, mode="bilinear")[:, 0] > 0.5).float()
    masks[:, size // 3 : size // 2, size // 3 : size // 2] = 1  # none is empty
    return torch.rand(size, size, 3, generator=generator), masks


def prepare(case: dict) -> tuple[Callable[[], object], Callable[[], object]]:
    """The floor, which is one plain encoder pass, and the job: image to tokens, the encoding included."""
    import open_clip

    torch.manual_seed(0)
    image, masks = inputs(case["size"], case["masks"])
    pixels = (image.permute(2, 0, 1)[None] * 2 - 1).to(case["device"])
    model: Any = open_clip.create_model(case["model"], force_image_size=case["size"]).eval().requires_grad_(False)
    visual = model.visual.to(case["device"])

    @torch.no_grad()
    def floor() -> None:
        visual(pixels)

    return floor, floor if case["method"] == "forward" else whole_job(case, visual, image, pixels, masks)


def whole_job(case: dict, visual: Any, image: torch.Tensor, pixels: torch.Tensor, masks: torch.Tensor) -> Callable[[], object]:
    iterations, lr, device = case["iterations"], case["lr"], case["device"]
    if case["method"] == "reference":
        import open_clip

        from maskinversion import MaskInversion

        masks = masks.to(device)
        model = open_clip.create_model(case["model"]).eval().to(device)
        wrapped = MaskInversion(model, layer_index=-case["layers"], lr=lr, iterations=iterations)
        return lambda: wrapped.compute_maskinversion(pixels, masks)
    if case["method"] in ("exact", "fast", *STARTS):
        import maskinversion as mi

        clip = mi.load_clip(f"{case['model']}/random", device=device)
        settings = dict(iterations=iterations, lr=lr, layers=case["layers"], image_size=case["size"])
        exact, fast = (mi.MaskInverter(clip, **settings, precision=precision) for precision in ("exact", "fast"))
        inverter = {"exact": exact, "fast": fast}.get(case["method"]) or mi.MaskInverter(clip, **settings, start=case["method"])

        def job() -> LocalizedTokens:
            return inverter.invert(inverter.encode(image), masks)

        def extras() -> dict:
            encoded = inverter.encode(image)
            if inverter is exact:
                return {"predicted": predicted(exact, encoded, len(masks))}
            if inverter is not fast:
                return {}
            ours, theirs = (each.invert(encoded, masks).embeddings for each in (exact, fast))
            return {"cosines": F.cosine_similarity(ours, theirs).tolist()}

        job.extras = extras
        return job
    from maskinversion.bench.baselines import BASELINES

    masks = masks.to(device)
    return lambda: BASELINES[case["method"]](visual, pixels, masks, iterations, lr)


def predicted(inverter: MaskInverter, encoded: EncodedImage, masks: int) -> float:
    """Encoder passes that the whole job takes if every multiply-add takes as long as one in the encoder."""
    from maskinversion.explain.plan import cheapest_form

    tokens, width = encoded.entering.shape
    floor = inverter.clip.tower.depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
    iterations = inverter.settings.iterations
    used = [cheapest_form(layer, masks, iterations) for layer in encoded.maps]
    return 1 + sum(layer.setup_macs + iterations * masks * layer.step_macs for layer in used) / floor


def finish(device: str) -> None:
    """Wait until a device has done what it was given."""
    if device != "cpu":
        getattr(torch, torch.device(device).type).synchronize()


def high_water(device: str = "cpu") -> int | None:
    """The largest memory so far in bytes, of the process or on its GPU, and start anew; None where the system does not say."""
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    try:
        with open("/proc/self/status") as status:
            peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
    except OSError:
        return None
    return peak


def give_back() -> None:
    """Return memory to the system that is free, and in which a job would not be seen to take any."""
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    with open(sys.argv[1]) as file:
        case = {"device": "cpu", **json.load(file)}
    device = case["device"]
    torch.set_num_threads(case["threads"])
    floor, job = prepare(case)
    floor()
    if device != "cpu":
        job()  # which libraries and kernels are loaded with
    give_back()
    high_water(device)
    before = high_water(device)
    # A machine's speed changes from minute to minute: floor and job take turns.
    seconds = {floor: [], job: []}
    while len(seconds[job]) < case["repeats"] or (sum(seconds[job]) < QUICK and len(seconds[job]) < 10):
        for what in (floor, floor, floor, job):
            finish(device)
            start = time.perf_counter()
            what()
            finish(device)
            seconds[what].append(time.perf_counter() - start)
    after = high_water(device)
    grown = None if before is None or after is None else after - before
    found = {"seconds": min(seconds[job]), "floor": min(seconds[floor]), "bytes": grown}
    print(json.dumps(found | getattr(job, "extras", dict)()))


if __name__ == "__main__":
    main()
