"""Releases of the last two years, what they ask for, and sets of them that were installed together: as empty packages with real
names, versions and requirements, so that the real pip resolves offline, in a second, what would otherwise be gigabytes.

`python tests/helpers/releases.py` asks pip for everything again and writes releases.json (some minutes; only metadata is
downloaded). The parts of CUDA that torch asks for on Linux are left out: nothing else asks for them.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
SINCE = {
    "accelerate": "1.1.0",
    "diffusers": "0.31.0",
    "huggingface-hub": "0.26.0",
    "numpy": "1.26.4",
    "open-clip-torch": "2.24.0",
    "safetensors": "0.4.5",
    "timm": "1.0.11",
    "tokenizers": "0.20.1",
    "torch": "2.4.0",
    "torchvision": "0.19.0",
    "transformers": "4.46.0",
}
# What people had by then, from the dates of the releases. Torch comes from PyTorch's own index, with CUDA in its version.
SETS = {
    "late 2024": "torch==2.5.1+cu124 torchvision==0.20.1+cu124 numpy==1.26.4 transformers==4.46.3 tokenizers==0.20.3 "
    "huggingface-hub==0.26.2 safetensors==0.4.5 diffusers==0.31.0 accelerate==1.1.1 timm==1.0.11 open-clip-torch==2.29.0",
    "early 2025": "torch==2.6.0+cu124 torchvision==0.21.0+cu124 numpy==2.2.2 transformers==4.48.3 tokenizers==0.21.0 "
    "huggingface-hub==0.28.1 safetensors==0.5.2 diffusers==0.32.2 accelerate==1.3.0 timm==1.0.14 open-clip-torch==2.30.0",
    "mid 2025": "torch==2.7.1+cu128 torchvision==0.22.1+cu128 numpy==2.3.1 transformers==4.53.0 tokenizers==0.21.2 "
    "huggingface-hub==0.33.1 safetensors==0.5.3 diffusers==0.34.0 accelerate==1.8.1 timm==1.0.16 open-clip-torch==2.32.0",
    "late 2025": "torch==2.9.1+cu130 torchvision==0.24.1+cu130 numpy==2.3.4 transformers==4.57.1 tokenizers==0.22.1 "
    "huggingface-hub==0.36.0 safetensors==0.6.2 diffusers==0.35.2 accelerate==1.11.0 timm==1.0.22 open-clip-torch==3.2.0",
    "early 2026": "torch==2.10.0+cu130 torchvision==0.25.0+cu130 numpy==2.4.2 transformers==5.1.0 tokenizers==0.22.2 "
    "huggingface-hub==1.4.1 safetensors==0.7.0 diffusers==0.36.0 accelerate==1.12.0 timm==1.0.24 open-clip-torch==3.2.0",
    "late 2026": "torch==2.14.1+cu130 torchvision==0.29.1+cu130 numpy==2.4.6 transformers==5.24.0 tokenizers==0.23.3 "
    "huggingface-hub==2.4.0 safetensors==0.8.0 diffusers==0.42.1 accelerate==1.15.0 timm==1.0.31 open-clip-torch==3.3.0",
}
# What these bring along, as it was in the sets before 2026; of all others only the newest release is known.
BROUGHT = (
    "filelock==3.16.1 fsspec==2024.10.0 mpmath==1.3.0 packaging==24.2 pillow==11.0.0 psutil==6.1.0 pyyaml==6.0.2 "
    "regex==2024.11.6 requests==2.32.3 tqdm==4.67.0 typing-extensions==4.12.2"
)
SYMPY = "sympy==1.13.1"  # torch 2.5 and 2.6 ask for this very one
CUDA = ("nvidia", "triton", "cuda")


def name_of(requirement: str) -> str:
    """As pip compares names."""
    end = next((at for at, letter in enumerate(requirement) if not (letter.isalnum() or letter in "-_.")), len(requirement))
    return requirement[:end].replace("_", "-").replace(".", "-").lower()


def known() -> dict:
    """releases: name -> version -> requirements. sets: name -> version of all that is installed."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def make_wheels(folder: Path, releases: dict[str, dict[str, list[str]]]) -> None:
    """An index for `pip --no-index --find-links`."""
    for name, versions in releases.items():
        for version, requirements in versions.items():
            stem = f"{name.replace('-', '_')}-{version}"
            with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{stem}.dist-info/METADATA", metadata(name, version, requirements))
                wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                wheel.writestr(f"{stem}.dist-info/RECORD", "")


