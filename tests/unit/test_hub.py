"""Downloads, from a hub on this machine: their progress, where they stop and go on, and what is said without one."""

import os
import shutil
from pathlib import Path

import pytest

from maskinversion.errors import ModelError
from maskinversion.models import hub, loading
from tests.helpers.small_hub import Hub, serving

BIG = "unet/diffusion_pytorch_model.safetensors"


class Interrupted(Exception):
    pass


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A hub with one model, and an empty cache."""
    folder = tmp_path / "there"
    files = {BIG: os.urandom(6 * 2**20), "model_index.json": b"{}", "unet/config.json": b"{}", "other.bin": b"x"}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with serving(Hub({"someone/model": folder})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def wanted(names):
    return [name for name in names if not name.endswith(".bin")]


def test_chosen_files_come_with_progress_and_only_once(there):
    seen = []
    folder = hub.fetch("someone/model", wanted, lambda done, total: seen.append((done, total)))
    source = there.folders["someone/model"]
    assert (folder / BIG).read_bytes() == (source / BIG).read_bytes()
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == sorted(
        [BIG, "model_index.json", "unet/config.json"]
    )
    total = sum((source / name).stat().st_size for name in (BIG, "model_index.json", "unet/config.json"))
    assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    before = list(there.asked)
    assert hub.fetch("someone/model", wanted) == folder and there.asked == before


def test_a_download_that_was_stopped_goes_on_where_it_was(there):
    there.pause = 0.05

    def stop(done, total):
        if done > 2**20:
            raise Interrupted

    with pytest.raises(Interrupted):
        hub.fetch("someone/model", lambda names: [BIG], stop)
    there.pause = 0
    first = list(there.asked)
    folder = hub.fetch("someone/model", lambda names: [BIG], lambda done, total: None)
    assert (folder / BIG).read_bytes() == (there.folders["someone/model"] / BIG).read_bytes()
    assert first == [(BIG, 0)] and len(there.asked) == 2 and there.asked[1][1] > 2**20
    assert not list(folder.parents[1].glob("blobs/*.partial"))


def test_what_came_damaged_is_not_kept(there):
    there.pause = 0.05
    with pytest.raises(Interrupted):
        hub.fetch("someone/model", lambda names: [BIG], raise_after(2**20))
    (partial,) = (path for path in Path(os.environ["HF_HOME"]).rglob("*.partial"))
    partial.write_bytes(b"\0" * partial.stat().st_size)
    there.pause = 0
    with pytest.raises(ModelError, match=f"what came of {BIG} is damaged; it was deleted"):
        hub.fetch("someone/model", lambda names: [BIG])
    folder = hub.fetch("someone/model", lambda names: [BIG])
    assert (folder / BIG).read_bytes() == (there.folders["someone/model"] / BIG).read_bytes()


def raise_after(some):
    def stop(done, total):
        if done > some:
            raise Interrupted

    return stop


@pytest.mark.parametrize("offline", ["switched off", "nobody answers"])
def test_without_a_connection_one_sentence_says_so(offline, there, monkeypatch):
    if offline == "switched off":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError) as raised:
        hub.fetch("someone/model", wanted)
    host = os.environ["HF_ENDPOINT"]
    assert str(raised.value) == (
        f"someone/model could not be downloaded: {host} cannot be reached: connect, or take 'bundled' or a file that is here"
    )


def test_the_number_of_a_port_is_no_answer_of_the_hub():
    assert "cannot be reached" in hub.explained("a/b", "OfflineModeIsEnabled: Cannot reach http://127.0.0.1:44019/api/models/a/b")
    assert "there is no such model" in hub.explained("a/b", "HTTPStatusError: Client error '404 Not Found' for url")


def test_names_that_are_not_there(there):
    with pytest.raises(ModelError, match="there is no such model on"):
        hub.fetch("someone/else", wanted)
    with pytest.raises(ModelError, match="form OWNER/NAME"):
        hub.fetch("--help", wanted)


def test_a_clip_by_its_name_asks_for_safetensors_first_and_stops_when_told(there, tmp_path, monkeypatch):
    """The interrupt of who looks at the progress comes through as it is."""
    import open_clip

    source = there.folders["someone/model"]
    for name in ("open_clip_pytorch_model.bin", "open_clip_model.safetensors"):
        shutil.copy(source / BIG, source / name)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda architecture, tag: {"hf_hub": "someone/model/"})
    monkeypatch.setattr(loading, "cached", lambda repository, names: None)
    there.pause = 0.02
    with pytest.raises(Interrupted):
        loading.load_clip("ViT-B-32/openai", device="cpu", progress=raise_after(2**20))
    assert there.asked == [("open_clip_model.safetensors", 0)]
