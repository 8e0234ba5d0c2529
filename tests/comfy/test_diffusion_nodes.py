"""Loading pipelines, generating and inpainting as nodes in a real ComfyUI; miniatures of random weights."""

import asyncio
import json
import time

import aiohttp
import pytest

from tests.helpers.graphs import inversion
from tests.helpers.small_pipelines import NAMES, loader

SAMPLING = dict(width=32, height=32, steps=2, guidance=3.0, count=1, seed=1, prompt="", negative_prompt="", adapter_scale=1.0)


@pytest.fixture
def two(defaults, pipelines):
    """Two tokens of one picture of 48 x 64 px, with its mask."""
    graph = inversion(defaults, masks=2, iterations=2)
    del graph["report"]
    return graph


def generating(graph, name, **sampling):
    inputs = SAMPLING | {"pipeline": ["pipeline", 0], "tokens": ["inversion", 0]} | sampling
    return graph | {
        "pipeline": loader(name),
        "made": {"class_type": "MaskInversionGenerate", "inputs": inputs},
        "shown": {"class_type": "PreviewImage", "inputs": {"images": ["made", 0]}},
    }


def inpainting(graph, name, **sampling):
    graph = generating(graph, name)
    graph["hole"] = {"class_type": "TestMask", "inputs": {"count": 1, "height": 48, "width": 64, "kind": "box"}}
    inputs = graph["made"]["inputs"] | {"image": ["image", 0], "mask": ["hole", 0], "feather": 2} | sampling
    graph["made"] = {"class_type": "MaskInversionInpaint", "inputs": inputs}
    graph["compared"] = {
        "class_type": "TestOutside",
        "inputs": {"image": ["image", 0], "mask": ["hole", 0], "result": ["made", 0]},
    }
    return graph


@pytest.mark.parametrize("name", ["kandinsky", "unclip", "sd", "sdxl"])
def test_pictures_from_tokens(server, two, name):
    run = server.submit(generating(two, name, count=2))
    assert not run.error, run.error
    pictures = server.images(run, "shown")
    assert [picture.size for picture in pictures] == [(32, 32)] * 4
    assert len({picture.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize("name", ["kandinsky-inpaint", "sd", "sdxl"])
def test_inpainting_changes_nothing_outside_the_mask(server, two, name):
    run = server.submit(inpainting(two, name))
    assert not run.error, run.error
    found = json.loads(run.text("compared"))
    assert found["shape"] == [2, 48, 64, 3] and found["same outside"] and found["changed inside"] > 0.9


def test_the_token_of_nothing_is_a_negative(server, two):
    two["nothing"] = {"class_type": "MaskInversionNothing", "inputs": {"clip": ["clip", 0], "picture": "grey"}}
    plain = server.submit(generating(two, "kandinsky"))
    led = server.submit(generating(two, "kandinsky", negative=["nothing", 0]))
    assert not led.error, led.error
    assert server.images(plain, "shown")[0].tobytes() != server.images(led, "shown")[0].tobytes()


def test_the_page_offers_what_is_in_the_models_folder(server, pipelines):
    found = server.get("/object_info/MaskInversionLoadPipeline")["MaskInversionLoadPipeline"]["input"]["required"]
    assert found["ip_adapter"][1]["options"] == ["(none)", "adapter_sd.safetensors", "adapter_sdxl.safetensors"]
    assert all(name in json.dumps(found["source"]) for name in NAMES)
    for name in ("LoadPipeline", "Generate", "Inpaint"):
        info = server.get(f"/object_info/MaskInversion{name}")[f"MaskInversion{name}"]
        assert info["category"] == "MaskInversion/diffusers" and info["description"]
        assert len(server.fetch(f"/extensions/maskinversion-pack/docs/MaskInversion{name}.md")) > 200


def test_what_is_wrong_is_said(server, two):
    assert (
        "reads text only: choose an IP-Adapter"
        in server.submit(generating(two, "sd") | {"pipeline": loader("sd", ip_adapter="(none)")}).error
    )
    hub = {"source": "hub", "source.name": "../../etc", "ip_adapter": "(none)", "dtype": "auto", "offload": False}
    graph = generating(two, "sd") | {"pipeline": {"class_type": "MaskInversionLoadPipeline", "inputs": hub}}
    assert "write OWNER/NAME" in server.submit(graph).error
    assert "only paints into pictures" in server.submit(generating(two, "kandinsky-inpaint")).error
    assert "kandinsky-2-2-decoder-inpaint" in server.submit(inpainting(two, "kandinsky")).error
    assert (
        "are of bundled, which is not the CLIP that unclip was trained with" in server.submit(generating(two, "other/unclip")).error
    )
    batch = inpainting(two, "sd") | {"image": {"class_type": "TestImage", "inputs": {"count": 2, "height": 48, "width": 64}}}
    assert "2 pictures to paint into; give one" in server.submit(batch).error


@pytest.mark.slow
def test_an_interrupt_stops_it_and_the_next_run_is_as_before(server, two):
    expected = server.images(server.submit(generating(two, "kandinsky")), "shown")[0].tobytes()
    prompt = server.queue(generating(two, "kandinsky", steps=1000, seed=2))
    time.sleep(3)
    assert server.get("/queue")["queue_running"]
    server.post("/interrupt", {})
    asked = time.monotonic()
    run = server.wait(prompt)
    assert run.interrupted and "shown" not in run.outputs and time.monotonic() - asked < 3
    assert server.images(server.submit_anew(generating(two, "kandinsky")), "shown")[0].tobytes() == expected


def test_progress_comes_with_previews(server, two):
    """What the page is told while a graph runs: every step, and pictures."""
    graph = generating(two, "sd", steps=20, seed=11)

    async def listen():
        steps, previews = [], 0
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=test") as socket:
            await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
            server.post("/prompt", {"prompt": graph, "client_id": "test"})
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    previews += 1
                    continue
                told = json.loads(message.data)
                if told["type"] == "progress_state" and "made" in told["data"]["nodes"]:
                    made = told["data"]["nodes"]["made"]
                    steps.append((made["value"], made["max"]))
                if told["type"] in ("execution_success", "execution_error"):
                    return told["type"], steps, previews

    ended, steps, previews = asyncio.run(asyncio.wait_for(listen(), 60))
    assert ended == "execution_success" and steps[-1] == (40, 40) and previews >= 2
