"""Prompts with regions in them, and pipelines that read hidden states, as nodes in a real ComfyUI; miniatures of random weights."""

import pytest

from tests.comfy.test_diffusion_nodes import generating, inpainting, two  # noqa: F401
from tests.helpers import small_adapters, small_priors
from tests.helpers.graphs import WORKFLOWS, node


@pytest.fixture(scope="module")
def prior(server):
    small_priors.write(server.base / "models" / "diffusers" / "small-prior", ".bin")


@pytest.fixture(scope="module")
def plus(server, pipelines):
    """An IP-Adapter Plus for the pipeline `sd`, which reads the bundled CLIP's hidden states."""
    file = small_adapters.write_newer_adapter("sd", server.base / "models" / "diffusers")
    file.rename(server.base / "models" / "ipadapter" / "plus.safetensors")


def prompting(graph, source="folder", **inputs):
    """A picture of a prompt with the first of two regions in it."""
    chosen = {"source": source} | ({"source.folder": "small-prior"} if source == "folder" else {})
    given = {"prior": ["prior", 0], "clip": ["clip", 0], "tokens": ["picked", 0]}
    given |= {"prompt": "a fox beside a cup", "subjects": "fox", "seed": 0}
    graph = generating(graph, "kandinsky", tokens=["prompted", 0])
    return graph | {
        "prior": {"class_type": "MaskInversionLoadPrior", "inputs": chosen},
        "picked": {"class_type": "MaskInversionPick", "inputs": {"tokens": ["inversion", 0], "numbers": "0"}},
        "prompted": {"class_type": "MaskInversionPrior", "inputs": given | inputs},
    }


def picture(server, graph):
    run = server.submit(graph)
    assert not run.error, run.error
    return [image.tobytes() for image in server.images(run, "shown")]


def test_a_prompt_with_a_region_in_it_makes_one_picture(server, two, prior):  # noqa: F811
    first = picture(server, prompting(two))
    assert len(first) == 1
    assert picture(server, prompting(two, subjects="cup")) != first
    assert picture(server, prompting(two, subjects="fox, cup", tokens=["inversion", 0])) != first
    assert picture(server, prompting(two, edges=["picked", 0])) != first


def test_a_region_in_a_prompt_offline(server):
    """The template on the bundled models: what its token shows is that there is both."""
    graph = server.read(WORKFLOWS / "region_in_a_prompt.json")
    assert node(graph, "MaskInversionPrior") == graph[node(graph, "MaskInversionGenerate")]["inputs"]["tokens"][0]
    graph[node(graph, "MaskInversionGenerate")]["inputs"] |= {"steps": 2, "count": 1}
    graph["scores"] = {"class_type": "PreviewAny", "inputs": {"source": [node(graph, "MaskInversionClassify"), 1]}}
    run = server.submit(graph)
    assert not run.error, run.error
    assert [picture.size for picture in server.images(run, node(graph, "PreviewImage"))] == [(4 * 64, 4 * 64)]
    best = [line.split("\t")[1] for line in run.text("scores").split("\n")[:2]]
    assert {*best} == {"fox", "cup of coffee"}


def test_what_does_not_go_into_a_prompt_is_said(server, two, prior):  # noqa: F811
    assert "the prompt 'a fox beside a cup' has no 'wolf'" in server.submit(prompting(two, subjects="wolf")).error
    assert "there are 2 tokens and 1 subjects" in server.submit(prompting(two, tokens=["inversion", 0])).error
    assert "there is no subject: write the word" in server.submit(prompting(two, subjects=" , ")).error


def test_the_page_offers_priors_and_explains_them(server, prior):
    found = server.get("/object_info/MaskInversionLoadPrior")["MaskInversionLoadPrior"]["input"]["required"]
    assert "'small-prior'" in str(found["source"]) and "'sd'" not in str(found["source"])
    for name in ("LoadPrior", "Prior"):
        assert len(server.fetch(f"/extensions/maskinversion-pack/docs/MaskInversion{name}.md")) > 200


def test_a_pipeline_that_reads_hidden_states_gets_them(server, two, plus):  # noqa: F811
    two["nothing"] = {"class_type": "MaskInversionNothing", "inputs": {"clip": ["clip", 0], "picture": "grey"}}
    states = {"hidden_states": ["inversion", 1], "negative_hidden_states": ["nothing", 1]}

    def with_plus(graph):
        graph["pipeline"]["inputs"]["ip_adapter"] = "plus.safetensors"
        return graph

    pictures = picture(server, with_plus(generating(two, "sd", **states)))
    assert len(set(pictures)) == 2
    painted = server.submit(with_plus(inpainting(two, "sd", **states)))
    assert not painted.error, painted.error
    assert "connect clip_vision_output of MaskInversion" in server.submit(with_plus(generating(two, "sd"))).error
    alone = with_plus(generating(two, "sd", hidden_states=["inversion", 1]))
    assert "give those of Token of Nothing as negative" in server.submit(alone).error
    changed = with_plus(generating(two, "sd", **states | {"hidden_states": ["picked", 1], "tokens": ["picked", 0]}))
    changed["picked"] = {"class_type": "MaskInversionPick", "inputs": {"tokens": ["inversion", 0], "numbers": "0"}}
    assert "but not the penultimate_hidden_states that this node reads" in server.submit(changed).error
