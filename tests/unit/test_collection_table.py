"""The table of regions: what is written is what any reader of Parquet gets, whole parts only, and never of two models."""

import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

import maskinversion as mi
from maskinversion.collection.table import Made, RegionRow, RegionTable, Reject, region_id
from maskinversion.settings import InversionSettings

pa = pytest.importorskip("pyarrow")

SETTINGS = vars(InversionSettings()) | {"image_size": [64, 64], "loss": "dice"}
MADE = Made("a model", "0123456789abcdef", 6, SETTINGS)
SOURCE = {"kind": "folder", "pictures": "/somewhere"}


def row(picture: str, annotation: str, label: str | None = None, seed: int = 0) -> RegionRow:
    token = np.random.default_rng(seed).normal(size=6).astype(np.float32)
    return RegionRow(picture, annotation, label, (1, 2, 30, 40.5), 60, 50, 0.25, 0.5, 0.125, token, b"a mask")


ROWS = [row("a/1.jpg", "1", "cat", 1), row("a/1.jpg", "2", None, 2), row("b 2.jpg", "straw\u00dfe", "dog", 3)]


@pytest.fixture
def table(tmp_path):
    made = RegionTable.create(tmp_path / "table", MADE, SOURCE)
    made.write("000000-aa", ["a/1.jpg"], ROWS[:2])
    made.write("000001-bb", ["b 2.jpg", "broken.jpg"], ROWS[2:], [Reject("broken.jpg", None, "it is empty")])
    return made


def test_what_is_written_is_read(table):
    found = RegionTable.open(table.folder)
    assert (found.made, found.source, len(found)) == (MADE, SOURCE, 3)
    rows = found.read()
    assert rows["id"].to_pylist() == [one.id for one in ROWS] and len(set(rows["id"].to_pylist())) == 3
    for name in ("picture", "annotation", "label", "width", "height", "area", "iou", "loss", "mask"):
        assert rows[name].to_pylist() == [getattr(one, name) for one in ROWS]
    assert rows["box"].to_pylist() == [[1, 2, 30, 40.5]] * 3
    assert rows.schema.field("token").type == pa.list_(pa.float32(), 6)
    assert (found.read_tokens() == np.stack([one.token for one in ROWS])).all()
    assert found.read(["label"], filter=pa.compute.field("label") == "dog").to_pylist() == [{"label": "dog"}]
    assert found.read_rejects().to_pylist() == [{"picture": "broken.jpg", "annotation": None, "reason": "it is empty"}]
    assert found.finished() == {"000000-aa", "000001-bb"} and found.pictures() == {"a/1.jpg", "b 2.jpg", "broken.jpg"}


def test_every_part_says_what_it_was_made_with(table):
    for part in table.parts():
        told = json.loads(pa.parquet.read_schema(part).metadata[b"maskinversion"])
        assert told["fingerprint"] == MADE.fingerprint and told["settings"] == MADE.settings and told["version"] == mi.__version__


def test_an_empty_table_has_its_columns(tmp_path):
    table = RegionTable.create(tmp_path, MADE, SOURCE)
    assert len(table) == 0 and table.read().schema.names[0] == "id" and table.read_tokens().shape == (0, 6)
    assert table.read_rejects().num_rows == 0


def test_half_precision(tmp_path):
    table = RegionTable.create(tmp_path, replace(MADE, numbers="float16"), SOURCE)
    table.write("a", ["a/1.jpg"], ROWS)
    assert table.read().schema.field("token").type == pa.list_(pa.float16(), 6)
    assert (table.read_tokens() == np.stack([one.token for one in ROWS]).astype(np.float16)).all()
    with pytest.raises(mi.InputError, match="float16 cannot hold: use float32"):
        table.write("b", ["x"], [replace(ROWS[0], token=np.full(6, 1e6, np.float32))])


@pytest.mark.parametrize("reader", ["duckdb", "polars", "lance", "pandas"])
@pytest.mark.parametrize("numbers", ["float32", "float16"])
def test_other_readers(reader, numbers, table, tmp_path):
    if not importlib.util.find_spec(reader):
        pytest.skip(f"{reader} is not installed")
    other = RegionTable.create(tmp_path / numbers, replace(MADE, numbers=numbers), SOURCE)
    other.write("b", ["b 2.jpg"], ROWS[2:])
    other.write("a", ["a/1.jpg"], ROWS[:2])
    assert not list(other.folder.rglob(".*"))  # which some of them read
    if reader == "duckdb":
        import duckdb

        found = duckdb.sql(f"select id, token, label from read_parquet('{other.regions.as_posix()}/*.parquet') order by picture")
        ids, tokens, labels = zip(*found.fetchall())
    elif reader == "polars":
        import polars

        found = polars.read_parquet([str(path) for path in other.parts()])
        ids, tokens, labels = (found[name].to_list() for name in ("id", "token", "label"))
    elif reader == "lance":
        import lance

        found = lance.write_dataset(other.read(), str(tmp_path / "lance")).to_table()
        ids, tokens, labels = (found[name].to_pylist() for name in ("id", "token", "label"))
    else:
        import pandas

        found = pandas.read_parquet(other.regions)
        ids, tokens, labels = found["id"], found["token"], [label or None for label in found["label"]]
    assert list(ids) == [one.id for one in ROWS] and list(labels)[::2] == ["cat", "dog"]
    np.testing.assert_allclose(np.array([list(one) for one in tokens], np.float32), [one.token for one in ROWS], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fingerprint": "ffff", "model": "another"}, r"the model a model \(0123456789abcdef\), not another \(ffff\)"),
        ({"numbers": "float16"}, "numbers of float32, not float16"),
        ({"settings": SETTINGS | {"alpha": 5.0, "iterations": 20}}, "alpha 0.0, not 5.0; iterations 10, not 20: tokens of both"),
        ({"settings": SETTINGS | {"image_size": [32, 32]}}, r"image_size \[64, 64\], not \[32, 32\]"),
    ],
)
def test_tokens_of_other_settings_never_mix(change, said, table):
    with pytest.raises(mi.InputError, match=said):
        RegionTable.create(table.folder, replace(MADE, **change), SOURCE)
    assert len(RegionTable.create(table.folder, replace(MADE, version="9.9", model="renamed"), SOURCE)) == 3


