"""What other nodes of ComfyUI, and other packs, make of regions: the templates with miniatures in place of the files they ask for.

The miniatures (helpers/comfy_small_models.py) go through ComfyUI's own loaders and have the widths of the real models where a
consumer asks for them. Text encoders are replaced, for their billions of weights, and pictures end as latents.
"""

import json

import pytest

from tests.helpers.graphs import WORKFLOWS

REDUX, REDUXES, USO = "redux_region", "redux_regions_of_two_pictures", "uso_region"
WAN, ANIMATE, SCAIL, HUNYUAN = "wan_image_to_video_region", "wan_animate_region", "scail2_region", "hunyuan_video15_region"
SVD, ZERO123, PLUS = "svd_region", "zero123_region", "ip_adapter_plus_region"
EMBEDS = {("IPAdapterEmbeds", "pos_embed"): "EMBEDS", ("IPAdapterEmbeds", "neg_embed"): "EMBEDS"}
OTHER_PACKS = {  # nodes of other packs, and the types of those sockets of theirs that ours are connected to
    PLUS: ({"IPAdapterUnifiedLoader", "IPAdapterEmbeds"}, EMBEDS),
    "kolors_region": (
        {"MZ_KolorsUNETLoaderV2", "MZ_ChatGLM3Loader", "MZ_ChatGLM3_V2", "IPAdapterModelLoader", "IPAdapterEmbeds"},
        EMBEDS,
    ),
    "wanvideo_wrapper_region": (
        {
            "LoadWanVideoT5TextEncoder",
            "WanVideoTextEncode",
            "WanVideoModelLoader",
            "WanVideoVAELoader",
            "WanVideoImageToVideoEncode",
            "WanVideoSampler",
            "WanVideoDecode",
        },
        {("WanVideoImageToVideoEncode", "clip_embeds"): "WANVIDIMAGE_CLIPEMBEDS"},
    ),
}
TEMPLATES = (REDUX, REDUXES, USO, WAN, ANIMATE, SCAIL, HUNYUAN, SVD, ZERO123)
FLUX_TEXT, WAN_TEXT, HUNYUAN_TEXT = dict(width=4096, pooled=768), dict(width=4096, pooled=0), dict(width=3584, pooled=768)
SAMPLED = {  # the diffusion model, the encoder, the text, and the shape of a latent
    REDUX: ("FLUX", "SigLIP", FLUX_TEXT, [1, 16, 8, 8]),
    REDUXES: ("FLUX", "SigLIP", FLUX_TEXT, [1, 16, 8, 8]),
    WAN: ("Wan", "ViT-H", WAN_TEXT, [1, 16, 2, 8, 8]),
    ANIMATE: ("Wan Animate", "ViT-H", WAN_TEXT, [1, 16, 3, 8, 8]),
    SCAIL: ("SCAIL 2", "ViT-H", WAN_TEXT, [1, 16, 2, 8, 8]),
    HUNYUAN: ("HunyuanVideo 1.5", "SigLIP", HUNYUAN_TEXT, [1, 32, 2, 4, 4]),
}
ENDS = ("VAEDecode", "PreviewImage", "SaveAnimatedWEBP", "TrimVideoLatent", "CLIPLoader", "DualCLIPLoader", "LoadVideo")


def only(graph, kind):
    return [entry["inputs"] for entry in graph.values() if entry["class_type"] == kind]


def named(graph, kind):
    return next(name for name, entry in graph.items() if entry["class_type"] == kind)


