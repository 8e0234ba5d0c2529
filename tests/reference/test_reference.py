"""Agreement with the published package, in its own environment."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_agrees_with_the_published_package():
    script = Path(__file__).with_name("compare.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("smallest token cosine") == 3
