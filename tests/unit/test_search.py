"""Searching a table of regions: what is found is what comparing everything in float64 finds, and what cannot be is said."""

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import maskinversion as mi
from maskinversion.bundled import SCENES
from maskinversion.cli.main import main
from maskinversion.operations import pull
from tests.helpers import tables
from tests.helpers.tables import NAMES, small_table, units

pytest.importorskip("pyarrow")

from maskinversion.collection import neighbours
from maskinversion.collection.album import Album
from maskinversion.collection.gather import add_regions
from maskinversion.collection.group import clusters, near_duplicates
from maskinversion.collection.search import Only, RegionSearch
from maskinversion.collection.sheet import Cell, contact_sheet, found_rows
from maskinversion.collection.table import RegionTable

WIDTH = 24


@pytest.fixture(scope="module")
def clip():
    return mi.load_clip("bundled", device="cpu")


@pytest.fixture
def table(tmp_path, clip):
    return small_table(tmp_path, clip)


@pytest.fixture
def search(table):
    return RegionSearch(table)


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """As if every table were large: what is kept of them is here."""
    monkeypatch.setattr(neighbours, "IN_MEMORY", 0)
    monkeypatch.setenv("MASKINVERSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "search"


def drawn(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def right(tokens, questions, k, among=None):
    """The rows of the k nearest, by float64. tokens: an array, or unit ones as they are kept."""
    scores = units(questions) @ (tokens.double() if isinstance(tokens, torch.Tensor) else units(tokens)).T
    if among is not None:
        outside = np.setdiff1d(np.arange(len(tokens)), among)
        scores[:, outside] = -2
    return scores.topk(k, 1).indices


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "kept on disk"])
@pytest.mark.parametrize("some", [None, 3, 400])
def test_the_nearest_are_those_of_comparing_everything(large, some, tmp_path, request):
    if large:
        request.getfixturevalue("kept")
    tokens, questions = drawn(1100), drawn(300, 1)  # more than are compared at a time, of both
    found = neighbours.unit_tokens(tables.random_table(tmp_path / "t", tokens))
    assert (found.units.dtype == np.float16) == large
    among = None if some is None else np.sort(np.random.default_rng(2).choice(len(tokens), some, replace=False))
    rows, scores = found.nearest(torch.from_numpy(questions), 10, among)
    expected = right(torch.from_numpy(found.units), questions, min(10, some or 10), among)
    assert torch.equal(rows, expected)
    reached = (units(questions)[:, None] * units(tokens)[rows]).sum(2)
    torch.testing.assert_close(scores.double(), reached, atol=1e-3 if large else 1e-6, rtol=0)


def test_a_graph_finds_what_comparing_finds_and_is_kept(kept, tmp_path):
    pytest.importorskip("usearch")
    tokens, questions = drawn(1500), torch.from_numpy(drawn(20, 1))
    table = tables.random_table(tmp_path / "t", tokens)
    made = neighbours.unit_tokens(table, graph=True)
    again = neighbours.unit_tokens(table)
    assert made.graph is not None and again.graph is not None and len(list(kept.iterdir())) == 2
    for among in (None, np.arange(0, 1500, 2), np.arange(40)):  # the last so few that they are compared
        expected = right(tokens, questions.numpy(), 5, among)
        for found in (made, again):
            rows, scores = found.nearest(questions, 5, among)
            hits = sum(len(set(a) & set(b)) for a, b in zip(rows.tolist(), expected.tolist(), strict=True))
            assert hits >= 0.95 * expected.numel() and (scores[:, :-1] >= scores[:, 1:]).all()
            assert among is None or np.isin(rows.numpy(), among).all()


@pytest.mark.parametrize("suffix", [".npy", ".usearch"])
def test_what_is_kept_and_damaged_is_made_again(suffix, kept, tmp_path):
    pytest.importorskip("usearch")
    table = tables.random_table(tmp_path / "t", drawn(300))
    before = neighbours.unit_tokens(table, graph=True).nearest(torch.from_numpy(drawn(2, 1)), 3)
    path = next(kept.glob(f"*{suffix}"))
    for content in (b"", b"nonsense" * 40, path.read_bytes()[:-500]):
        path.unlink()  # it may be mapped
        path.write_bytes(content)
        after = neighbours.unit_tokens(table, graph=True).nearest(torch.from_numpy(drawn(2, 1)), 3)
        assert torch.equal(before[0], after[0])


def test_a_table_that_has_changed_is_read_again_and_the_old_copy_goes(kept, tmp_path):
    table = tables.random_table(tmp_path / "t", drawn(30))
    assert len(neighbours.unit_tokens(table)) == 30
    table.parts()[1].unlink()
    assert len(neighbours.unit_tokens(table)) == 15 and len(list(kept.iterdir())) == 1