def small(graph, model, encoder, text, vae="video"):
    """A template with miniatures in place of its loaders, at 64 px and in two steps, that ends with a report on the latent."""
    made = {
        "CLIPVisionLoader": ("TestClipVision", {"kind": encoder}),
        "UNETLoader": ("TestDiffusionModel", {"kind": model}),
        "VAELoader": ("TestVAE", {"kind": vae}),
        "StyleModelLoader": ("TestStyleModel", {}),
        "ModelPatchLoader": ("TestUSOPatch", {}),
        "CLIPTextEncode": ("TestText", text),
        "GetVideoComponents": ("TestImage", {"count": 5, "height": 64, "width": 64}),
    }
    checkpoints = {"CheckpointLoaderSimple": (model, None, vae), "ImageOnlyCheckpointLoader": (model, encoder, vae)}
    parts = ("TestDiffusionModel", "TestClipVision", "TestVAE")
    changed, moved = {}, {}
    for name, entry in graph.items():
        kind, inputs = entry["class_type"], dict(entry["inputs"])
        if kind in ENDS:
            continue
        if kind == "LoraLoaderModelOnly":
            moved[name, 0] = inputs["model"]
            continue
        if kind in checkpoints:
            for slot, (part, value) in enumerate(zip(parts, checkpoints[kind], strict=True)):
                if value:
                    changed[f"{name} {slot}"] = {"class_type": part, "inputs": {"kind": value}}
                    moved[name, slot] = [f"{name} {slot}", 0]
            continue
        if kind in made:
            kind, inputs = made[kind][0], dict(made[kind][1])
            if kind == "TestText":
                inputs["seed"] = len(changed)
        elif kind in ("SolidMask", "MaskComposite"):  # of 1024 px
            inputs |= {side: inputs[side] // 16 for side in ("width", "height", "x") if side in inputs}
        else:
            smaller = dict(width=64, height=64, length=5, video_frames=2, steps=2, seed=1, iterations=1, start="picture")
            inputs |= {key: value for key, value in smaller.items() if key in inputs}
        changed[name] = {"class_type": kind, "inputs": inputs}
    for entry in changed.values():
        for name, value in entry["inputs"].items():
            while isinstance(value, list) and tuple(value) in moved:
                value = entry["inputs"][name] = moved[tuple(value)]
    if any(entry["class_type"] == "KSampler" for entry in changed.values()):
        changed["latent"] = {"class_type": "TestLatent", "inputs": {"latent": [named(changed, "KSampler"), 0]}}
    return changed


def latent(server, graph):
    run = server.submit(graph)
    assert not run.error, run.error
    return json.loads(run.text("latent"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_only_the_files_are_missing(server, name):
    """The server finds nothing wrong with a template but that its files are not there, of which it names each."""
    path = WORKFLOWS / f"{name}.json"
    with pytest.raises(ValueError) as refused:
        server.queue(server.read(path))
    found = json.loads(str(refused.value))["node_errors"].values()
    problems = [error for node in found for error in node["errors"]]
    missing = {error["extra_info"].get("received_value") for error in problems if error["type"] == "value_not_in_list"}
    others = [error for error in problems if error["type"] != "value_not_in_list"]
    assert all(error["extra_info"]["input_name"] == "file" for error in others)  # the video of poses
    workflow = json.loads(path.read_text(encoding="utf-8"))
    models = [model for node in workflow["nodes"] for model in node["properties"].get("models", [])]
    assert missing == {model["name"] for model in models} and missing


@pytest.mark.parametrize("name", SAMPLED)
def test_another_region_gives_another_result_and_the_same_region_the_same(server, name):
    *kinds, shape = SAMPLED[name]
    graph = small(server.read(WORKFLOWS / f"{name}.json"), *kinds)
    for inputs in only(graph, "HunyuanVideo15ImageToVideo"):
        del inputs["start_image"]  # it takes a VAE of 32 numbers a latent
    first = latent(server, graph)
    assert first["finite"] and first["shape"] == shape
    pick = only(graph, "MaskInversionPickMasks")[0]
    pick["numbers"] = "1"
    second = latent(server, graph)
    pick["numbers"] = "-3"  # mask 0 by another name
    assert latent(server, graph) == first and second["digest"] != first["digest"]


def quarter(encoder, states, painted=False):
    """FLUX Redux of the upper left quarter of a picture of 384 px; painted: all is red from 208 px on, to the right and below."""
    solid = {"value": 0.0, "width": 384, "height": 384}
    graph = {
        "image": {"class_type": "TestImage", "inputs": {"count": 1, "height": 384, "width": 384}},
        "nothing": {"class_type": "SolidMask", "inputs": solid},
        "part": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 192, "height": 192}},
        "mask": {
            "class_type": "MaskComposite",
            "inputs": {"destination": ["nothing", 0], "source": ["part", 0], "x": 0, "y": 0, "operation": "add"},
        },
        "red": {"class_type": "EmptyImage", "inputs": {"width": 384, "height": 384, "batch_size": 1, "color": 0xFF0000}},
        "clip": {"class_type": "TestClipVision", "inputs": {"kind": encoder}},
        "text": {"class_type": "TestText", "inputs": FLUX_TEXT | {"seed": 0}},
        "style": {"class_type": "TestStyleModel", "inputs": {}},
        "model": {"class_type": "TestDiffusionModel", "inputs": {"kind": "FLUX"}},
        "empty": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    }
    image = ["image", 0]
    if painted:
        for number, (x, y) in enumerate(((208, 0), (0, 208))):
            inputs = {"destination": image, "source": ["red", 0], "x": x, "y": y, "resize_source": False}
            graph[f"painted {number}"] = {"class_type": "ImageCompositeMasked", "inputs": inputs}
            image = [f"painted {number}", 0]
    inversion = {"image": image, "mask": ["mask", 0], "clip": ["clip", 0], "region_hidden_states": states, "iterations": 1}
    rest = dict(threshold=0.4, lr=0.1, alpha=0.0, layers=1, image_size=0, fit="stretch", precision="exact", start="picture")
    applied = {"conditioning": ["text", 0], "style_model": ["style", 0], "clip_vision_output": ["region", 1]}
    sampler = {"model": ["model", 0], "seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple"}
    sampler |= {"positive": ["applied", 0], "negative": ["text", 0], "latent_image": ["empty", 0], "denoise": 1.0}
    return graph | {
        "region": {"class_type": "MaskInversion", "inputs": inversion | rest},
        "output": {"class_type": "TestOutput", "inputs": {"output": ["region", 1], "image": ["image", 0]}},
        "applied": {"class_type": "StyleModelApply", "inputs": applied | {"strength": 1.0, "strength_type": "multiply"}},
        "sampled": {"class_type": "KSampler", "inputs": sampler},
        "latent": {"class_type": "TestLatent", "inputs": {"latent": ["sampled", 0]}},
    }


@pytest.mark.parametrize("states, rows", [("whole picture", 729), ("patches of the region only", 195), ("patches of its box", 196)])
def test_how_many_rows_of_a_quarter_reach_redux(server, states, rows):
    """The quarter is 13.5 patches wide and high, so half of the 14th belongs to it, and a quarter of the one in the corner."""
    run = server.submit(quarter("SigLIP", states))
    assert not run.error, run.error
    assert json.loads(run.text("output"))["last_hidden_state"] == [1, rows, 1152]


@pytest.mark.parametrize("states, same", [("whole picture", False), ("patches of the region only", True)])
def test_rows_that_are_left_out_have_no_influence_on_what_is_painted(server, states, same):
    """With an encoder whose rows do not know of each other, pixels outside of the patches that are kept change nothing."""
    before, after = (latent(server, quarter("SigLIP, unmixed", states, painted)) for painted in (False, True))
    assert before["finite"] and (before == after) is same


def styled(graph, nodes):
    """`quarter` with other nodes between the text and the sampler, and a report on the conditioning."""
    graph = {name: entry for name, entry in graph.items() if name != "applied"}
    last = ["text", 0]
    for number, (kind, inputs) in enumerate(nodes):
        given = {"conditioning": last, "style_model": ["style", 0], "clip_vision_output": ["region", 1]}
        graph[f"applied {number}"] = {"class_type": kind, "inputs": given | inputs}
        last = [f"applied {number}", 0]
    graph["sampled"] = {"class_type": "KSampler", "inputs": graph["sampled"]["inputs"] | {"positive": last}}
    return graph | {"conditioning": {"class_type": "TestConditioningState", "inputs": {"conditioning": last}}}


@pytest.mark.parametrize("strengths", [(1.0,), (0.5,), (0.5, 2.0), (1.0, 0.5)], ids=str)
def test_without_a_mask_it_is_apply_style_model_with_attention_bias(server, strengths):
    graph = quarter("SigLIP", "patches of its box")
    bias = {"strength_type": "attn_bias"}
    core = server.submit(styled(graph, [("StyleModelApply", {"strength": one} | bias) for one in strengths]))
    ours = server.submit(styled(graph, [("MaskInversionStyle", {"strength": one}) for one in strengths]))
    assert not core.error and not ours.error, (core.error, ours.error)
    assert ours.text("conditioning") == core.text("conditioning") and ours.text("latent") == core.text("latent")


def test_a_mask_says_where_in_the_new_picture_a_region_is_seen(server):
    graph = quarter("SigLIP", "patches of its box")
    half = {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 32, "height": 64}}
    black = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 64, "height": 64}}
    left = {"destination": ["black", 0], "source": ["half", 0], "x": 0, "y": 0, "operation": "add"}
    graph |= {"half": half, "black": black, "left": {"class_type": "MaskComposite", "inputs": left}}
    graph = styled(graph, [("MaskInversionStyle", {"strength": 1.0, "mask": ["left", 0]})])
    for name, positive in (("text only", ["text", 0]), ("nowhere", ["black one", 0])):
        graph[name] = {"class_type": "KSampler", "inputs": graph["sampled"]["inputs"] | {"positive": positive}}
    nowhere = graph["applied 0"]["inputs"] | {"mask": ["black", 0]}
    graph["black one"] = {"class_type": "MaskInversionStyle", "inputs": nowhere}
    for name in ("sampled", "nowhere"):
        graph[f"{name}, change"] = {"class_type": "TestCloseLatents", "inputs": {"a": [name, 0], "b": ["text only", 0]}}
    run = server.submit(graph)
    assert not run.error, run.error
    (left, right), nothing = (json.loads(run.text(f"{name}, change")) for name in ("sampled", "nowhere"))
    assert max(nothing) < 1e-3 and left > 10 * max(nothing) and left > 2 * right