def install(site: Path, packages: dict[str, str], releases: dict[str, dict[str, list[str]]]) -> None:
    """Make pip see these as installed in a folder of site-packages; a version may have a local part, such as +cu124."""
    for name, version in packages.items():
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        folder.joinpath("METADATA").write_text(metadata(name, version, releases[name][version.partition("+")[0]]))
        folder.joinpath("INSTALLER").write_text("pip\n")
        folder.joinpath("RECORD").write_text("")


def metadata(name: str, version: str, requirements: list[str]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {requirement}" for requirement in requirements), ""])


def pip(*arguments: object, python: Path | str = sys.executable, path: Path | None = None, online: bool = False) -> str:
    """What pip prints. python: of the environment that it works on. path: a folder with pip, for one that has none. online: with
    this machine's certificates and proxies. Raises CalledProcessError when it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if online or not key.startswith("PIP_")}
    env |= {"PIP_CONFIG_FILE": os.devnull} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def would_install(*arguments: object, **options) -> dict[str, dict]:
    """The metadata of what `pip install` would install, by name."""
    with tempfile.TemporaryDirectory() as temp:
        report = Path(temp, "report.json")
        pip("install", "--dry-run", "-q", "--report", report, *arguments, **options)
        found = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {name_of(one["name"]): one for one in found}


def asked_by(pins: list[str]) -> dict[str, dict[str, list[str]]]:
    """The releases of different packages with their requirements, extras left out, from the index."""
    found = would_install("--no-deps", "--ignore-installed", "--only-binary", ":all:", *pins, online=True)
    return {
        name: {
            one["version"].partition("+")[0]: [
                requirement
                for requirement in one.get("requires_dist", [])
                if "extra ==" not in requirement and not name_of(requirement).startswith(CUDA)
            ]
        }
        for name, one in found.items()
    }


def gather() -> None:
    from packaging.version import Version

    releases: dict[str, dict[str, list[str]]] = {}

    def add(pins: list[str]) -> None:
        for name, versions in asked_by(pins).items():
            releases.setdefault(name, {}).update(versions)

    def pins_of(name: str) -> list[str]:
        listed = json.loads(pip("index", "versions", name, "--json", online=True))["versions"]
        return [f"{name}=={one}" for one in listed if Version(one) >= Version(SINCE[name]) and "+" not in one]

    with ThreadPoolExecutor(4) as pool:
        rounds = [[pin for pin in row if pin] for row in zip_longest(*pool.map(pins_of, SINCE))]
        list(pool.map(add, rounds))
    brought = [*BROUGHT.split(), SYMPY]
    add(brought)
    add([name_of(pin) for pin in brought])
    while missing := {name_of(one) for of in releases.values() for asked in of.values() for one in asked} - releases.keys():
        add(sorted(missing))
    releases = {name: dict(sorted(releases[name].items(), key=lambda item: Version(item[0]))) for name in sorted(releases)}
    sets = {name: whole(name, releases) for name in SETS}
    FILE.write_text(json.dumps({"releases": releases, "sets": sets}, indent=1) + "\n", encoding="utf-8")


def whole(name: str, releases: dict[str, dict[str, list[str]]]) -> dict[str, str]:
    """A set with all that it asks for in turn. Raises CalledProcessError when its releases do not go together."""
    old = [] if name.endswith("2026") else BROUGHT.split()
    pins = SETS[name].split()
    with tempfile.TemporaryDirectory() as index:
        make_wheels(Path(index), releases)
        wanted = [pin.partition("+")[0] for pin in pins]
        found = would_install("--ignore-installed", "--no-index", "--find-links", index, *wanted, *old)
    exact = dict(pin.split("==") for pin in pins)
    return {one: exact.get(one, found[one]["version"]) for one in sorted(found)}


if __name__ == "__main__":
    gather()