def test_where_nothing_can_be_kept_the_search_goes_on(kept, tmp_path):
    kept.parent.write_bytes(b"")  # a file, where a folder should be
    table = tables.random_table(tmp_path / "t", drawn(30))
    with pytest.warns(mi.InputWarning, match="read at every start"):
        assert len(neighbours.unit_tokens(table)) == 30


def test_a_region_of_the_table_finds_its_like_and_not_itself(search):
    row = 4
    [question] = search.of_regions([search.rows["id"][row].as_py()])
    [found] = search.nearest([question], 2)
    assert [region.about["label"] for region in found] == ["frog", "frog"] and row not in [region.row for region in found]


def test_a_phrase_finds_what_it_means(search, clip):
    found = search.nearest(search.of_phrases(NAMES, clip), 3)
    assert [[region.about["label"] for region in regions] for regions in found] == [[name] * 3 for name in NAMES]
    assert all(region.score > 0.99 for regions in found for region in regions)


@pytest.mark.parametrize(
    ("only", "left"),
    [
        (Only(labels=["cat"]), {"cat/0.png", "cat/1.png", "cat/2.png"}),
        (Only(pictures="*/1.png"), {f"{name}/1.png" for name in NAMES}),
        (Only(area=(0.15, 0.2)), {f"{name}/1.png" for name in NAMES}),
        (Only("c*", ["cat", "frog"], (0.0, 0.2)), {"cat/0.png", "cat/1.png"}),
    ],
)
def test_only_those_that_were_asked_for_are_found(only, left, search, clip):
    [found] = search.nearest(search.of_phrases(["cat"], clip), 100, only)
    assert {region.picture for region in found} == left


def test_a_token_is_searched_for_and_one_of_another_clip_is_refused(search, table, clip, tmp_path):
    inverter = mi.MaskInverter(clip, iterations=1)
    mask = torch.zeros(48, 64)
    mask[10:30, 10:40] = 1
    tokens = inverter.invert(inverter.encode(torch.rand(48, 64, 3)), [mask])
    [question] = search.of_tokens([tokens])
    assert torch.equal(question.unit, tokens.embeddings[0])
    other = tables.random_table(tmp_path / "other", drawn(3))
    with pytest.raises(mi.InputError, match=r"were made with bundled, and the tokens of .*other with a model: .* Use a model"):
        RegionSearch(other).of_tokens([tokens])
    with pytest.raises(mi.InputError, match="phrases would be read with bundled, and"):
        RegionSearch(other).of_phrases(["cat"], clip)
    with pytest.raises(mi.InputError, match="other was made with a model, and the tokens of"):
        search.of_table(RegionSearch(other))


def test_a_region_of_a_picture_is_made_as_those_of_the_table(search, clip):
    mask = torch.zeros(48, 64)
    mask[10:30, 10:40] = 1
    picture = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(0))
    from maskinversion.settings import PRESETS

    inverter = mi.MaskInverter(clip, **PRESETS["region"])
    expected = inverter.invert(inverter.encode(picture), [mask]).embeddings[0]
    [question] = search.of_picture(picture, [mask], clip)
    assert torch.equal(question.unit, expected)


def test_a_table_grows_picture_by_picture(clip, tmp_path):
    inverter = mi.MaskInverter(clip, iterations=2)
    pictures = torch.rand(2, 40, 64, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 20, 32)
    masks[0, 2:10, 4:12] = 1
    masks[1, 10:20, 16:32] = 1
    sets = [inverter.invert(inverter.encode(picture), masks) for picture in pictures]
    for number in (0, 1, 0):
        table = add_regions(tmp_path / "t", sets[number], pictures[number], masks, ["a", "b"])
    search = RegionSearch(RegionTable.open(table.folder))
    assert len(search) == 4
    [found] = search.nearest(search.of_tokens([sets[1]])[1:], 1)
    assert (found[0].score, found[0].about["label"]) == (pytest.approx(1), "b")
    assert found[0].about["box"] == [32, 20, 64, 40] and found[0].about["area"] == pytest.approx(0.25)
    [view] = Album(table).views(search, found)
    assert view is not None and (view.pixels() - pictures[1]).abs().max() < 0.003
    assert view.full_mask()[20:, 32:].min() == 1 and view.full_mask().mean() == pytest.approx(0.25)
    with pytest.raises(mi.InputError, match="2 tokens and 1 masks"):
        add_regions(tmp_path / "t", sets[0], pictures[0], masks[:1])
    with pytest.raises(mi.InputError, match="they are of no region"):
        add_regions(tmp_path / "t", pull(sets[:1])[0], pictures[0], masks)


