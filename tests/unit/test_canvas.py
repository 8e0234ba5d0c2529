"""What the page's tests call wrong on the canvas."""

import pytest

from tests.helpers.canvas import faults


def canvas(*boxes, wires=()):
    nodes = [{"id": str(number), "type": "Node", "box": list(box)} for number, box in enumerate(boxes)]
    return {"nodes": nodes, "wires": [{"from": a, "to": b, "start": s, "end": e} for a, b, s, e in wires]}


@pytest.mark.parametrize(
    ("measured", "word"),
    [
        (canvas((0, 0, 10, 10), (20, 0, 10, 10), wires=[("0", "1", (10, 5), (20, 5))]), None),
        (canvas((0, 0, 10, 10), (5, 5, 10, 10)), "lies on"),
        (canvas((0, 0, 10, 10), (0, 20, 10, 10), wires=[("0", "1", (10, 5), (0, 25))]), "goes back"),
        (canvas((0, 0, 10, 10), (40, 0, 10, 10), (20, 0, 10, 10), wires=[("0", "1", (10, 5), (40, 5))]), "crosses"),
        (canvas((0, 0, 10, 10), (40, 0, 10, 10), (20, 20, 10, 10), wires=[("0", "1", (10, 5), (40, 5))]), None),
    ],
)
def test_a_fault_is_found(measured, word):
    found = faults(measured)
    assert (not found) if word is None else any(word in line for line in found)
