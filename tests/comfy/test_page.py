"""ComfyUI's real page in a real browser, with both kinds of nodes. Pictures of it are left in the folder `screenshots`."""

import json

import pytest

from maskinversion.settings import PRESETS
from tests.comfy.test_consumers import FLUX_TEXT, WAN_TEXT, small
from tests.helpers.browser import browser, open_page, photograph
from tests.helpers.canvas import MEASURE, SHOWN, faults
from tests.helpers.graphs import WORKFLOW
from tools.comfyui_server import PACK, as_api

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KINDS = ("classic", "nodes 2.0")
# The templates that run on what comes with the pack, and the text that one of their nodes ends with.
OFFLINE = {
    "localize_a_region": "region 2: penguin",
    "name_and_find_regions": "a penguin: region 2",
    "caption_a_region": "region 1: ",
    "prompt_of_regions": "penguin",
    "picture_of_a_region": "",
    "region_in_a_prompt": "fox",
    "region_into_another_picture_offline": "",
    "own_picture_in_words": "region 1: strawberry",
    "own_picture_made_anew": "",
    "own_picture_captioned": "region 1: a strawberry",
    "own_picture_painted_into": "",
}
RUN = """() => new Promise((done) => {
    for (const end of ["execution_success", "execution_error", "execution_interrupted"])
        window.app.api.addEventListener(end, ({ detail }) => done([end, detail.exception_message ?? ""]), { once: true })
    window.app.queuePrompt(0, 1)
})"""


@pytest.fixture(scope="module")
def opened(server):
    """The server, and its page in a browser."""
    with browser() as running:
        yield server, open_page(running, server)


def turn_to(page, kind):
    page.evaluate("on => window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", kind == "nodes 2.0")


def pick(page, template):
    """Open a template by its card, as people do."""
    page.evaluate("() => { window.app.graph.clear(); window.app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
    page.get_by_role("dialog").get_by_text(PACK, exact=True).first.click(timeout=60_000)
    page.get_by_test_id(f"template-workflow-{template}").click(timeout=60_000)
    page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(read(template)["nodes"]))


def read(template):
    return json.loads((WORKFLOW.parent / f"{template}.json").read_text(encoding="utf-8"))


def run(page):
    """Press Run, and wait until the pictures are there."""
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.keyboard.press("Escape")
    page.keyboard.press(".")
    page.wait_for_function(f"""() => Object.values(({SHOWN})()).every(
        ({{ type, pictures }}) => pictures.length || !["MaskInversion", "PreviewImage"].includes(type))""")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", OFFLINE)
def test_a_template_runs_and_shows_what_it_found_with_room_for_it(opened, template, kind):
    _, page = opened
    turn_to(page, kind)
    if kind == "classic":
        pick(page, template)
    else:
        page.evaluate("w => window.app.loadGraphData(w)", read(template))
    page.wait_for_timeout(500)
    page.evaluate(FEW_STEPS)
    run(page)
    photograph(page, f"{template}, {kind}")
    nodes, said = page.evaluate(SHOWN).values(), OFFLINE[template]
    if said:
        assert any(said in text for node in nodes for text in node["texts"])
    else:
        assert all(node["pictures"] for node in nodes if node["type"] == "PreviewImage")
    assert faults(page.evaluate(MEASURE)) == []


DRAWN = """() => [...document.querySelectorAll("[role=dialog] canvas")].filter((canvas) =>
    canvas.width && canvas.getContext("2d")?.getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)).length > 1"""


def test_a_mask_painted_in_the_mask_editor_is_the_region(opened):
    _, page = opened
    turn_to(page, "classic")
    page.evaluate("w => window.app.loadGraphData(w)", read("own_picture_in_words"))
    picture = "window.app.graph.nodes.find((node) => node.type === 'LoadImage')"
    page.wait_for_function(f"() => {picture}?.imgs?.length")
    page.evaluate(f"() => window.app.canvas.selectNode({picture})")
    page.evaluate("() => { window.app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor') }")
    editor = page.get_by_role("dialog")
    page.wait_for_function(DRAWN)  # the picture, and the mask that it brings along, which would come after too early a Clear
    editor.get_by_role("button", name="Clear").click()
    area = editor.locator("canvas").first.bounding_box()
    for row in range(7):  # over the cup
        y = area["y"] + area["height"] * (0.55 + 0.04 * row)
        page.mouse.move(area["x"] + area["width"] * 0.62, y)
        page.mouse.down()
        page.mouse.move(area["x"] + area["width"] * 0.82, y, steps=6)
        page.mouse.up()
    photograph(page, "mask editor")
    editor.get_by_role("button", name="Save").click()
    page.wait_for_function(f"() => {picture}.widgets[0].value !== 'maskinversion_breakfast.png'")
    run(page)
    photograph(page, "a mask of one's own")
    assert any("region 1: cup of coffee" in text for node in page.evaluate(SHOWN).values() for text in node["texts"])


