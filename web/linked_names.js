// The name beside an input that is a box of text and is connected: the classic page hides the box, and the name with it.
import { app } from "../../scripts/app.js"

function nameless(node) {
  const boxes = new Set(node.widgets?.filter((widget) => widget.element).map((widget) => widget.name))
  return (node.inputs ?? []).map((input, slot) => [input, slot]).filter(([input]) => input.link != null && boxes.has(input.widget?.name))
}

app.registerExtension({
  name: "maskinversion.linkednames",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("MaskInversion")) return
    const { onDrawForeground } = nodeType.prototype
    nodeType.prototype.onDrawForeground = function (context) {
      onDrawForeground?.apply(this, arguments)
      if (this.flags.collapsed || app.canvas.low_quality) return
      context.save()
      context.font = `${LiteGraph.NODE_SUBTEXT_SIZE}px ${LiteGraph.NODE_FONT ?? "Arial"}`
      context.fillStyle = LiteGraph.NODE_TEXT_COLOR
      context.textAlign = "left"
      for (const [input, slot] of nameless(this)) {
        const [x, y] = this.getInputPos(slot)
        context.fillText(input.label ?? input.localized_name ?? input.name, x - this.pos[0] + 10, y - this.pos[1] + 5)
      }
      context.restore()
    }
  },
})