def test_near_duplicates_are_those_that_are_joined(tmp_path):
    tokens = drawn(12)
    tokens[[3, 7]] = tokens[1] * 2 + 0.01 * drawn(2, 5)
    tokens[9] = tokens[8]
    found = near_duplicates(neighbours.unit_tokens(tables.random_table(tmp_path / "t", tokens)), 0.99)
    assert [sorted(group.rows) for group in found] == [[1, 3, 7], [8, 9]] and found[0].likeness > 0.99


def test_more_duplicates_than_are_looked_at_of_each_are_one_group(tmp_path):
    tokens = np.concatenate([np.repeat(drawn(1), 100, 0) + 1e-3 * drawn(100, 1), drawn(10, 2)])
    [group] = near_duplicates(neighbours.unit_tokens(tables.random_table(tmp_path / "t", tokens)), 0.99)
    assert sorted(group.rows) == list(range(100))


def test_clusters_are_those_that_were_drawn(search):
    pytest.importorskip("sklearn")
    found = clusters(search.tokens, len(NAMES))
    labels = search.rows["label"].to_pylist()
    assert [{labels[row] for row in group.rows} for group in found] == [{name} for name in NAMES]
    with pytest.raises(mi.InputError, match="12 regions cannot be put into 13 groups"):
        clusters(search.tokens, 13)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda s, c: s.of_regions(["nothing"]), "no region with the id 'nothing'"),
        (lambda s, c: s.nearest([], 3), "nothing to search for"),
        (lambda s, c: s.nearest(s.of_phrases(["cat"], c), 0), "to find is 0"),
        (lambda s, c: s.nearest(s.of_phrases(["cat"], c), 3, Only(labels=["cta"])), "label 'cta', and its labels are 'cat"),
        (lambda s, c: s.nearest(s.of_phrases(["cat"], c), 3, Only(pictures="x*")), "choose other pictures"),
        (lambda s, c: Only(area=(0.5, 0.1)), "area is from 0.5 to 0.1"),
        (lambda s, c: near_duplicates(s.tokens, 1.5), "cosine of at least 1.5"),
    ],
)
def test_what_cannot_be_is_said(wrong, said, search, clip):
    with pytest.raises(mi.InputError, match=said):
        wrong(search, clip)


def test_a_table_without_regions_and_a_token_of_nothing_are_refused(tmp_path):
    table = RegionTable.create(tmp_path / "empty", tables.random_table(tmp_path / "t", drawn(3)).made, {})
    with pytest.raises(mi.InputError, match="there is no region in"):
        RegionSearch(table)
    with pytest.raises(mi.InputError, match="token without a direction"):
        RegionSearch(tables.random_table(tmp_path / "zero", np.zeros((2, WIDTH), np.float32)))


def test_a_sheet_shows_what_there_is_and_says_what_is_gone(search, table, clip, tmp_path):
    (tmp_path / "pictures" / "cat" / "1.png").unlink()
    (tmp_path / "pictures" / "frog" / "0.png").write_bytes(b"no picture")
    questions = search.of_phrases(["cat", "frog"], clip)
    album = Album(table)
    sheet = contact_sheet(found_rows(search, album, questions, search.nearest(questions, 3)))
    assert sheet.size == (4 * 200 + 8, 2 * (200 + 36) + 8)
    seen = np.array(sheet)
    assert (np.abs(seen - np.array(tables.COLOURS[0])).sum(2) < 12).sum() > 200  # the cats that are there
    assert len(album.problems) == 2 and "2 pictures cannot be shown, and the rest is" in str(album.told())


def test_a_long_row_of_a_sheet_is_broken():
    assert contact_sheet([[Cell(words="x")] * 25, [Cell(words="y")]]).size == (11 * 200 + 8, 4 * 200 + 8)


def test_a_region_is_outlined_where_its_mask_is(search, table):
    from maskinversion.collection.sheet import FOUND, portrait

    [view] = Album(table).views(search, search.regions([0], [1.0]))
    assert view is not None and view.full_mask().sum() == pytest.approx(25 * 25)
    seen = np.array(portrait(view, 96, FOUND, context=10))  # the whole picture
    rows, columns = np.nonzero((seen == FOUND).all(2))
    left, top, right_, bottom = (1.5 * (side + shift) for side, shift in zip(tables.REGION, (0, 0, 1, 1), strict=True))
    assert abs(columns.min() - left) < 3 and abs(columns.max() - right_) < 3
    assert abs(rows.min() - 12 - top) < 3 and abs(rows.max() - 12 - bottom) < 3  # twelve rows of paper above