# Around a blueprint: a scene, the nodes that the inputs named so come from, and the one that its first output goes to.
AROUND = """([given, end]) => {
    const [blueprint] = window.app.graph.nodes
    const put = (type, x, y) => {
        const node = window.LiteGraph.createNode(type)
        node.pos = [blueprint.pos[0] + x, blueprint.pos[1] + y]
        window.app.graph.add(node)
        return node
    }
    const slot = (name) => blueprint.inputs.findIndex((input) => input.name === name)
    const scene = put("MaskInversionExample", -520, 0)
    scene.connect(0, blueprint, slot("image"))
    scene.connect(1, blueprint, slot("masks"))
    Object.entries(given).forEach(([name, type], row) => put(type, -520, 180 + 250 * row).connect(0, blueprint, slot(name)))
    const seen = put(end, 480, 0)
    seen.setSize([300, 340])
    blueprint.connect(0, seen, 0)
    window.app.canvas.deselectAll()
    return blueprint.widgets.map((widget) => widget.name)
}"""


def put_blueprint(page, name):
    """Find it in the node search, and click where it shall be. Until then it follows the mouse, and Escape takes it away."""
    page.evaluate("() => window.app.graph.clear()")
    page.wait_for_timeout(500)
    page.mouse.dblclick(800, 250)
    page.get_by_role("combobox", name="Add a node").fill(name)
    page.get_by_role("option").filter(has_text=name).first.click()
    page.wait_for_function("() => window.app.graph.nodes.length === 1")
    page.mouse.move(790, 250)
    page.wait_for_timeout(500)
    page.mouse.click(800, 250)
    page.wait_for_function("() => !window.app.graph.nodes[0].flags.ghost")
    page.mouse.move(300, 850)


@pytest.mark.parametrize("kind", KINDS)
def test_a_blueprint_is_found_by_its_name_and_names_every_region(opened, kind):
    _, page = opened
    turn_to(page, kind)
    put_blueprint(page, "Name every region")
    assert page.evaluate(AROUND, [{}, "PreviewImage"]) == ["phrases", "word_list"]
    run(page)
    photograph(page, f"a blueprint, {kind}")
    assert page.evaluate("() => window.app.graph.nodes.length") == 3


REDUX = ("Region to Redux", ["strength", "hidden_states", "clip_name", "style_model_name"], ("FLUX", "SigLIP", FLUX_TEXT))
WAN = ("Region to Wan reference", ["width", "height", "length", "hidden_states", "clip_name"], ("Wan", "ViT-H", WAN_TEXT))


@pytest.mark.parametrize(("name", "widgets", "miniatures"), [REDUX, WAN])
def test_a_blueprint_tells_other_models_of_regions(opened, name, widgets, miniatures):
    """As the page sends it, with miniatures in place of the files that it asks for."""
    server, page = opened
    turn_to(page, "classic")
    put_blueprint(page, name)
    texts = ["conditioning"] if name == "Region to Redux" else ["positive", "negative"]
    given = dict.fromkeys(texts, "CLIPTextEncode") | ({} if name == "Region to Redux" else {"vae": "VAELoader"})
    assert page.evaluate(AROUND, [given, "TestConditioningState"]) == widgets
    page.keyboard.press(".")
    photograph(page, f"a blueprint, {name}")
    run = server.submit(small(page.evaluate("async () => (await window.app.graphToPrompt()).output"), *miniatures))
    assert not run.error, run.error
    found = json.loads(next(output["text"][0] for output in run.outputs.values() if '"text"' in output.get("text", [""])[0]))
    if name == "Region to Redux":
        assert 8 < found["text"][0][1] < 8 + 3 * 729  # the text's rows, and of three regions' patches those that are covered
    else:
        assert "clip_vision_output" in found["others"]


