// What a node found, shown on the node itself, by both kinds of pages.
import { app } from "../../scripts/app.js"
import { ComfyWidgets } from "../../scripts/widgets.js"

const RESULT = "result"

// A widget for words: the page shows `ui.text` on nodes of its own only.
function resultOf(node) {
  const there = node.widgets?.find((widget) => widget.name === RESULT)
  if (there) return there
  const { widget } = ComfyWidgets.STRING(node, RESULT, ["STRING", { multiline: true }], app)
  // It comes last, and is not saved: the page saves the values of a node by their places.
  widget.serialize = false
  Object.assign(widget.options, { serialize: false, read_only: true })
  if (widget.inputEl) widget.inputEl.readOnly = true
  return widget
}

// The page would go on showing the last preview of the run in place of the result (classic) or beside it (Nodes 2.0).
function dropPreview(node) {
  const key = node.graph?.isRootGraph === false ? `${node.graph.id}:${node.id}` : String(node.id)
  const stores = document.getElementById("vue-app")?.__vue_app__?.config.globalProperties.$pinia?._s
  stores?.get("nodeOutput")?.revokePreviewsByLocatorId?.(key)
  delete app.nodePreviewImages?.[key]
}

app.registerExtension({
  name: "maskinversion.results",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("MaskInversion")) return
    const { onExecuted } = nodeType.prototype
    nodeType.prototype.onExecuted = function (output) {
      const result = onExecuted?.apply(this, arguments)
      if (output?.images) dropPreview(this)
      const words = output?.text?.join("\n") ?? ""
      if (words || this.widgets?.some((widget) => widget.name === RESULT)) resultOf(this).value = words
      return result
    }
  },
})
