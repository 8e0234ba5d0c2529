"""Names of models, against open_clip itself."""

import json
import subprocess
import sys
from pathlib import Path

import open_clip

from maskinversion.models.catalogue import pretrained_names, readable_architectures

NAMES = """
import json, sys
from maskinversion.models import catalogue
names = catalogue.pretrained_names()
print(json.dumps([names, [name for name in sys.modules if name.partition(".")[0] == "open_clip"]]))
"""


def test_the_names_are_open_clips_own():
    readable = set(readable_architectures())
    expected = [f"{name}/{tag}" for name, tag in open_clip.list_pretrained() if name in readable]
    assert list(pretrained_names()) == expected and len(expected) > 100


def test_they_are_found_without_importing_it():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, timeout=300, cwd=root)
    assert not done.returncode, done.stderr
    names, imported = json.loads(done.stdout)
    assert names == list(pretrained_names()) and not imported