RESULT = """() => [...document.images].some((image) => image.src.includes("ComfyUI_temp") && image.complete
    && image.naturalWidth === 384 && image.getBoundingClientRect().width > 300)"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_runs_as_an_app(opened, kind):
    """Its inputs, its result and the mask editor, without the graph."""
    _, page = opened
    turn_to(page, kind)
    page.evaluate("w => window.app.loadGraphData(w)", read("own_picture_in_words"))
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Enter app mode").click()
    page.get_by_role("button", name="Open in Mask Editor").wait_for()
    page.get_by_text("phrases", exact=True).filter(visible=True).wait_for()
    assert page.evaluate(RUN) == ["execution_success", ""]
    page.wait_for_function(RESULT)
    photograph(page, f"an app, {kind}")
    page.get_by_role("button", name="Enter node graph").click()


# The page keeps its own pictures as widgets too, whose names begin with $$.
VALUES = """() => Object.fromEntries(
    window.app.graph.nodes.find((node) => node.type === "MaskInversion").widgets
        .filter((widget) => !widget.name.startsWith("$$")).map((widget) => [widget.name, widget.value]))"""
FEW_STEPS = """() => window.app.graph.nodes.flatMap((node) => node.widgets ?? [])
    .filter((widget) => widget.name === "steps").forEach((widget) => { widget.value = 6 })"""
CHOOSE = """([name, value]) => {
    const widget = window.app.graph.nodes.find((node) => node.type === "MaskInversion").widgets.find((one) => one.name === name)
    widget.value = value
    widget.callback(value)
}"""


def test_presets_fill_in_values_that_stay_free_to_change(opened):
    _, page = opened
    page.evaluate("() => { window.app.graph.clear(); window.app.graph.add(window.LiteGraph.createNode('MaskInversion')) }")
    fresh = page.evaluate(VALUES)
    assert fresh["preset"] == "Region" and fresh.items() >= PRESETS["region"].items()
    for name, title in (("context", "Keep context"), ("published", "Region, as published"), ("balanced", "Balanced")):
        page.evaluate(CHOOSE, ["preset", title])
        assert page.evaluate(VALUES).items() >= PRESETS[name].items()
    page.evaluate(CHOOSE, ["iterations", 7])
    changed = page.evaluate(VALUES)
    assert changed["preset"] == "custom" and changed.items() >= (PRESETS["balanced"] | {"iterations": 7}).items()
    saved = page.evaluate("() => window.app.graph.serialize()")
    page.evaluate("w => window.app.loadGraphData(w)", saved)
    page.wait_for_timeout(1000)
    assert page.evaluate(VALUES) == changed


def test_a_workflow_from_before_presets_goes_on_as_it_was(opened):
    _, page = opened
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    (node,) = (node for node in workflow["nodes"] if node["type"] == "MaskInversion")
    node["widgets_values"] = [10, 0.1, 0, 1, 0, "stretch", False, "exact"]  # as it was in version 0.1.0
    node["inputs"] = [entry for entry in node["inputs"] if entry["name"] not in ("empty_masks", "start", "lr_unit", "threshold")]
    next(entry for entry in node["inputs"] if entry["name"] == "region_hidden_states")["type"] = "BOOLEAN"
    page.evaluate("w => window.app.loadGraphData(w)", workflow)
    page.wait_for_timeout(2000)
    found = page.evaluate(VALUES)
    assert found.items() >= PRESETS["published"].items() and found["preset"] == "Region, as published"
    sent = page.evaluate("async () => (await window.app.graphToPrompt()).output")
    (inputs,) = (entry["inputs"] for entry in sent.values() if entry["class_type"] == "MaskInversion")
    assert inputs["start"] == "picture" and inputs["lr_unit"] == "absolute" and "preset" not in inputs
    assert inputs["region_hidden_states"] == "whole picture" and inputs["threshold"] == 0.5
    node["widgets_values"][6] = True
    page.evaluate("w => window.app.loadGraphData(w)", workflow)
    page.wait_for_timeout(2000)
    assert page.evaluate(VALUES)["region_hidden_states"] == "faded by the map"


def test_the_page_reads_every_workflow_as_the_tests_do(opened):
    """So what the tests run without a page is what people run; but for nodes of packs that are not here."""
    server, page = opened
    turn_to(page, "classic")
    known = server.get("/object_info")
    for path in sorted(WORKFLOW.parent.glob("*.json")):
        workflow = json.loads(path.read_text(encoding="utf-8"))
        page.evaluate("w => window.app.loadGraphData(w)", workflow)
        page.wait_for_timeout(800)
        seen = page.evaluate("async () => (await window.app.graphToPrompt()).output")
        for name, entry in as_api(workflow).items():
            if entry["class_type"] in known:
                assert seen[name]["inputs"] == entry["inputs"], (path.stem, entry["class_type"])
