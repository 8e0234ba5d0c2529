"""Token operations, files and embeds as nodes in a real ComfyUI."""

import json

import pytest
from safetensors.torch import save_file
from torch import zeros

from tests.helpers.graphs import inversion

NODES = {
    "MaskInversionBlend": {"other": ["inversion", 0], "weight": 0.5},
    "MaskInversionPull": {"strength": 0.3},
    "MaskInversionSubtract": {"other": ["picked", 0], "strength": 0.5},
    "MaskInversionVary": {"count": 2, "angle": 20.0, "seed": 1},
    "MaskInversionPick": {"numbers": "1, -1, 0"},
}
COUNTS = {
    "MaskInversionBlend": 2,
    "MaskInversionPull": 2,
    "MaskInversionSubtract": 2,
    "MaskInversionVary": 4,
    "MaskInversionPick": 3,
}


@pytest.fixture
def two(defaults):
    """Two tokens of one picture, and the second of them."""
    graph = inversion(defaults, masks=2, iterations=2)
    del graph["report"]
    graph["picked"] = {"class_type": "MaskInversionPick", "inputs": {"tokens": ["inversion", 0], "numbers": "1"}}
    return graph


def submit_saved(server, two, prefix):
    saved = {"class_type": "MaskInversionSaveTokens", "inputs": {"tokens": ["picked", 0], "filename_prefix": prefix}}
    return server.submit({**two, "saved": saved})


HOSTILE_NAMES = {
    "tokens/a*b?c:d<e>f|g\"h\x01i": "tokens/a_b_c_d_e_f_g_h_i",
    "a\ud800b": "a_b",
    "back\\slash": "back/slash",
    "CON/nul": "CON_/nul_",
    "dots. /x..": "dots/x",
}


@pytest.mark.parametrize("prefix", HOSTILE_NAMES)
def test_tokens_are_saved_under_names_that_every_system_has(server, two, prefix):
    run = submit_saved(server, two, prefix)
    assert not run.error, run.error
    assert (server.base / "output" / f"{HOSTILE_NAMES[prefix]}_00001_.safetensors").is_file()


@pytest.mark.parametrize("prefix", ["x" * 5000, "file.txt/x/y", "..\\..\\x", "../x", "", "a/"])
def test_names_that_cannot_be_written_are_refused_with_a_sentence(server, two, prefix):
    (server.base / "output").mkdir(exist_ok=True)
    (server.base / "output" / "file.txt").write_text("")
    run = submit_saved(server, two, prefix)
    assert "filename_prefix" in run.error and run.error_type.endswith("InputError")


def test_a_name_that_is_not_in_utf8_does_not_stop_the_queue(server, two):
    name = "caf\udce9.safetensors"
    (server.base / "input" / name).write_bytes(b"damaged")
    try:
        listed = json.dumps(server.get("/object_info/MaskInversionLoadTokens"))
        assert "caf" not in listed
        with pytest.raises(ValueError, match="not in"):
            server.submit({"load": {"class_type": "MaskInversionLoadTokens", "inputs": {"file": name}}, "seen": seen("load")})
    finally:
        (server.base / "input" / name).unlink()
    assert not submit_saved(server, two, "after").error


def seen(node):
    return {"class_type": "TestTokens", "inputs": {"tokens": [node, 0], "output": [node, 1]}}


def test_every_node_gives_tokens_and_the_same_for_conditioning_and_has_help(server, two):
    graph = dict(two)
    for name, inputs in NODES.items():
        graph[name] = {"class_type": name, "inputs": inputs | {"tokens": ["inversion", 0]}}
        graph[f"{name} seen"] = seen(name)
    graph["stack"] = {
        "class_type": "MaskInversionStack",
        "inputs": {"sets.tokens0": ["inversion", 0], "sets.tokens1": ["picked", 0]},
    }
    graph["stack seen"] = seen("stack")
    run = server.submit(graph)
    assert not run.error, run.error
    for name, count in COUNTS.items():
        found = json.loads(run.text(f"{name} seen"))
        assert found["count"] == count and found["same"], name
    assert json.loads(run.text("stack seen"))["count"] == 3
    for name in (*NODES, "MaskInversionStack", "MaskInversionSaveTokens", "MaskInversionLoadTokens"):
        info = server.get(f"/object_info/{name}")[name]
        assert info["category"] == "MaskInversion/tokens" and info["description"]
        assert len(server.fetch(f"/extensions/maskinversion-pack/docs/{name}.md")) > 200


