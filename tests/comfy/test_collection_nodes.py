"""Tables of regions in a real ComfyUI: loaded, searched, and seen as a map."""

import json
import shutil

import numpy as np
import pytest

import maskinversion as mi
from tests.helpers import tables
from tests.helpers.graphs import WORKFLOWS, inversion, node

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def folder(server):
    """A table in the input folder, and one whose pictures are somewhere else."""
    base = server.base / "input" / "collection"
    tables.small_table(base, mi.load_clip("bundled", device="cpu"))
    elsewhere = tables.small_table(server.base / "elsewhere", mi.load_clip("bundled", device="cpu"), each=1)
    shutil.copytree(elsewhere.folder, server.base / "output" / "of elsewhere")
    tables.random_table(server.base / "output" / "of another", np.eye(64, dtype=np.float32))
    return base


@pytest.fixture
def graph(folder, server, defaults):
    """The phrase cat, and the token of a region."""
    options = server.get("/object_info/MaskInversionLoadTable")["MaskInversionLoadTable"]["input"]["required"]["folder"]
    assert set(tables_of(options)) >= {"collection/table", "of elsewhere [output]", "of another [output]"}
    inputs = server.get("/object_info/MaskInversionSearch")["MaskInversionSearch"]["input"]["required"]
    search = {name: given["default"] for name, (_, given) in inputs.items() if "default" in given}
    found = inversion(defaults, iterations=1)
    del found["report"]
    found["table"] = {"class_type": "MaskInversionLoadTable", "inputs": {"folder": "collection/table"}}
    found["search"] = {
        "class_type": "MaskInversionSearch",
        "inputs": search | {"table": ["table", 0], "clip": ["clip", 0], "phrases": "cat", "top": 3},
    }
    del found["inversion"], found["image"], found["mask"]
    for name, output in (("labels", 3), ("scores", 4), ("json", 5)):
        found[name] = {"class_type": "PreviewAny", "inputs": {"source": ["search", output]}}
    return found


def tables_of(options):
    return options[0] if isinstance(options[0], list) else options[1]["options"]


def seen(graph, **sockets):
    for name, source in sockets.items():
        graph[name] = {"class_type": "PreviewImage", "inputs": {"images": source}}
    return graph


def test_a_phrase_gives_pictures_masks_and_what_is_said_of_them(server, graph):
    graph["as image"] = {"class_type": "MaskToImage", "inputs": {"mask": ["search", 2]}}
    run = server.submit(seen(graph, sheet=["search", 0], pictures=["search", 1], masks=["as image", 0]))
    assert not run.error, run.error
    assert run.text("labels").split("\n") == ["cat"] * 3
    rows = [row.split("\t") for row in run.text("scores").split("\n")]
    assert [row[0] for row in rows] == ["cat"] * 3 and {row[3] for row in rows} == {f"cat/{number}.png" for number in range(3)}
    [answer] = json.loads(run.text("json"))
    assert [region["id"] for region in answer["regions"]] == [row[2] for row in rows]
    pictures, masks = server.images(run, "pictures"), server.images(run, "masks")
    assert len(pictures) == len(masks) == 3 and pictures[0].size == tables.SIZE
    left, top, right, bottom = tables.REGION
    assert np.asarray(masks[0].convert("L"))[top : bottom + 1, left : right + 1].min() == 255
    assert (np.asarray(masks[0].convert("L")) > 0).sum() == (right + 1 - left) * (bottom + 1 - top)
    [sheet] = server.images(run, "sheet")
    assert sheet.width > 4 * 192


def test_a_token_is_searched_for_with_filters(server, graph, defaults):
    of = inversion(defaults, iterations=1)
    graph |= {name: of[name] for name in ("image", "mask", "inversion")}
    graph["search"]["inputs"] |= {"tokens": ["inversion", 0], "phrases": "", "labels": "frog, crown", "pictures": "*/2.png"}
    del graph["search"]["inputs"]["clip"]
    run = server.submit(graph)
    assert not run.error, run.error
    assert sorted(run.text("labels").split("\n")) == ["crown", "frog"]


def test_the_template_collects_scenes_and_finds_what_is_in_them(server):
    graph = server.read(WORKFLOWS / "collect_and_find_regions.json")
    search = node(graph, "MaskInversionSearch")
    for name, output in (("labels", 3), ("scores", 4)):
        graph[name] = {"class_type": "PreviewAny", "inputs": {"source": [search, output]}}
    run = server.submit(graph)
    assert not run.error, run.error
    rows = [row.split("\t") for row in run.text("scores").split("\n")]
    assert len(rows) == 9 and [(row[0], row[4]) for row in rows[::3]] == [(name, name) for name in ("fox", "strawberry", "bicycle")]


