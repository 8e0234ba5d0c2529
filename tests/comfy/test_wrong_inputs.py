"""Every node with what people give it by mistake: it says which input is wrong, and the server goes on.

Each node is run with good input first; then each of its inputs is made wrong in turn, one at a time. What can be used is used; what
cannot is refused by name, in a sentence of ours and not in one of Python's or PyTorch's.
"""

import re

import pytest

from tests.helpers.graphs import inversion
from tests.helpers.mirrored_clip import write_mirrored
from tools.comfyui_server import ROOT

GONE = "gone.safetensors"
SMALL = {"steps": 1, "count": 1, "width": 0, "height": 0, "feather": 0}
LEARN = {"method": "probe", "prior": "none"}
LARE = {"method": "lare", "method.points": 2, "method.reach": 1.0, "method.size": 0.1, "method.steps": 2, "method.lr": 0.003}
LARE |= {"method.seed": 1, "prior": "none"}
GOOD = {
    "MaskInversionLoadCLIP": {"source": "bundled"},
    "MaskInversionLoadCaptioner": {"source": "bundled"},
    "MaskInversionLoadPipeline": {"source": "bundled", "source.use": "new pictures", "ip_adapter": "(none)", "dtype": "auto"},
    "MaskInversionTrainClassifier": LEARN | {"labels": "a fox\na cup", "tokens": ["both", 0]},
    "MaskInversionClassify": {"phrases": "a fox\na cup"},
    "MaskInversionRefer": {"phrases": "a fox"},
    "MaskInversionRetrieveCaption": {"phrases": "a fox\na cup"},
    "MaskInversionLabels": {"labels": "a fox"},
    "MaskInversionLabelMap": {"image": ["flat", 0]},
    "MaskInversionJoinPrompts": {"prompts": "a fox"},
    "MaskInversionCaption": {"decoding": "greedy"},
    "MaskInversionSearch": {"phrases": "a fox"},
    "MaskInversionStack": {"sets.tokens0": ["inversion", 0]},
    "MaskInversionMapOfRegions": {"size": 400},
    "MaskInversionGenerate": SMALL,
    "MaskInversionInpaint": SMALL | {"pipeline": ["painter", 0]},
    "MaskInversionSampleBox": {"classifier": ["boxes", 0]},
    "MaskInversionCondition": {"conditioning": ["vectors", 0]},
}
# Nodes of which every good input is a file that is not here: they are run in the tests of their own.
FILES = ("LoadPrior", "Prior", "LoadTokens", "LoadClassifier", "LoadLabelled", "LoadTable")
FAULTS = {
    "IMAGE": ("nothing", "NaN", "black", "another size", "five", "RGBA"),
    "MASK": ("nothing", "NaN", "black", "another size", "five"),
    "MASKINVERSION_TOKENS": ("of another CLIP",),
    "STRING": ("", " , ", "\u00e9\n\n"),
    "COMBO": (GONE,),
}
# By the kind of input: words by which a message may call it.
NAMES = {
    "IMAGE": ("image", "picture", "label map"),
    "MASK": ("mask", "region", "box", "map"),
    "MASKINVERSION_TOKENS": ("token", "CLIP"),
    "STRING": (),
    "COMBO": (),
}
REFUSED = {"MapOfRegions": "a map needs 3 regions"}  # as good as it is, for one region is all that there is
NEVER = ("nothing", "NaN", "of another CLIP")
# Where a fault is none: tokens that stand for themselves, and a picture of which only the size is read.
HARMLESS = {
    ("Pull", "tokens"), ("Vary", "tokens"), ("Pick", "tokens"), ("Stack", "sets.tokens0"), ("SaveTokens", "tokens"),
    ("Embeds", "tokens"), ("JoinPrompts", "tokens"), ("Condition", "tokens"), ("Regions", "image"),
}  # fmt: skip
COSTLY = ("Inpaint", "Generate", "Style", "PlusEmbeds", "WanEmbeds")  # of which only what must be refused is tried


pytestmark = pytest.mark.slow

NODES = sorted(path.stem for path in (ROOT / "web" / "docs").glob("*.md"))


def test_none_is_left_out(nodes):
    assert sorted(nodes) == NODES


@pytest.fixture(scope="module")
def nodes(server):
    return {name: node for name, node in server.get("/object_info").items() if name.startswith("MaskInversion")}


@pytest.fixture(scope="module")
def sources(server, nodes):
    """Nodes that give a good input of every kind, and some bad ones."""
    write_mirrored(server.base / "models" / "open_clip" / "mirrored")
    given = nodes["MaskInversion"]["input"]["required"]
    defaults = {name: options["default"] for name, (_, options) in given.items() if "default" in options}
    made = inversion(defaults, iterations=1)
    del made["report"]

    def one(kind, /, **inputs):
        return {"class_type": kind, "inputs": inputs}

    fresh = {"source": "file", "source.weights": "mirrored", "source.architecture": "ViT-L-14"}
    siglip = {"class_type": "MaskInversion", "inputs": made["inversion"]["inputs"] | {"clip": ["siglip", 0]}}
    other = {"class_type": "MaskInversion", "inputs": made["inversion"]["inputs"] | {"clip": ["other", 0]}}
    labels = {"labels": "a fox\na cup", "decay": 0.1, "template": "{}", "clip": ["clip", 0]}
    table = {"image": ["image", 0], "mask": ["mask", 0], "tokens": ["inversion", 0], "name": "tables/wrong inputs"}
    return made | {
        "other": one("MaskInversionLoadCLIP", **fresh),
        "of another CLIP": other,
        "siglip": one("TestClipVision", kind="SigLIP"),
        "states": siglip,
        "varied": one("MaskInversionVary", tokens=["inversion", 0], count=1, angle=20.0, seed=0),
        "both": one("MaskInversionStack", **{"sets.tokens0": ["inversion", 0], "sets.tokens1": ["varied", 0]}),
        "flat": one("TestFault", kind="flat"),
        "classifier": one("MaskInversionTrainClassifier", tokens=["both", 0], **LEARN, **labels),
        "boxes": one("MaskInversionTrainClassifier", tokens=["both", 0], **LARE, **labels),
        "captioner": one("MaskInversionLoadCaptioner", source="bundled"),
        "pipeline": one("MaskInversionLoadPipeline", **GOOD["MaskInversionLoadPipeline"], offload=False),
        "painter": one(
            "MaskInversionLoadPipeline",
            **GOOD["MaskInversionLoadPipeline"] | {"source.use": "painting into a picture"},
            offload=False,
        ),
        "table": one("MaskInversionSaveRegions", **table),
        "style": one("TestStyleModel"),
        "text": one("TestText", width=4096, pooled=768, seed=0),
        "vectors": one("TestText", width=64, pooled=0, seed=0),
    }