def test_no_picture_outside_of_the_folder_is_opened(table, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    album = Album(table, tmp_path / "pictures")
    assert album.picture("../secret.png") is None and "outside of" in album.problems["../secret.png"]
    assert album.picture(str(tmp_path / "secret.png")) is None


def test_a_map_has_every_region_once(search, table):
    pytest.importorskip("sklearn")
    from maskinversion.collection.atlas import layout, on_grid, region_map

    places = layout(search.tokens.units)
    assert places.shape == (12, 2) and places.min() == 0 and places.max() == 1
    cells = on_grid(places, 5)
    assert len({tuple(cell) for cell in cells.tolist()}) == 12 and cells.min() >= 0 and cells.max() < 5
    drawn_map = np.array(region_map(search, Album(table), size=250))
    for colour in tables.COLOURS:
        assert (np.abs(drawn_map - np.array(colour)).sum(2) < 12).sum() > 300
    with pytest.raises(mi.InputError, match="a map needs 3 regions"):
        region_map(search, Album(table), np.arange(2))


def run(capsys, *words):
    status = main(["search", *map(str, words)])
    return (status, *capsys.readouterr())


def test_the_command_prints_json_and_writes_a_sheet(table, tmp_path, capsys):
    status, out, err = run(capsys, table.folder, "--phrase", "cat", "--top", 2, "--json", "--sheet", tmp_path / "sheet.png")
    assert status == 0, err
    [answer] = json.loads(out)
    assert answer["question"] == "cat" and [region["label"] for region in answer["regions"]] == ["cat", "cat"]
    assert Image.open(tmp_path / "sheet.png").width > 3 * 192 and "sheet.png" in err
    first = answer["regions"][0]
    status, out, err = run(capsys, table.folder, "--like", first["id"], "--label", "frog", "--area", 0.1, 0.25)
    assert status == 0 and out.count(" frog, frog/") == 2, err


def test_a_region_of_a_picture_is_found_in_what_embed_wrote(tmp_path, capsys):
    """Its token is made with the settings and the CLIP that the table names."""
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    for folder, names in ((pictures, {"zoo.png": "zoo.png"}), (masks, {f"zoo-mask{i}.png": f"zoo_{i}.png" for i in range(3)})):
        folder.mkdir()
        for name, written in names.items():
            shutil.copy(SCENES / name, folder / written)
    made = ("--pictures", pictures, "--masks", masks, "--out", tmp_path / "table", "--device", "cpu", "--iterations", 3)
    assert main(["embed", *map(str, made)]) == 0
    capsys.readouterr()
    asked = ("--image", pictures / "zoo.png", "--mask", masks / "zoo_1.png", "--device", "cpu", "--top", 1, "--json")
    status, out, err = run(capsys, tmp_path / "table", *asked)
    assert status == 0, err
    [region] = json.loads(out)[0]["regions"]
    assert region["annotation"] == "zoo_1.png" and region["score"] > 0.9999


def test_the_command_groups_and_draws_a_map(table, tmp_path, capsys):
    pytest.importorskip("sklearn")
    words = ("--group", "clusters", "--count", 4, "--sheet", tmp_path / "groups.png", "--map", tmp_path / "map.png")
    status, out, _ = run(capsys, table.folder, *words)
    assert status == 0 and "group 3: 3 regions" in out and (tmp_path / "map.png").is_file() and (tmp_path / "groups.png").is_file()
    status, out, _ = run(capsys, table.folder, "--group", "duplicates", "--at", "0.99", "--json")
    assert status == 0 and [group["size"] for group in json.loads(out)] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "there is nothing to search for: give --phrase"),
        (("--phrase", "cat", "--group", "clusters"), "leave out what to search for"),
        (("--image", "x.png"), "give both --image and --mask"),
        (("--phrase", "cat", "--labels", "3"), "for regions that have a label in the table, use --label"),
        (("--phrase", "cat", "--sheet", "sheet"), "sheet does not say which kind of picture to write"),
        (("--phrase", "cat", "--sheet", "s.xyz"), "give a name that ends in .png"),
        (("--map", "map.csv"), "map.csv does not say"),
    ],
)
def test_the_command_says_what_is_wrong(words, said, table, capsys):
    status, _, err = run(capsys, table.folder, *words)
    assert status == 1 and said in err


def test_the_command_refuses_a_table_of_another_clip_and_what_is_no_table(tmp_path, capsys):
    other = tables.random_table(tmp_path / "other", drawn(3))
    status, _, err = run(capsys, other.folder, "--phrase", "cat", "--clip", "bundled")
    assert status == 1 and "embeddings of different CLIPs cannot be compared. Use a model for both" in err
    status, _, err = run(capsys, other.folder, "--phrase", "cat")
    assert status == 1 and "was made with a model, not found here: give it with --clip" in err
    status, _, err = run(capsys, tmp_path, "--phrase", "cat")
    assert status == 1 and "is no table of regions" in err


def test_a_search_warns_of_nothing(search, clip):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.nearest(search.of_phrases(["cat"], clip), 3, Only(labels=["cat"]))
