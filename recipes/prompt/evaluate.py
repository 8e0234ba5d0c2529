"""Does the prompt of a region name what is in it? Tokens of MaskInversion against the whole picture and masked crops.

    python -m recipes.prompt.evaluate      # prints a Markdown table, writes recipes/build/prompt-evaluation.json

For each object of 200 scenes in the style that nothing was trained on, a quarter of each kind, one prompt. The things to choose
from are the 98 names that the bundled CLIP knows. `named`: the object's name is in the prompt, word for word, the longest name
first; `no other`: it is, and no name of another object of the scene. Intervals are 95% Wilson intervals with scenes as the unit.
"""

import numpy as np
import torch

import maskinversion as mi
from maskinversion.evaluation.protocols import wilson
from maskinversion.settings import PRESETS
from maskinversion.tasks.phrases import PROMPT_LISTS, prompt_phrases
from maskinversion.tasks.prompt import describe
from recipes.captioner.evaluate import named
from recipes.common.arguments import parser
from recipes.common.evaluation import crops, interval, write_report
from recipes.common.scenes import KINDS, Scene, Scenes, usual_counts
from recipes.common.sprites import STYLES

METHODS = ("whole picture", "masked crop", "MaskInversion, as published", "MaskInversion, region")
# Lists, and most phrases of each.
PROMPTS = {"one thing": (PROMPT_LISTS[:1], 1), "up to three things": (PROMPT_LISTS[:1], 3), "all seven lists": (PROMPT_LISTS, 1)}


def embeddings(clip: mi.Clip, scene: Scene) -> dict[str, torch.Tensor]:
    published, inverter = (mi.MaskInverter(clip, **PRESETS[preset]) for preset in ("published", "region"))
    encoded = inverter.encode(scene.image)
    found = (
        encoded.global_embedding.expand(len(scene.masks), -1),
        torch.stack([inverter.encode(image).global_embedding for image in crops(scene)[1]]),
        published.invert(encoded, scene.masks).embeddings,
        inverter.invert(encoded, scene.masks).embeddings,
    )
    return dict(zip(METHODS, found, strict=True))


def main() -> None:
    options = parser(__spec__.name, __doc__)
    options.add_argument("--scenes", type=int, default=200)
    options.add_argument("--style", choices=STYLES, default="held-out")
    options.add_argument("--seed", type=int, default=10_000)
    args = options.parse_args()
    clip = mi.load_clip("bundled")
    source = Scenes(STYLES[args.style])
    rng = np.random.default_rng(args.seed)
    scenes = []
    for number in range(args.scenes):
        kind = KINDS[number % len(KINDS)]
        scenes.append(source.draw(rng, kind, int(rng.choice(usual_counts(kind))), augment=False))
    found = [embeddings(clip, scene) for scene in scenes]
    groups = np.repeat(np.arange(len(scenes)), [len(scene.classes) for scene in scenes])
    report = []
    print("| prompt | made of | named | no other |\n|---|---|---|---|")
    for prompt, (kinds, each) in PROMPTS.items():
        lists = {name: prompt_phrases(name, clip.name) for name in kinds}
        for method in METHODS:
            hits = []
            for scene, each_way in zip(scenes, found, strict=True):
                here = {source.names[c] for c in scene.classes}
                for c, made in zip(scene.classes, describe(each_way[method], clip, lists, each=each), strict=True):
                    said = named(made.text, source.names) & here
                    hits.append((source.names[c] in said, said == {source.names[c]}))
            shares = [wilson(column, groups=groups) for column in np.array(hits, float).T]
            print(f"| {prompt} | {method} | {' | '.join(map(interval, shares))} |", flush=True)
            report.append({"prompt": prompt, "method": method, "objects": len(hits), "named": shares[0], "no other": shares[1]})
    write_report("prompt-evaluation.json", report)


if __name__ == "__main__":
    main()
