"""What is where on the page's canvas, and what is wrong with it."""

import numpy as np

# Of every node its place with its title, as it is seen, and of every wire its two ends; of the page that is open.
MEASURE = """() => {
    const { canvas, graph } = window.app
    const { scale, offset } = canvas.ds
    const area = canvas.canvas.getBoundingClientRect()
    const nodes = graph.nodes.map((node) => {
        const element = window.LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`)
        if (!element) return { id: String(node.id), type: node.type, box: [...node.getBounding()] }
        const seen = element.getBoundingClientRect()
        const box = [(seen.left - area.left) / scale - offset[0], (seen.top - area.top) / scale - offset[1]]
        return { id: String(node.id), type: node.type, box: [...box, seen.width / scale, seen.height / scale] }
    })
    const wires = [...graph.links.values()].map((link) => {
        const [from, to] = [graph.getNodeById(link.origin_id), graph.getNodeById(link.target_id)]
        return { from: String(from.id), to: String(to.id), start: [...from.getOutputPos(link.origin_slot)],
                 end: [...to.getInputPos(link.target_slot)] }
    })
    return { nodes, wires }
}"""
# Of every node what it shows: its pictures' sizes and its texts.
SHOWN = """() => Object.fromEntries(window.app.graph.nodes.map((node) => {
    const element = window.LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`)
    const pictures = element ? [...element.querySelectorAll("img")] : node.imgs ?? []
    const boxes = element
        ? [...element.querySelectorAll("textarea")]
        : (node.widgets ?? []).map((widget) => widget.element).filter((box) => box?.tagName === "TEXTAREA" && box.isConnected)
    return [String(node.id), {
        type: node.type,
        pictures: pictures.filter((one) => one.complete && one.naturalWidth).map((one) => [one.naturalWidth, one.naturalHeight]),
        texts: boxes.map((box) => box.value),
    }]
}))"""
STEPS = np.linspace(0, 1, 50)[:, None]


def faults(measured: dict) -> list[str]:
    """Nodes that lie on each other, wires that go back, and wires that cross a node that is not theirs."""
    boxes = {node["id"]: np.array(node["box"]) for node in measured["nodes"]}
    names = {node["id"]: f"{node['type']} ({node['id']})" for node in measured["nodes"]}
    found = []
    for number, one in enumerate(boxes):
        for other in list(boxes)[number + 1 :]:
            (x, y, w, h), (u, v, p, q) = boxes[one], boxes[other]
            if x < u + p and u < x + w and y < v + q and v < y + h:
                found.append(f"{names[one]} lies on {names[other]}")
    for wire in measured["wires"]:
        start, end = np.array(wire["start"]), np.array(wire["end"])
        what = f"the wire from {names[wire['from']]} to {names[wire['to']]}"
        if end[0] <= start[0]:
            found.append(f"{what} goes back")
        points = spline(start, end)
        for name in boxes.keys() - {wire["from"], wire["to"]}:
            x, y, w, h = boxes[name]
            inside = (points > (x, y)) & (points < (x + w, y + h))
            if inside.all(1).any():
                found.append(f"{what} crosses {names[name]}")
    return found


def spline(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Points [N, 2] of a wire as the page draws it."""
    reach = np.array([np.hypot(*(end - start)) / 4, 0])
    t = STEPS
    return (1 - t) ** 3 * start + 3 * (1 - t) ** 2 * t * (start + reach) + 3 * (1 - t) * t**2 * (end - reach) + t**3 * end