def test_masks_go_with_regions_or_are_refused(server):
    graph = quarter("SigLIP", "patches of its box")
    graph["masks"] = {"class_type": "TestMask", "inputs": {"count": 2, "height": 64, "width": 64, "kind": "box"}}
    run = server.submit(styled(graph, [("MaskInversionStyle", {"strength": 1.0, "mask": ["masks", 0]})]))
    assert "1 regions and 2 masks do not go together" in run.error


def test_uso_reads_faded_rows(server):
    """As far as what goes before FLUX's text: the projector's width is that of the real FLUX."""
    graph = small(server.read(WORKFLOWS / f"{USO}.json"), "FLUX", "SigLIP, deep", FLUX_TEXT)
    graph = {name: entry for name, entry in graph.items() if entry["class_type"] not in ("KSampler", "TestLatent", "FluxGuidance")}
    graph["uso"] = {"class_type": "TestUSO", "inputs": {"model": [named(graph, "USOStyleReference"), 0]}}
    found = []
    for number in ("0", "1"):
        only(graph, "MaskInversionPickMasks")[0]["numbers"] = number
        run = server.submit(graph)
        assert not run.error, run.error
        found.append(json.loads(run.text("uso")))
    assert found[0] != found[1] and found[0][:2] == [[1, 4 + 3 * 64, 3072], [1, 4 + 3 * 64, 3]]
    only(graph, "MaskInversion")[0]["region_hidden_states"] = "patches of the region only"
    assert "729" in server.submit(graph).error  # the projector has a weight for each row


