// The presets of MaskInversion: choosing one fills in the values above it, each of which stays free to change.
import { app } from "../../scripts/app.js"

const CUSTOM = "custom"

function matching(node, presets) {
  const same = ([, values]) => Object.entries(values).every(([name, value]) => valueOf(node, name)?.value === value)
  return Object.entries(presets).find(same)?.[0] ?? CUSTOM
}

function valueOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)
}

function addPresets(node, presets) {
  const choose = (name) => {
    for (const [field, value] of Object.entries(presets[name] ?? {})) valueOf(node, field).value = value
  }
  // It comes last, and is not saved: the page saves the values of a node by their places.
  const preset = node.addWidget("combo", "preset", matching(node, presets), choose, { values: [...Object.keys(presets), CUSTOM], serialize: false })
  preset.serialize = false
  preset.tooltip = "Sets of values to begin with: the region only (best for most), as the paper has it, with some of its surroundings, or mostly the whole picture."
  for (const field of Object.keys(Object.values(presets)[0])) {
    const widget = valueOf(node, field)
    const changed = widget.callback
    widget.callback = function () {
      const result = changed?.apply(this, arguments)
      preset.value = matching(node, presets)
      return result
    }
  }
  return preset
}

app.registerExtension({
  name: "maskinversion.presets",
  beforeRegisterNodeDef(nodeType, nodeData) {
    const start = nodeData.input?.optional?.start?.[1]
    if (nodeData.name !== "MaskInversion" || !start?.presets) return
    const { onNodeCreated, onConfigure } = nodeType.prototype
    nodeType.prototype.onNodeCreated = function () {
      const result = onNodeCreated?.apply(this, arguments)
      this.maskinversionPreset = addPresets(this, start.presets)
      return result
    }
    nodeType.prototype.onConfigure = function (saved) {
      const result = onConfigure?.apply(this, arguments)
      const place = this.widgets.findIndex((widget) => widget.name === "start")
      if (Array.isArray(saved.widgets_values) && saved.widgets_values.length <= place) {
        // Saved before there was a choice: it goes on as it was.
        valueOf(this, "start").value = "picture"
        valueOf(this, "lr_unit").value = "absolute"
      }
      const hidden = valueOf(this, "region_hidden_states")
      // It was yes or no once.
      if (typeof hidden?.value === "boolean") hidden.value = hidden.options.values[hidden.value ? 1 : 0]
      this.maskinversionPreset.value = matching(this, start.presets)
      return result
    }
  },
})
