"""A disk that is really full, and one that is really read-only: what the person reads, and that nothing is lost."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.helpers.datasets import BOXES, pictures_and_masks

pytest.importorskip("pyarrow")
COUNT, PART = 12, 2
IN_A_PLACE_OF_ITS_OWN = ["unshare", "--user", "--map-root-user", "--mount"]

# In a process that may mount: a disk of 1 MB in memory with little room left, then with all of it, then read-only.
SCRIPT = """
import io, json, subprocess, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from maskinversion.cli.main import main
from maskinversion.collection.table import RegionTable

disk, elsewhere, *given = sys.argv[1:]
told = []

def embed(out):
    said = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(said):
        code = main(["embed", *given, "--out", out])
    table = RegionTable.open(out)
    rows = [[*map(str, row.values())] for row in table.read().to_pylist()]
    left_over = [*map(str, (table.folder / "unfinished").glob("*"))]
    told.append({"code": code, "said": said.getvalue(), "rows": rows, "left over": left_over})

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
embed(elsewhere)
size = sum(path.stat().st_size for path in RegionTable.open(elsewhere).parts()) + 2**14
with open(f"{disk}/others", "wb") as file:
    file.write(bytes(2**20 - size * 2 // 3))
embed(f"{disk}/table")
Path(disk, "others").unlink()
embed(f"{disk}/table")
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
embed(f"{disk}/table")
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="no system to mount disks in by oneself")
def test_a_disk_that_is_full_and_one_that_is_read_only_lose_nothing(tmp_path):
    if subprocess.run([*IN_A_PLACE_OF_ITS_OWN, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let its users mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    given = [*pictures_and_masks(tmp_path, COUNT), "--part", str(PART)]
    given += ["--preset", "published", "--iterations", "2", "--threads", "1"]
    command = [*IN_A_PLACE_OF_ITS_OWN, sys.executable, "-c", SCRIPT, str(disk), str(tmp_path / "elsewhere"), *given]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, full, again, readonly = json.loads(done.stdout.splitlines()[-1])
    assert whole["code"] == again["code"] == 0 and len(whole["rows"]) == len(BOXES) * COUNT
    assert full["code"] == readonly["code"] == 1
    assert "could not be written (No space left on device): what was finished before is kept. Make room" in full["said"]
    assert 0 < len(full["rows"]) < len(whole["rows"]) and full["rows"] == whole["rows"][: len(full["rows"])]
    assert again["rows"] == readonly["rows"] == whole["rows"] and not full["left over"]
    assert "cannot be written to (Read-only file system): give another folder" in readonly["said"]