@pytest.mark.parametrize("name, encoder, width", [(SVD, "ViT-H", 1024), (ZERO123, "ViT-L", 768 + 4)])
def test_a_token_takes_the_place_of_the_picture(server, name, encoder, width):
    graph = small(server.read(WORKFLOWS / f"{name}.json"), "FLUX", encoder, FLUX_TEXT, "image")
    kinds = ("KSampler", "TestLatent", "VideoLinearCFGGuidance", "TestDiffusionModel")
    graph = {name: entry for name, entry in graph.items() if entry["class_type"] not in kinds}
    replaced = named(graph, "MaskInversionCondition")
    given = graph[replaced]["inputs"]
    report = {"before": given["conditioning"], "after": [replaced, 0], "tokens": given["tokens"]}
    graph["replaced"] = {"class_type": "TestReplaced", "inputs": report}
    run = server.submit(graph)
    assert not run.error, run.error
    found = json.loads(run.text("replaced"))
    assert found["shape"] == [1, 1, width] and found["token"] < 1e-6 < 1e-3 < found["picture"]
    assert found["rest"] == 0 and found["others"]

    only(graph, "MaskInversionPickMasks")[0]["numbers"] = "0, 1"
    assert "there are 2 tokens, and the model takes one" in server.submit(graph).error


