"""Everything from one command, on a machine with Python and git only.

    python start.py demo          # the example workflow in a real ComfyUI started for it, on the bundled model
    python start.py test          # the tests

Both set up a virtual environment in .venv first (about 6 GB, a few minutes; quick after that). `--comfyui DIR`, or the
environment variable MASKINVERSION_COMFYUI_DIR, uses a ComfyUI that is already here.
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
from pathlib import Path

from tools import comfyui_server

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TORCH = ("torch==2.14.1", "torchvision==0.29.1")
TORCHAUDIO = "torchaudio==2.11.0"  # ComfyUI imports it, nothing here uses it; the last one, which newer torch does not load


def run(*command: str | Path, **options) -> None:
    """Run quietly; on failure show what was printed, and stop."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nThis step failed: {' '.join(str(part) for part in command[:6])} ...")


def pip(*arguments: str | Path) -> None:
    run(PYTHON if PYTHON.exists() else sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments)


def prepare() -> None:
    """The virtual environment with all that demo and tests need; does nothing when it is up to date."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        sys.exit(f"This is Python {sys.version.split()[0]}; use 3.10 to 3.13.")
    names = ("requirements.txt", "pyproject.toml", "start.py", "tools/comfyui_server.py")
    wanted = b"".join((ROOT / name).read_bytes() for name in names)
    stamp, digest = VENV / "ready", hashlib.sha256(wanted).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    if not PYTHON.exists():
        if shutil.disk_usage(ROOT).free < 9 * 2**30:
            sys.exit("There are less than 9 GB free on this disk; the set-up needs about 6 GB and room to unpack.")
        print("Making a virtual environment in .venv ...", flush=True)
        venv.create(VENV, with_pip=True)
        pip("install", "-q", "--upgrade", "pip")
    print("Installing PyTorch and the library (a few minutes the first time) ...", flush=True)
    pip("install", "-q", *TORCH)
    pip("install", "-q", "-e", f"{ROOT}[test]")
    requirements = (comfyui_server.find_comfyui(PYTHON) / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ours = {"", "torch", "torchvision", "torchaudio"}
    chosen = [line for line in requirements if re.split("[^A-Za-z0-9_-]", line.strip())[0] not in ours]
    print("Installing what ComfyUI needs ...", flush=True)
    pip("install", "-q", *chosen)
    pip("install", "-q", "--no-deps", TORCHAUDIO)
    stamp.write_text(digest)


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("demo", "test"))
    parser.add_argument("--comfyui", help="folder of a ComfyUI that is already here")
    parser.add_argument("--exit", action="store_true", help="demo: stop after the pictures")
    args, rest = parser.parse_known_args()
    if args.comfyui:
        os.environ["MASKINVERSION_COMFYUI_DIR"] = args.comfyui
    if Path(sys.prefix).resolve() == VENV.resolve():
        return demo(stay=not args.exit)
    prepare()
    if args.what == "demo":
        return subprocess.call([PYTHON, ROOT / "start.py", "demo", *(["--exit"] if args.exit else [])])
    lint = subprocess.call([PYTHON, "-m", "ruff", "check", ROOT])
    return subprocess.call([PYTHON, "-m", "pytest", *rest], cwd=ROOT) or lint


if __name__ == "__main__":
    sys.exit(main())