def test_tokens_go_into_a_file_and_come_back(server, two):
    graph = two | {"seen": seen("picked")}
    graph["saved"] = {"class_type": "MaskInversionSaveTokens", "inputs": {"tokens": ["picked", 0], "filename_prefix": "mine/a"}}
    first = server.submit(graph)
    assert not first.error, first.error
    assert first.text("saved") == "mine/a_00001_.safetensors"
    assert [path.name for path in (server.base / "output" / "mine").iterdir()] == ["a_00001_.safetensors"]
    loaded = {"class_type": "MaskInversionLoadTokens", "inputs": {"file": "mine/a_00001_.safetensors [output]"}}
    name = {"class_type": "PreviewAny", "inputs": {"source": ["loaded", 2]}}
    run = server.submit({"loaded": loaded, "seen": seen("loaded"), "name": name})
    assert not run.error, run.error
    assert json.loads(run.text("seen"))["digest"] == json.loads(first.text("seen"))["digest"]
    assert run.text("name") == "bundled"


@pytest.mark.parametrize("prefix", ["../outside", "/tmp/outside", "", "."])
def test_nothing_is_written_outside_the_output_folder(server, two, prefix):
    two["saved"] = {"class_type": "MaskInversionSaveTokens", "inputs": {"tokens": ["picked", 0], "filename_prefix": prefix}}
    assert "does not name a file in the output folder" in server.submit(two).error


@pytest.mark.parametrize("file", ["../../secret.safetensors", "/etc/passwd", "none.safetensors"])
def test_only_listed_files_are_read(server, file):
    graph = {"loaded": {"class_type": "MaskInversionLoadTokens", "inputs": {"file": file}}, "seen": seen("loaded")}
    with pytest.raises(ValueError, match="not in list"):
        server.queue(graph)


def test_another_file_is_refused(server):
    save_file({"a": zeros(1)}, server.base / "input" / "other.safetensors")
    loaded = {"class_type": "MaskInversionLoadTokens", "inputs": {"file": "other.safetensors"}}
    assert "not one of localized tokens" in server.submit({"loaded": loaded, "seen": seen("loaded")}).error


def test_numbers_that_no_token_has(server, two):
    for numbers, message in (("7", "no token 7: there are 2"), ("one", "write whole numbers")):
        two["picked"]["inputs"]["numbers"] = numbers
        assert message in server.submit(two | {"seen": seen("picked")}).error


def test_a_node_that_reads_hidden_states_says_what_to_connect(server, two):
    two["read"] = {"class_type": "TestOutputState", "inputs": {"output": ["picked", 1]}}
    error = server.submit(two).error
    assert "last_hidden_state" in error and "MaskInversion node itself" in error


def test_embeds_for_ip_adapter_are_the_tokens_and_zeros_or_the_negative(server, two):
    two["nothing"] = {"class_type": "MaskInversionNothing", "inputs": {"clip": ["clip", 0], "picture": "black"}}
    two["plain"] = {"class_type": "MaskInversionEmbeds", "inputs": {"tokens": ["inversion", 0]}}
    two["led"] = {"class_type": "MaskInversionEmbeds", "inputs": {"tokens": ["inversion", 0], "negative": ["nothing", 0]}}
    for name in ("plain", "led"):
        embeds = {"pos_embed": [name, 0], "neg_embed": [name, 1], "tokens": ["inversion", 0]}
        two[f"{name} seen"] = {"class_type": "TestEmbeds", "inputs": embeds}
    run = server.submit(two)
    assert not run.error, run.error
    plain, led = (json.loads(run.text(f"{name} seen")) for name in ("plain", "led"))
    assert plain["same"] and led["same"]
    assert plain["pos"] == plain["neg"] and plain["neg length"] == 0
    assert led["neg"] == [1, led["pos"][1]] and led["neg length"] > 0.1