def test_a_table_without_parts_may_become_another(tmp_path):
    RegionTable.create(tmp_path, MADE, SOURCE)
    other = RegionTable.create(tmp_path, replace(MADE, width=7), {"kind": "shards"})
    assert RegionTable.open(tmp_path) == other and other.made.width == 7


def test_a_table_is_of_one_source(table):
    with pytest.raises(mi.InputError, match=r"of other pictures .*--moved"):
        RegionTable.create(table.folder, MADE, SOURCE | {"pictures": "/elsewhere"})


def test_a_part_that_is_written_again_is_there_once(table):
    table.write("000000-aa", ["a/1.jpg"], ROWS[:2])
    table.write("000001-bb", ["b 2.jpg"], ROWS[2:])
    assert table.read()["id"].to_pylist() == [one.id for one in ROWS] and table.read_rejects().num_rows == 0


def test_rejects_of_an_unfinished_part_do_not_count(table):
    table.parts()[1].unlink()
    assert table.read_rejects().num_rows == 0 and table.pictures() == {"a/1.jpg"}


def test_a_region_has_the_same_id_for_ever():
    assert region_id("a/1.jpg", "7") == "e9890ec27fc506c263a6d734"  # of sha256sum
    assert len({region_id(*pair) for pair in (("a", "1"), ("a1", ""), ("", "a1"), ("a\udce9", "1"))}) == 4


@pytest.mark.parametrize("content", [b"", b"no Parquet", None])
def test_a_damaged_part_is_named(content, table):
    path = table.parts()[0]
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    for reading in (table.pictures, table.read, table.read_tokens, table.__len__, lambda: table.take([0], "mask")):
        with pytest.raises(mi.InputError, match=r"000000-aa\.parquet is damaged.*: delete it"):
            reading()


def test_a_part_that_is_damaged_inside_or_of_another_table_is_named(table, tmp_path):
    content = bytearray(table.parts()[0].read_bytes())
    content[4:-400] = bytes(len(content) - 404)  # the data of all columns, before what says where they are
    wider = RegionTable.create(tmp_path / "wider", replace(MADE, width=7), SOURCE)
    wider.write("000000-aa", ["a.jpg"], [replace(ROWS[0], token=np.ones(7))])
    for wrong in (bytes(content), wider.parts()[0].read_bytes()):
        table.parts()[0].write_bytes(wrong)
        for reading in (table.read, table.read_tokens):
            with pytest.raises(mi.InputError, match=r"000000-aa\.parquet is damaged, or no part of this table.*: delete it"):
                reading()


def test_damaged_rejects_are_named(table):
    path = table.rejects / "000001-bb.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(mi.InputError, match=r"rejects.000001-bb\.parquet is damaged"):
        table.read_rejects()


@pytest.mark.parametrize(
    "change", [{"width": 10**30}, {"width": "6"}, {"width": -1}, {"numbers": []}, {"settings": [1]}, {"model": None}, {"extra": 1}]
)
def test_a_damaged_manifest_is_named(change, table):
    path = table.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["made"].update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(mi.InputError, match=r"manifest\.json is damaged"):
        RegionTable.open(table.folder)


def test_a_table_of_another_format_says_what_to_do(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": "maskinversion-regions-1"}')
    with pytest.raises(mi.InputError, match=r"'maskinversion-regions-1'.*make it again in another folder"):
        RegionTable.create(tmp_path, MADE, SOURCE)


@pytest.mark.parametrize("content", ["{}", '{"format": "x"}', '{"format": "maskinversion-regions-2", "made": {}, "source": {}}'])
def test_what_is_no_table_is_refused(content, tmp_path):
    with pytest.raises(mi.InputError, match="is no table of regions"):
        RegionTable.open(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(mi.InputError, match=r"manifest\.json is"):
        RegionTable.open(tmp_path)
