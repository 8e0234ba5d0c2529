"""Many prompts in a real ComfyUI: mixed graphs, some that fail, some that are interrupted, hostile names among the inputs.

    python -m tests.helpers.many_prompts --count 500

Every good graph runs alone first, in a server that has forgotten everything else; what it gives in the mix must be the same to the
bit. Prints what was run, the server's memory as it went, and whether its queue was alive at the end; the status is 1 where results
differed, a graph failed that should not, or did not fail that should, or memory grew by more than 3% after the warm-up.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from safetensors.torch import save_file
from torch import zeros

from tests.helpers import comfy_test_nodes
from tests.helpers.graphs import inversion
from tools.comfyui_server import Run, Server

WARM_UP, GROWTH = 50, 0.03
FILE_NAMES = (
    b"caf\xe9.safetensors", "\u8336 \u00e9.safetensors".encode(), b"a\nb.safetensors", b"-rf *.safetensors",
    b"x" * 240 + b".safetensors", b"$(reboot) `id` [output].safetensors", b"\x1b[2J.safetensors",
)  # fmt: skip
PREFIXES = (
    "\udce9", "../outside", "/etc/region", "a" * 300, "con:aux*?", "a\x00b", "tokens/first_00001_.safetensors/x", "..", "\u202egnp",
)  # fmt: skip


def good(defaults: dict) -> dict[str, dict]:
    """Graphs that end in the node `report`, which shows the same text every time."""
    names = {"tokens": ["inversion", 0], "clip": ["clip", 0], "phrases": "red\na blue thing", "template": "a photo of a {}"}
    writing = {"tokens": ["inversion", 0], "captioner": ["more", 0], "decoding": "greedy", "length": 8}
    sampling = dict(width=0, height=0, steps=2, guidance=3.0, count=1, seed=1, prompt="", negative_prompt="", adapter_scale=1.0)
    shown = {"class_type": "PreviewAny", "inputs": {"source": ["last", 0]}}
    made = {
        "inversion": inversion(defaults, masks=2),
        "many masks": inversion(defaults, masks=7, iterations=3, alpha=5.0),
        "batch": inversion(defaults, 3, 3, layers=2),
        "large": inversion(defaults, masks=2, mask_size=(600, 900), image_size=192, fit="pad"),
        "with an empty mask": inversion(defaults, masks=3, kind="last empty", empty_masks="leave out"),
    }
    for name, kind, inputs in (
        ("names", "MaskInversionClassify", names | {"word_list": "as written", "templates": "as written"}),
        ("captions", "MaskInversionCaption", writing),
        ("pictures", "MaskInversionGenerate", sampling | {"pipeline": ["more", 0], "tokens": ["inversion", 0]}),
    ):
        graph = inversion(defaults, masks=2, iterations=4)
        graph |= {"last": {"class_type": kind, "inputs": inputs}, "report": shown}
        made[name] = graph
    made["captions"]["more"] = {"class_type": "MaskInversionLoadCaptioner", "inputs": {"source": "bundled"}}
    loader = {"source": "bundled", "source.use": "new pictures", "ip_adapter": "(none)", "dtype": "float32", "offload": False}
    made["pictures"]["more"] = {"class_type": "MaskInversionLoadPipeline", "inputs": loader}
    made["pictures"]["report"] = {"class_type": "TestPictures", "inputs": {"images": ["last", 0]}}
    return made


def bad(defaults: dict, names: list[str]) -> dict[str, dict]:
    """Graphs that end with an error."""
    made = {
        "numbers that do not go together": inversion(defaults, 2, 3),
        "not a number": inversion(defaults, masks=2, kind="last nan"),
        "an empty mask": inversion(defaults, masks=2, kind="last empty"),
        "a size that is none": inversion(defaults, image_size=50),
        "too many layers": inversion(defaults, layers=48),
    }
    for name in names:
        load = {"class_type": "MaskInversionLoadTokens", "inputs": {"file": name}}
        made[f"file {name!r}"] = {"load": load, "report": {"class_type": "PreviewAny", "inputs": {"source": ["load", 2]}}}
    return made


def named(defaults: dict) -> dict[str, dict]:
    """Graphs that save under hostile names, which is refused or mended; the server goes on."""
    made = {}
    for prefix in PREFIXES:
        graph = inversion(defaults, masks=1, iterations=1)
        graph["save"] = {"class_type": "MaskInversionSaveTokens", "inputs": {"tokens": ["inversion", 0], "filename_prefix": prefix}}
        made[f"prefix {prefix[:20]!r}"] = graph
    return made


def memory(server: Server) -> int:
    """Of the server, in bytes."""
    told = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in told if line.startswith("VmRSS"))


def what(run: Run) -> str:
    return run.text("report")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "base", Path(comfy_test_nodes.__file__)) as server:
        return mixed(server, args.count, random.Random(args.seed))


def mixed(server: Server, count: int, dice: random.Random) -> int:
    inputs = server.get("/object_info/MaskInversion")["MaskInversion"]["input"]["required"]
    defaults = {name: options["default"] for name, (_, options) in inputs.items() if "default" in options}
    base = os.fsencode(server.base / "input")
    for name in FILE_NAMES:
        with suppress(OSError):  # where a system refuses the name, nobody can have such a file
            save_file({"a": zeros(1)}, Path(os.fsdecode(os.path.join(base, b"made.safetensors"))))
            os.rename(os.path.join(base, b"made.safetensors"), os.path.join(base, name))
    server.get("/object_info/MaskInversionLoadTokens")  # which lists them

    fine, wrong, hostile = good(defaults), bad(defaults, [os.fsdecode(name) for name in FILE_NAMES]), named(defaults)
    alone = {}
    for name, graph in fine.items():
        run = server.submit_anew(graph)
        assert not run.error, (name, run.error)
        alone[name] = what(run)
    done, problems, begun, sizes = Counter(), [], time.monotonic(), []
    for number in range(count):
        kind = dice.choices(("good", "wrong", "hostile", "interrupted"), (70, 14, 8, 8))[0]
        if kind == "interrupted":
            prompt = server.queue(inversion(defaults, masks=2, iterations=10000, lr=0.1 + number / 1e4))
            time.sleep(dice.uniform(0.1, 0.6))
            server.post("/interrupt", {})
            if not server.wait(prompt).interrupted:
                problems.append(f"prompt {number} was not interrupted")
        else:
            name, graph = dice.choice(sorted({"good": fine, "wrong": wrong, "hostile": hostile}[kind].items()))
            if dice.random() < 0.3:
                server.forget()
            try:
                run = server.submit(graph)
            except ValueError:  # refused before it began
                run = None
            if kind == "good" and (run is None or run.error or what(run) != alone[name]):
                problems.append(f"prompt {number}, {name}: {'refused' if run is None else run.error or 'other bits'}")
            if kind == "wrong" and run is not None and not run.error:
                problems.append(f"prompt {number}, {name}: no error")
        done[kind] += 1
        if number >= min(WARM_UP, count // 2):
            sizes.append(memory(server))
        if number % 50 == 49:
            taken = f"{memory(server) / 1e6:.0f} MB, {time.monotonic() - begun:.0f} s"
            print(f"{number + 1} prompts, {dict(done)}, {taken}", flush=True)
    growth = sizes[-1] / sizes[0] - 1
    if growth > GROWTH:
        problems.append(f"memory grew by {growth:.1%}")
    run = server.submit_anew(fine["inversion"])
    if run.error or what(run) != alone["inversion"]:
        problems.append("the queue does not answer as before at the end")
    print(json.dumps({"prompts": count, **done, "growth": round(growth, 4), "memory": sizes[-1], "problems": problems}, indent=1))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
