"""Nodes for tests: they make inputs that no real node makes, and look at values that a client never sees.

Copied into the custom_nodes of the tests' ComfyUI server.
"""

import hashlib
import json
import sys
from collections import namedtuple

import numpy
import torch


def digest(*tensors):
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return total.hexdigest()


class TestImage:
    INPUT_TYPES = classmethod(lambda s: {"required": {"count": ("INT",), "height": ("INT",), "width": ("INT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "make", "test"

    def make(self, count, height, width):
        return (torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(0)),)


class TestMask:
    INPUT_TYPES = classmethod(
        lambda s: {"required": {"count": ("INT",), "height": ("INT",), "width": ("INT",), "kind": ("STRING",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("MASK",), "make", "test"

    def make(self, count, height, width, kind):
        masks = torch.zeros(count, height, width)
        for i, mask in enumerate(masks):
            mask[height // 8 : height // 2 + i, width // 4 : width // 2] = 1
            if kind == "corners":
                mask[height // 2 + i : 3 * height // 4, width // 2 : 3 * width // 4] = 1
        if kind == "last empty":
            masks[-1] = 0
        elif kind == "last nan":
            masks[-1, 0, 0] = float("nan")
        elif kind == "two dimensions":
            masks = masks[0]
        elif kind == "four dimensions":
            masks = masks[:, None]
        elif kind == "five dimensions":
            masks = masks[None, None]
        return (masks,)


class TestPlainEncode:
    """The model's own forward pass, without the library."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"clip": ("MASKINVERSION_CLIP",), "image": ("IMAGE",)}, "optional": {"after": ("MASK",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("IMAGE",), "look", "test", True

    def look(self, clip, image, after=None):
        model = clip.ready().model
        pixels = torch.nn.functional.interpolate(image.movedim(-1, 1), size=model.visual.image_size)
        text = digest(model.encode_image(pixels), *model.state_dict().values())
        return {"ui": {"text": [text]}, "result": (image,)}


class TestFault:
    """What people connect by mistake; kind names it."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"kind": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE", "MASK"), "make", "test"

    def make(self, kind):
        image = torch.rand(1, 48, 64, 3, generator=torch.Generator().manual_seed(0))
        mask = torch.zeros(1, 48, 64)
        mask[:, 6:24, 16:32] = 1
        if kind == "nothing":
            image, mask = image[:0], mask[:0]
        elif kind == "NaN":
            image[0, 0, 0, 0] = mask[0, 0, 0] = float("nan")
        elif kind == "black":
            image, mask = torch.zeros_like(image), torch.zeros_like(mask)
        elif kind == "another size":
            image, mask = image[:, ::2, ::3], mask[:, ::2, ::3]
        elif kind == "five":
            image, mask = image.repeat(5, 1, 1, 1), mask.repeat(5, 1, 1)
        elif kind == "flat":
            image = mask[..., None].repeat(1, 1, 1, 3)
        elif kind == "RGBA":
            image = torch.cat([image, mask[..., None]], -1)
        return image, mask


class TestReport:
    INPUT_TYPES = classmethod(
        lambda s: {"required": {"tokens": ("MASKINVERSION_TOKENS",), "output": ("CLIP_VISION_OUTPUT",), "maps": ("MASK",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, tokens, output, maps):
        embeddings = torch.cat([t.embeddings for t in tokens])
        report = {
            "tokens": [list(t.embeddings.shape) for t in tokens],
            "maps": list(maps.shape),
            "range": [float(maps.min()), float(maps.max())],
            "image_embeds": list(output.image_embeds.shape),
            "same": torch.equal(embeddings.cpu(), output.image_embeds.cpu()),
            "last_hidden_state": list(output.last_hidden_state.shape),
            "penultimate_hidden_states": list(output.penultimate_hidden_states.shape),
            "image_sizes": len(output.image_sizes),
            "digest": digest(embeddings, maps),
        }
        return {"ui": {"text": [json.dumps(report)]}}


class TestOutput:
    """Everything in a CLIP vision output; the image goes on, so that what follows follows."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"output": ("CLIP_VISION_OUTPUT",), "image": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = ("IMAGE",), "look", "test", True

    def look(self, output, image):
        values = {name: value for name, value in vars(output).items() if torch.is_tensor(value)}
        report = {name: [*value.shape] for name, value in values.items()}
        report["finite"] = all(bool(value.isfinite().all()) for value in values.values())
        report["image_sizes"] = [[*size] for size in output.image_sizes]
        report["digest"] = {name: digest(value) for name, value in values.items()}
        return {"ui": {"text": [json.dumps(report)]}, "result": (image,)}


class TestAfter:
    INPUT_TYPES = classmethod(lambda s: {"required": {"image": ("IMAGE",), "after": ("MASK",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "look", "test"

    def look(self, image, after):
        return (image,)


class TestRegion:
    """How far hidden states of regions are from those of their pictures, made the regions' in the way that is chosen.

    seen: the maps or masks [M, H, W]. The digests are of all states.
    """

    INPUT_TYPES = classmethod(
        lambda s: {
            "required": {
                "whole": ("CLIP_VISION_OUTPUT",),
                "region": ("CLIP_VISION_OUTPUT",),
                "seen": ("MASK",),
                "choice": ("STRING",),
            }
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, whole, region, seen, choice):
        report = {"errors": [], "image_sizes": [list(size) for size in region.image_sizes]}
        for name in ("last_hidden_state", "penultimate_hidden_states", "all_hidden_states"):
            if not hasattr(whole, name):
                continue
            a, b = getattr(whole, name), getattr(region, name)
            side = int(a.shape[-2] ** 0.5)
            prefix = a.shape[-2] - side * side
            cells = torch.nn.functional.interpolate(seen[:, None], size=(side, side), mode="area")[:, 0]
            if choice.startswith("faded"):
                rows = torch.cat([torch.ones(len(seen), prefix), cells.flatten(1)], 1)
                expected = a * rows.reshape(len(seen), *[1] * (a.ndim - 3), -1, 1)
            else:
                kept = [self.kept(cell, choice) for cell in cells]
                most = max(map(len, kept))
                kept = [[*range(prefix), *(prefix + own[k * len(own) // most] for k in range(most))] for own in kept]
                expected = torch.stack([states[..., own, :] for states, own in zip(a, kept)])
            report["errors"].append(float((b - expected).abs().max() / a.abs().max()) if b.shape == expected.shape else None)
            report[name] = list(b.shape)
        report["digest"] = digest(*(value for value in vars(region).values() if torch.is_tensor(value)))
        return {"ui": {"text": [json.dumps(report)]}}

    def kept(self, cell, choice):
        """The numbers of the patches of one region, which has a box of its own."""
        side = len(cell)
        inside = [(y, x) for y in range(side) for x in range(side) if cell[y, x] >= 0.5 * cell.max()]
        if choice == "patches of its box":
            rows, columns = zip(*inside)
            inside = [(y, x) for y in range(min(rows), max(rows) + 1) for x in range(min(columns), max(columns) + 1)]
        return [y * side + x for y, x in inside]


class TestConditioning:
    INPUT_TYPES = classmethod(lambda s: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "test"

    def make(self):
        return ([[torch.zeros(1, 1, 8), {}]],)


class TestConditioned:
    """The shapes of the image embeddings that a diffusion model would be given."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"conditioning": ("CONDITIONING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, conditioning):
        found = [given["clip_vision_output"].image_embeds for _, more in conditioning for given in more["unclip_conditioning"]]
        return {"ui": {"text": [json.dumps([[*embeds.shape] for embeds in found])]}}


class TestTokens:
    """Tokens beside the CLIP vision output that came with them."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"tokens": ("MASKINVERSION_TOKENS",), "output": ("CLIP_VISION_OUTPUT",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, tokens, output):
        embeddings = torch.cat([t.embeddings for t in tokens])
        same = torch.equal(embeddings.cpu(), output.image_embeds.cpu())
        return {"ui": {"text": [json.dumps({"count": len(embeddings), "same": same, "digest": digest(embeddings)})]}}


class TestSize:
    INPUT_TYPES = classmethod(lambda s: {"required": {"image": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, image):
        return {"ui": {"text": [str(list(image.shape))]}}


class TestPictures:
    INPUT_TYPES = classmethod(lambda s: {"required": {"images": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, images):
        return {"ui": {"text": [json.dumps({"shape": list(images.shape), "digest": digest(images)})]}}


class TestOutputState:
    INPUT_TYPES = classmethod(lambda s: {"required": {"output": ("CLIP_VISION_OUTPUT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, output):
        return {"ui": {"text": [str(output.last_hidden_state.shape)]}}


class TestLatent:
    INPUT_TYPES = classmethod(lambda s: {"required": {"latent": ("LATENT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, latent):
        samples = latent["samples"]
        report = {"shape": list(samples.shape), "finite": bool(samples.isfinite().all()), "digest": digest(samples)}
        return {"ui": {"text": [json.dumps(report)]}}


class TestEmbeds:
    """EMBEDS, on sockets of the type that IPAdapter_plus has."""

    INPUT_TYPES = classmethod(
        lambda s: {"required": {"pos_embed": ("EMBEDS",), "neg_embed": ("EMBEDS",), "tokens": ("MASKINVERSION_TOKENS",)}}
    )
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, pos_embed, neg_embed, tokens):
        same = torch.equal(pos_embed.cpu(), torch.cat([t.embeddings for t in tokens]).cpu())
        report = {"same": same, "pos": list(pos_embed.shape), "neg": list(neg_embed.shape), "neg length": float(neg_embed.norm())}
        return {"ui": {"text": [json.dumps(report)]}}


class TestOutside:
    """Whether pictures are the same, to the bit, where a mask is 0."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"image": ("IMAGE",), "mask": ("MASK",), "result": ("IMAGE",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, image, mask, result):
        differs = (result != image).any(-1)
        outside = mask[0] == 0
        report = {
            "shape": list(result.shape),
            "same outside": not bool(differs[:, outside].any()),
            "changed inside": float(differs[:, ~outside].float().mean()),
        }
        return {"ui": {"text": [json.dumps(report)]}}


class TestEncodings:
    """Which encoded pictures of a native model are kept, once `after` is there."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"clip_vision": ("CLIP_VISION",), "after": ("MASK",)}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "look", "test", True

    def look(self, clip_vision, after):
        managed = next(module for name, module in sys.modules.items() if name.endswith(".nodes.support.managed"))
        return {"ui": {"text": [json.dumps([id(encoded) for encoded in managed.encoded_by[clip_vision].values()])]}}


class TestDetector:
    """A cat at 10, 20 of 100 x 60 px and a dog at 300, 200 of 40 x 80 px, of a picture of 384 px, as what finds such gives them."""

    INPUT_TYPES = classmethod(lambda s: {"required": {"kind": ("STRING",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("BOUNDING_BOX,SEGS,BBOX,JSON",), "find", "test"

    def find(self, kind):
        cat = {"x": 10.0, "y": 20.0, "width": 100.0, "height": 60.0, "label": "cat", "score": 0.9}
        dog = {"x": 300.0, "y": 200.0, "width": 40.0, "height": 80.0, "label": "dog", "score": 0.8}
        if kind == "frames":  # RT-DETR, SAM 3
            return ([[cat, dog]],)
        if kind == "three pictures":
            return ([[cat, dog], [], [dog]],)
        corners = [[box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]] for box in (cat, dog)]
        if kind == "corners":  # Florence2toCoordinates
            return (corners,)
        if kind == "florence":  # Florence2Run, caption_to_phrase_grounding
            return ([{"bboxes": corners, "labels": ["cat", "dog"]}],)
        fields = ["cropped_image", "cropped_mask", "confidence", "crop_region", "bbox", "label", "control_net_wrapper"]
        segment = namedtuple("SEG", fields, defaults=[None])  # the Impact Pack
        found = []
        for box, (left, top, right, bottom) in zip((cat, dog), corners, strict=True):
            region = [int(left) - 4, int(top) - 4, int(right) + 4, int(bottom) + 4]
            mask = numpy.zeros((region[3] - region[1], region[2] - region[0]), numpy.float32)
            mask[4:-4, 4:-4] = 1
            found.append(segment(None, mask, box["score"], region, [left, top, right, bottom], box["label"]))
        return (((384, 384), found),)


KINDS = (TestImage, TestMask, TestPlainEncode, TestReport, TestOutput, TestAfter, TestRegion, TestConditioning)
KINDS += (TestDetector, TestConditioned, TestTokens, TestOutputState, TestLatent, TestEmbeds, TestOutside, TestEncodings)
KINDS += (TestPictures, TestSize, TestFault)
NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in KINDS}