SOURCES = {
    "IMAGE": ["image", 0], "MASK": ["mask", 0], "MASKINVERSION_TOKENS": ["inversion", 0], "MASKINVERSION_CLIP": ["clip", 0],
    "CLIP_VISION_OUTPUT": ["states", 1], "MASKINVERSION_CLASSIFIER": ["classifier", 0], "STYLE_MODEL": ["style", 0],
    "MASKINVERSION_CAPTIONER": ["captioner", 0], "MASKINVERSION_PIPELINE": ["pipeline", 0], "CONDITIONING": ["text", 0],
    "MASKINVERSION_REGION_TABLE": ["table", 0],
}  # fmt: skip
OPTIONAL = ("mask", "image", "clip")  # that most people connect


def inputs_of(node):
    """Of every input its kind and its options, and whether it is required."""
    for group in ("required", "optional"):
        for name, (kind, *options) in node["input"].get(group, {}).items():
            kind = "COMBO" if isinstance(kind, list) else kind.split(",")[0]
            yield name, kind, options[0] if options else {}, group == "required"


def good(name, node):
    found = {}
    for given, kind, options, required in inputs_of(node):
        if kind in SOURCES and (required or given in OPTIONAL):
            found[given] = SOURCES[kind]
        elif "default" in options:
            found[given] = options["default"]
        elif kind == "COMBO":
            found[given] = options["options"][0]
    if name in ("MaskInversionPlusEmbeds",):
        found["clip"] = ["siglip", 0]
    return {key: value for key, value in (found | GOOD.get(name, {})).items() if key != "sets"}


def graph_of(sources, name, inputs):
    """The node and what it needs, and something that asks for its first output."""
    graph, wanted = {}, {"node"}
    while wanted:
        source = wanted.pop()
        graph[source] = (sources | {"node": {"class_type": name, "inputs": inputs}})[source]
        wanted |= {value[0] for value in graph[source]["inputs"].values() if isinstance(value, list)} - graph.keys()
    return graph | {"asked": {"class_type": "PreviewAny", "inputs": {"source": ["node", 0]}}}


def wrong_ones(node, inputs):
    """Every input with each of its faults: the input, the fault, the kind, and the inputs with it."""
    for name, kind, _, _ in inputs_of(node):
        if name not in inputs:
            continue
        for fault in FAULTS.get(kind, ()):
            given = {"IMAGE": ["fault", 0], "MASK": ["fault", 1], "MASKINVERSION_TOKENS": ["of another CLIP", 0]}.get(kind, fault)
            yield name, fault, kind, inputs | {name: given}, {"fault": {"class_type": "TestFault", "inputs": {"kind": fault}}}


@pytest.mark.parametrize("name", NODES)
def test_a_node_names_what_is_wrong_with_its_inputs(server, nodes, sources, name):
    node, short = nodes[name], name.removeprefix("MaskInversion")
    inputs = good(name, node)
    if short in FILES:
        gone = {"file": GONE, "folder": GONE, "source": "folder", "source.folder": GONE}
        told = refusal(server, graph_of(sources, name, inputs | gone))
        assert ("required_input_missing" if short == "Prior" else "value_not_in_list") in told
        return
    run = server.submit(graph_of(sources, name, inputs))
    assert run.error.startswith(REFUSED.get(short, "")) and bool(run.error) is (short in REFUSED), run.error
    for given, fault, kind, wrong, extra in wrong_ones(node, inputs):
        if short in COSTLY and fault not in NEVER:
            continue
        what, graph = (short, given, fault), graph_of(sources | extra, name, wrong)
        if kind == "COMBO":
            assert f'"input_name": "{given}"' in refusal(server, graph), what
            continue
        run = server.submit(graph)
        if not run.error:
            assert fault not in NEVER or what[:2] in HARMLESS, what
            continue
        assert ".maskinversion." in run.error_type, (*what, run.error_type, run.error)
        assert re.search("[:;.] [A-Za-z]|, as in ", run.error), (*what, run.error)
        assert any(word in run.error for word in (given.removesuffix("s"), *NAMES[kind])), (*what, run.error)
    assert bool(server.submit(graph_of(sources, name, inputs)).error) is (short in REFUSED)


def refusal(server, graph):
    """What the server answers when it does not take a graph."""
    with pytest.raises(ValueError) as refused:
        server.queue(graph)
    return str(refused.value)
