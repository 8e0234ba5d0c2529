// Templates for a picture of one's own begin with one of ours, with a mask painted on it: it is put into ComfyUI's input folder
// when such a template is opened, and not before.
import { app } from "../../scripts/app.js"

const PICTURE = "maskinversion_breakfast.png"
const holds = (node) => node.type === "LoadImage" && node.widgets_values?.[0] === PICTURE

async function upload() {
  const picture = await fetch(new URL(`./examples/${PICTURE}`, import.meta.url))
  const body = new FormData()
  body.append("image", await picture.blob(), PICTURE) // where it is already, ComfyUI keeps that one
  await app.api.fetchApi("/upload/image", { method: "POST", body })
}

app.registerExtension({
  name: "maskinversion.examplepicture",
  async beforeConfigureGraph(graph) {
    if (graph.nodes?.some(holds)) await upload().catch((error) => console.warn("MaskInversion could not bring its example picture", error))
  },
  afterConfigureGraph() {
    for (const node of app.graph.nodes.filter((one) => one.type === "LoadImage")) {
      const image = node.widgets?.find((widget) => widget.name === "image")
      const names = image?.options?.values
      if (image?.value === PICTURE && Array.isArray(names) && !names.includes(PICTURE)) names.push(PICTURE)
    }
  },
})