def test_regions_are_saved_and_found_again(server, graph, defaults):
    """Two regions of a picture, twice, are there once; those of another picture come to them."""
    of = inversion(defaults, masks=2, iterations=1)
    graph |= {name: of[name] for name in ("image", "mask", "inversion")}
    sockets = {"image": ["image", 0], "mask": ["mask", 0], "tokens": ["inversion", 0]}
    inputs = sockets | {"name": "tables/own", "labels": "one\ntwo\n"}
    for name, more in (("first", {}), ("second", {"after": ["first", 0]})):
        graph[name] = {"class_type": "MaskInversionSaveRegions", "inputs": inputs | more}
    graph["search"]["inputs"] |= {"table": ["second", 0], "tokens": ["inversion", 0], "phrases": "", "top": 1}
    graph["count"] = {"class_type": "PreviewAny", "inputs": {"source": ["second", 1]}}
    run = server.submit(graph)
    assert not run.error, run.error
    assert run.text("count") == "2" and run.text("labels").split("\n") == ["one", "two"]
    assert [row.split("\t")[1] for row in run.text("scores").split("\n")] == ["1.0000", "1.0000"]
    graph["image"]["inputs"] |= {"height": 40}
    assert server.submit(graph).text("count") == "4"
    for changes, said in (({"labels": "one"}, "2 regions and 1 labels"), ({"name": "../x"}, "name '../x' does not name")):
        graph["first"]["inputs"] = inputs | changes
        assert said in server.submit(graph).error
    graph["first"]["inputs"] = inputs
    graph["inversion"]["inputs"]["iterations"] = 2
    assert "iterations 1, not 2" in server.submit(graph).error


def test_regions_whose_masks_were_left_out_are_not_saved(server, graph, defaults):
    of = inversion(defaults, masks=2, kind="last empty", iterations=1, empty_masks="leave out")
    graph = {name: of[name] for name in ("image", "mask", "clip", "inversion")}
    sockets = {"image": ["image", 0], "mask": ["mask", 0], "tokens": ["inversion", 0]}
    graph["save"] = {"class_type": "MaskInversionSaveRegions", "inputs": sockets | {"name": "tables/left out", "labels": "one"}}
    graph["count"] = {"class_type": "PreviewAny", "inputs": {"source": ["save", 1]}}
    run = server.submit(graph)
    assert not run.error and run.text("count") == "1"
    assert "left out, because the mask is empty" in "".join(run.outputs["save"]["text"])


def test_a_map_with_groups(server, graph):
    pytest.importorskip("sklearn")
    inputs = {"table": ["table", 0], "groups": "near-duplicates", "clusters": 4, "likeness": 0.99, "most": 100, "size": 300}
    graph["map"] = {"class_type": "MaskInversionMapOfRegions", "inputs": inputs}
    graph["groups"] = {"class_type": "PreviewAny", "inputs": {"source": ["map", 1]}}
    run = server.submit(seen(graph, picture=["map", 0]))
    assert not run.error, run.error
    assert [group["size"] for group in json.loads(run.text("groups"))] == [3] * 4
    [drawn] = server.images(run, "picture")
    assert drawn.width == drawn.height and 250 < drawn.width <= 300


WRONG = {
    "nothing to search for": {"phrases": " \n"},
    "connect the CLIP that the table is of, bundled": {"clip": None},
    "its labels are": {"labels": "cta"},
    "the area is from 0.5 to 0.1": {"smallest": 0.5, "largest": 0.1},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_searched_for_is_said(server, graph, said):
    inputs = graph["search"]["inputs"] | WRONG[said]
    graph["search"]["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    run = server.submit(graph)
    assert said in run.error and run.error_type.endswith("InputError")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("of elsewhere [output]", "where ComfyUI does not read: put them into"),
        ("of another [output]", "embeddings of different CLIPs cannot be compared. Use a model for both"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(server, graph, table, said):
    graph["table"]["inputs"]["folder"] = table
    assert said in server.submit(graph).error


def test_a_picture_that_is_gone_is_left_out(server, graph, folder):
    path = folder / "pictures" / "cat" / "1.png"
    content = path.read_bytes()
    path.unlink()
    try:
        graph["search"]["inputs"]["pictures"] = "c*"  # nothing was searched for like this before
        run = server.submit(seen(graph, pictures=["search", 1]))
        assert not run.error and len(server.images(run, "pictures")) == 2
        assert "a picture cannot be shown" in "".join(run.outputs["search"]["text"])
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", [f"MaskInversion{name}" for name in ("LoadTable", "SaveRegions", "Search", "MapOfRegions")])
def test_help(server, name):
    info = server.get(f"/object_info/{name}")[name]
    assert server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md").decode().startswith(f"# {info['display_name']}\n")
