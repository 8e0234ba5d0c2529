"""Compare with the published package maskinversion-torch 1.1 on random weights.

    python tests/reference/compare.py                            # ViT-B/16, about a minute
    python tests/reference/compare.py ViT-B-32 ViT-B-16 ViT-L-14 # some minutes

It installs the package into .venv/reference the first time.

The package needs open_clip 2.23 and changes the models it wraps, so it runs in a process of its own, with its own open_clip
and this environment's torch. Prints the largest differences; exits with 1 when maps differ by 1e-3 or a token's cosine is
below 0.9999.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("MASKINVERSION_REFERENCE_DIR", ROOT / ".venv" / "reference"))
PACKAGES = (
    *("maskinversion-torch==1.1", "legrad-torch==1.1", "open_clip_torch==2.23.0", "einops", "opencv-python-headless", "matplotlib"),
    *("pyparsing", "cycler", "kiwisolver", "contourpy", "fonttools", "python-dateutil", "six"),  # of matplotlib
)
SIZE, STEPS, RATE = 224, 10, 0.1
CASES = ((0.0, 1), (5.0, 1), (0.0, 3))  # alpha, layers


def reference(name: str, path: Path) -> None:
    """In the process of its own: the published package on the inputs in `path`."""
    import open_clip

    from maskinversion import MaskInversion

    data = load_file(path / "inputs.safetensors")
    found = {}
    for index, (alpha, layers) in enumerate(CASES):
        model = open_clip.create_model(name)
        model.load_state_dict(load_file(path / "weights.safetensors"))
        wrapped = MaskInversion(model.eval(), layer_index=-layers, alpha=alpha, lr=RATE, iterations=STEPS)
        tokens, maps = wrapped.compute_maskinversion(data["pixels"], data["masks"], return_expl_map=True)
        found |= {f"tokens{index}": tokens.detach().contiguous(), f"maps{index}": maps[0].detach().contiguous()}
    save_file(found, path / "outputs.safetensors")


def compare(name: str) -> bool:
    """Print the differences of one model; whether they are small enough."""
    sys.path.insert(0, str(ROOT))
    import maskinversion as mi

    if not (FOLDER / "legrad").is_dir():
        subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(FOLDER), *PACKAGES])
    torch.manual_seed(0)
    clip = mi.load_clip(f"{name}/random", device="cpu")
    image, masks = torch.rand(SIZE, SIZE, 3), torch.zeros(3, SIZE, SIZE)
    masks[0, 20:100, 30:150] = 1
    masks[1, 80:, 80:] = 1
    masks[2] = F.interpolate(torch.rand(1, 1, 5, 5), size=SIZE, mode="bilinear")[0, 0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    good = True
    with tempfile.TemporaryDirectory() as temp:
        path = Path(temp)
        save_file({k: v.contiguous() for k, v in clip.model.state_dict().items()}, path / "weights.safetensors")
        pixels = ((image.permute(2, 0, 1) - mean) / std)[None].contiguous()
        save_file({"pixels": pixels, "masks": masks}, path / "inputs.safetensors")
        environment = os.environ | {"PYTHONPATH": str(FOLDER), "MPLBACKEND": "Agg"}
        subprocess.check_call([sys.executable, __file__, name, str(path)], env=environment, stdout=subprocess.DEVNULL)
        expected = load_file(path / "outputs.safetensors")
    for index, (alpha, layers) in enumerate(CASES):
        inverter = mi.MaskInverter(clip, iterations=STEPS, lr=RATE, alpha=alpha, layers=layers)
        tokens = inverter.invert(inverter.encode(image), masks)
        cosine = F.cosine_similarity(tokens.embeddings, expected[f"tokens{index}"]).min().item()
        difference = (tokens.maps - expected[f"maps{index}"]).abs().max().item()
        case = f"{name}, alpha {alpha}, layers {layers}"
        print(f"{case}: smallest token cosine {cosine:.7f}, largest map difference {difference:.1e}")
        good = good and cosine > 0.9999 and difference < 1e-3
    return good


if __name__ == "__main__":
    if len(sys.argv) == 3 and Path(sys.argv[2]).is_dir():
        reference(sys.argv[1], Path(sys.argv[2]))
    else:
        sys.exit(0 if all([compare(name) for name in sys.argv[1:] or ["ViT-B-16"]]) else 1)
