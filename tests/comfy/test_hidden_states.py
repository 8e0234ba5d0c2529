"""Hidden states of regions in the node MaskInversion, of the bundled CLIP; of native models in test_native_clip_vision.py."""

import json

import pytest

from tests.helpers.graphs import inversion

BY_MAP = ("faded by the map", "patches of the map only")
WAYS = (*BY_MAP, "faded by the mask", "patches of the region only", "patches of its box")


def compared(defaults, ways, images=1, masks=1, **settings):
    """A graph with a report for each of several values of the widget."""
    graph = inversion(defaults, images, masks, "corners", (96, 96), iterations=2, **settings)
    graph["image"]["inputs"] |= {"height": 96, "width": 96}
    for way in ways:
        inputs = graph["inversion"]["inputs"] | {"region_hidden_states": way}
        seen = ["inversion", 2] if way in BY_MAP else ["mask", 0]
        graph[str(way)] = {"class_type": "MaskInversion", "inputs": inputs}
        report = {"whole": ["inversion", 1], "region": [str(way), 1], "seen": seen, "choice": str(way)}
        graph[f"{way}: report"] = {"class_type": "TestRegion", "inputs": report}
    return graph


def reports(run, ways):
    assert not run.error, run.error
    return {way: json.loads(run.text(f"{way}: report")) for way in ways}


@pytest.mark.parametrize("images, masks", [(1, 1), (1, 3), (3, 3)])
def test_each_way_is_what_it_says(server, defaults, images, masks):
    found = reports(server.submit(compared(defaults, WAYS, images, masks)), WAYS)
    for way, report in found.items():
        assert max(report["errors"]) < 1e-6, way
    assert len({report["digest"] for report in found.values()}) == len(WAYS)
    rows = {way: report["last_hidden_state"][1] for way, report in found.items()}
    assert rows["faded by the map"] == rows["faded by the mask"] == 145 > rows["patches of the region only"]
    box = found["patches of its box"]
    (height, width) = box["image_sizes"][0][1:]
    assert box["image_sizes"] == [[3, height, width]] * masks and height // 8 * (width // 8) + 1 == rows["patches of its box"]


def test_graphs_from_before_there_was_a_choice_go_on(server, defaults):
    ways = (False, True, "whole picture", "faded by the map")
    no, yes, whole, faded = reports(server.submit(compared(defaults, ways)), ways).values()
    assert no["digest"] == whole["digest"] != yes["digest"] == faded["digest"]


def test_another_word_is_refused_with_those_there_are(server, defaults):
    with pytest.raises(ValueError, match="'the pixels'; it must be one of whole picture, faded by the map"):
        server.queue(inversion(defaults, region_hidden_states="the pixels"))


def test_the_threshold_decides_which_patches_belong_to_the_region(server, defaults):
    way = "patches of the region only"
    few, many = (
        reports(server.submit(compared(defaults, [way], threshold=threshold)), [way])[way]["last_hidden_state"][1]
        for threshold in (1.0, 0.0)
    )
    assert 1 < few <= many