def test_a_token_of_another_clip_is_refused(server, defaults):
    graph = small(server.read(WORKFLOWS / f"{SVD}.json"), "FLUX", "ViT-H", FLUX_TEXT, "image")
    graph["other"] = {"class_type": "TestClipVision", "inputs": {"kind": "ViT-L"}}
    only(graph, "MaskInversion")[0]["clip"] = ["other", 0]
    replaced = [named(graph, "MaskInversionCondition"), 0]
    graph = {name: entry for name, entry in graph.items() if entry["class_type"] not in ("KSampler", "TestLatent")}
    graph["state"] = {"class_type": "TestConditioningState", "inputs": {"conditioning": replaced}}
    assert "vectors of 1024 numbers and the token has 768" in server.submit(graph).error


def test_hidden_states_for_other_packs(server):
    graph = server.read(WORKFLOWS / f"{PLUS}.json")
    wanted = ("CLIPVisionLoader", "MaskInversionExample", "MaskInversionPickMasks", "MaskInversion", "MaskInversionPlusEmbeds")
    graph = small({name: entry for name, entry in graph.items() if entry["class_type"] in wanted}, "FLUX", "ViT-H", FLUX_TEXT)
    clip, region, plus = (named(graph, kind) for kind in ("TestClipVision", "MaskInversion", "MaskInversionPlusEmbeds"))
    only(graph, "MaskInversionPickMasks")[0]["numbers"] = "0, 1"
    only(graph, "MaskInversion")[0]["region_hidden_states"] = "faded by the mask"
    black = {"width": 224, "height": 224, "batch_size": 1, "color": 0}
    graph |= {
        "black": {"class_type": "EmptyImage", "inputs": black},
        "nothing": {"class_type": "CLIPVisionEncode", "inputs": {"clip_vision": [clip, 0], "image": ["black", 0], "crop": "none"}},
        "wan": {
            "class_type": "MaskInversionWanEmbeds",
            "inputs": {"clip_vision_output": [region, 1], "strength": 0.5, "negative": ["nothing", 0]},
        },
    }
    report = {"pos_embed": [plus, 0], "neg_embed": [plus, 1], "wan": ["wan", 0], "region": [region, 1], "black": ["nothing", 0]}
    graph["report"] = {"class_type": "TestStates", "inputs": report}
    run = server.submit(graph)
    assert not run.error, run.error
    found = json.loads(run.text("report"))
    assert found["pos"] == [2, 257, 1280] and found["neg"] == [1, 257, 1280] and found["wan"] == [1, 514, 1280]
    assert found["same"] and found["black"] < 1e-4 and found["rows"] < 1e-6 and found["negative"]


@pytest.mark.parametrize("name", OTHER_PACKS)
def test_a_template_for_another_pack_needs_that_pack_only(server, name):
    """All nodes but the pack's are known, and what goes into those is of the type they ask for."""
    kinds, sockets = OTHER_PACKS[name]
    graph = server.read(WORKFLOWS / f"{name}.json")
    known = server.get("/object_info")
    assert {entry["class_type"] for entry in graph.values()} - known.keys() == kinds
    for (kind, socket), type_name in sockets.items():
        source, output = only(graph, kind)[0][socket]
        made = known[graph[source]["class_type"]]
        assert made["output"][output] == type_name and made["output_name"][output] == socket
