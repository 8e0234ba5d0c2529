"""Damaged and hostile files: each is refused with a sentence, in bounded time and memory, and nothing in it is run."""

import json
import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import maskinversion as mi
from maskinversion.bundled import BUNDLED
from maskinversion.cli.classify import lines_of
from maskinversion.datasets.coco import read_coco
from maskinversion.errors import MaskInversionError
from maskinversion.files import read_json, written_whole
from maskinversion.operations import blend
from maskinversion.pickles import read_plain_pickle
from maskinversion.pictures import as_pixels, read_mask
from maskinversion.tasks.caption import load_captioner
from maskinversion.tasks.diffusion import Settings, load_decoder
from maskinversion.tokens import FORMAT
from tests.helpers.small_captioners import checkpoint, write

NESTED = 100_000
nan, inf = float("nan"), float("inf")
QUICK = settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# Tokens


def tokens_file(path, geometry=None, parameters=None, **tensors):
    """A file of two tokens with some things changed; None takes a tensor out."""
    shapes = {"embeddings": (2, 8), "maps": (2, 16, 24), "losses": (3, 2), "iou": (2,), "global_embedding": (8,)}
    every = {name: torch.full(shape, 0.5) for name, shape in shapes.items()} | tensors
    sizes = {"image_size": [20, 30], "model_size": [16, 24], "fit": "stretch"}
    metadata = {
        "format": FORMAT,
        "model": "a CLIP",
        "fingerprint": "0" * 16,
        "geometry": geometry if isinstance(geometry, str) else json.dumps(sizes | (geometry or {})),
        "parameters": parameters if isinstance(parameters, str) else json.dumps(parameters or {}),
    }
    save_file({name: tensor for name, tensor in every.items() if tensor is not None}, path, metadata=metadata)
    return path


SIZES = [[-1, 30], [0, 30], [20, 10**9], [2**40, 2**40], ["20", "30"], "20", [nan, 30], [inf, 30], [20], [2.5, 30], None, 7]


@pytest.mark.parametrize("field", ["image_size", "model_size"])
@pytest.mark.parametrize("size", [*SIZES, [20, 30, 3], [True, 30], {"a": 1}, [[20], [30]], []])
def test_tokens_of_an_impossible_geometry_are_refused_by_the_field(tmp_path, field, size):
    with pytest.raises(mi.InputError, match=field):
        mi.LocalizedTokens.load(tokens_file(tmp_path / "x.safetensors", {field: size}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"geometry": {"fit": "nothing"}}, "fit"),
        ({"geometry": {"fit": ["pad"]}}, "fit"),
        ({"geometry": {"fit": None}}, "fit"),
        ({"geometry": {"model_size": [24, 16]}}, "model_size"),
        ({"geometry": "[1, 2]"}, "geometry"),
        ({"geometry": "{}"}, "image_size"),
        ({"geometry": "[" * NESTED}, "geometry"),
        ({"parameters": "7"}, "parameters"),
        ({"parameters": "{"}, "parameters"),
        *(({"parameters": {"operations": value}}, "operations") for value in (7, "x", {"a": 1}, None, [1], [["a"]], nan)),
        *(
            ({name: torch.zeros(shape, dtype=kind)}, name)
            for name, shape in (("embeddings", (2, 8)), ("maps", (2, 16, 24)), ("global_embedding", (8,)), ("iou", (2,)))
            for kind in (torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64)
        ),
        ({"embeddings": torch.full((2, 7), 0.5)}, "global_embedding"),
        ({"embeddings": torch.full((2,), 0.5)}, "embeddings"),
        ({"embeddings": torch.full((2, 8, 1), 0.5)}, "embeddings"),
        ({"embeddings": torch.zeros(0, 8), "maps": torch.zeros(0, 16, 24)}, "embeddings"),
        ({"embeddings": torch.zeros(2, 8)}, "embeddings"),
        ({"embeddings": torch.full((2, 8), 3e38)}, "embeddings"),
        ({"maps": torch.zeros(16, 24)}, "maps"),
        ({"maps": torch.zeros(2, 1, 16, 24)}, "maps"),
        ({"maps": torch.zeros(3, 16, 24)}, "maps"),
        ({"maps": torch.full((2, 16, 24), 1e30)}, "maps"),
        ({"losses": torch.zeros(2)}, "losses"),
        ({"iou": torch.zeros(3)}, "iou"),
        *(({name: torch.full(shape, value)}, name) for name, shape in (("embeddings", (2, 8)), ("maps", (2, 16, 24)),
          ("losses", (3, 2)), ("iou", (2,)), ("global_embedding", (8,))) for value in (nan, inf)),
        *(({name: None}, name) for name in ("embeddings", "maps", "losses", "iou", "global_embedding")),
    ],
)  # fmt: skip
def test_damaged_tokens_are_refused_by_the_field(tmp_path, changes, field):
    with pytest.raises(mi.InputError, match=field):
        mi.LocalizedTokens.load(tokens_file(tmp_path / "x.safetensors", **changes))


def test_tokens_of_half_precision_are_read_as_float32(tmp_path):
    path = tokens_file(tmp_path / "x.safetensors", embeddings=torch.full((2, 8), 0.5, dtype=torch.bfloat16))
    found = mi.LocalizedTokens.load(path)
    assert found.embeddings.dtype == torch.float32 and found.maps_for().shape == (2, 20, 30)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@QUICK
@given(
    image=json_values | st.lists(st.integers(-2, 50), max_size=3),
    fit=json_values | st.sampled_from(["stretch", "pad", "crop"]),
    operations=json_values,
)
def test_tokens_that_load_can_be_used(tmp_path, image, fit, operations):
    path = tokens_file(tmp_path / "x.safetensors", {"image_size": image, "fit": fit}, {"operations": operations})
    try:
        found = mi.LocalizedTokens.load(path)
    except mi.InputError:
        return
    assert found.maps_for().isfinite().all() and found.maps_for().shape[1:] == tuple(image)
    (mixed,) = blend([found], [replace(found, embeddings=found.embeddings + 1)])
    mixed.save(path)
    assert mi.LocalizedTokens.load(path).parameters == mixed.parameters


@QUICK
@given(place=st.integers(0, 600), value=st.integers(0, 255), length=st.integers(0, 2500))
def test_damaged_bytes_of_tokens_are_tokens_or_refused(tmp_path, place, value, length):
    content = bytearray(tokens_file(tmp_path / "x.safetensors").read_bytes())
    content[min(place, len(content) - 1)] = value
    (tmp_path / "x.safetensors").write_bytes(content[: length or None])
    with suppress(mi.InputError):
        mi.LocalizedTokens.load(tmp_path / "x.safetensors").maps_for()


# Pickles

TUPLES = b")" + b"\x85" * NESTED
HOSTILE_PICKLES = {
    "a deep tuple as a key": b"\x80\x02}" + TUPLES + b"K\x01s.",
    "among several": b"\x80\x02}(" + TUPLES + b"K\x01u.",
    "in a dict of a mark": b"\x80\x02(" + TUPLES + b"K\x01d.",
    "in a set": b"\x80\x04\x8f(" + TUPLES + b"\x90.",
    "in a frozen set": b"\x80\x04(" + TUPLES + b"\x91.",
    "remembered": b"\x80\x02" + TUPLES + b"q\x000}h\x00K\x01s.",
    "copied": b"\x80\x02" + TUPLES + b"2\x85}K\x01K\x02s0}2" + b"K\x01s.",
    "a huge index": b"\x80\x02K\x01r\x00\xe1\xf5\x05.",
    "a huge index in letters": b"K\x01p99999999\n.",
    "a negative index": b"K\x01p-1\n.",
    "a huge text": b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x.",
    "a huge frame": b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"K\x01.",
    "a huge number": b"\x80\x02\x8b" + (10**6).to_bytes(4, "little") + b"\x7f" * 10**6 + b".",
    "a long number in letters": b"L" + b"9" * 10**5 + b"L\n.",
    "nothing on the stack": b"\x80\x02s.",
    "no mark": b"\x80\x02]e.",
    "no end": b"\x80\x02]",
    "a recalled nothing": b"\x80\x02h\x05.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent one": b"Px\n.",
    "built": b"\x80\x02}}b.",
    "of a class": b"cos\nsystem\n(S'exit 1'\ntR.",
    "of a class of its own": b"(S'exit 1'\nios\nsystem\n.",
}


@pytest.mark.parametrize("content", HOSTILE_PICKLES.values(), ids=HOSTILE_PICKLES)
def test_hostile_pickles_are_refused(tmp_path, content):
    (tmp_path / "refs.p").write_bytes(content)
    with pytest.raises(mi.InputError, match=r"refused|not a complete pickle"):
        read_plain_pickle(tmp_path / "refs.p")


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False) | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(0, 99), inner),
    max_leaves=20,
)


@QUICK
@given(data=plain, protocol=st.integers(0, 5))
def test_plain_pickles_are_read(tmp_path, data, protocol):
    if protocol < 3 and b"bytes" in pickle.dumps(data, 2):  # which Python 3 writes as a call
        return
    (tmp_path / "refs.p").write_bytes(pickle.dumps(data, protocol))
    try:
        assert read_plain_pickle(tmp_path / "refs.p") == data
    except mi.InputError as error:
        assert "could run code (it asks for _codecs.encode)" in str(error)  # bytes in the protocols of Python 2


@QUICK
@given(data=plain, place=st.integers(0, 300), value=st.integers(0, 255))
def test_damaged_pickles_are_plain_data_or_refused(tmp_path, data, place, value):
    content = bytearray(pickle.dumps(data, 4))
    content[place % len(content)] = value
    (tmp_path / "refs.p").write_bytes(content)
    with suppress(mi.InputError):
        read_plain_pickle(tmp_path / "refs.p")


# CLIPs


def clip_folder(folder, change=None, weights=None):
    """The bundled CLIP with another configuration, or other bytes of weights."""
    folder.mkdir(exist_ok=True)
    config = json.loads((BUNDLED / "open_clip_config.json").read_text())
    if change:
        change(config)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    content = (BUNDLED / "open_clip_model.safetensors").read_bytes()
    (folder / "open_clip_model.safetensors").write_bytes(content if weights is None else weights(content))
    return f"local-dir:{folder}"


def put(*keys):
    """A function that sets what the last key of `keys` leads to: the last of them is the value."""
    *path, last, value = keys

    def change(config):
        for key in path:
            config = config[key]
        config[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(put("model_cfg", f"{part}_cfg", "layers", n) for part in ("vision", "text") for n in (10**6, -1, 0, "2", 2.5, None)),
        *(put("model_cfg", "vision_cfg", "width", value) for value in (10**9, 10**5, -1, 0, "x", nan)),
        *(put("model_cfg", "vision_cfg", name, 0) for name in ("patch_size", "image_size", "head_width")),
        put("model_cfg", "vision_cfg", "image_size", 10**6),
        put("model_cfg", "text_cfg", "vocab_size", 10**10),
        put("model_cfg", "text_cfg", "context_length", 10**9),
        put("model_cfg", "embed_dim", 10**8),
        put("model_cfg", []),
        put("model_cfg", "vision_cfg", None),
        put("model_cfg", "more", 1),
        put("preprocess_cfg", [1]),
        put("preprocess_cfg", {"mean": ["a", 1, 1]}),
        put("preprocess_cfg", {"std": [0, 1, 1]}),
        put("preprocess_cfg", {"mean": [nan, 1, 1]}),
        put("preprocess_cfg", {"interpolation": "none"}),
    ],
)
def test_absurd_configurations_of_clips_are_refused(tmp_path, change):
    with pytest.raises(mi.ModelError):
        mi.load_clip(clip_folder(tmp_path / "clip", change), device="cpu")


@pytest.mark.parametrize(
    "weights",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:8] + b"\xff" + content[9:],
        lambda content: content.replace(b"F32", b"X32", 1).replace(b"F16", b"X16", 1).replace(b"BF16", b"XF16", 1),
        lambda content: (2**60).to_bytes(8, "little") + content[8:],
        lambda content: content.replace(b"visual.proj", b"visual.prok", 1),
        lambda content: content[:-1000] + b"\xff" * 1000,
    ],
)
def test_damaged_weights_of_clips_are_refused_at_every_entrance(tmp_path, weights):
    source = clip_folder(tmp_path / "clip", weights=weights)
    with pytest.raises(mi.ModelError):
        mi.load_clip(source, device="cpu")
    with pytest.raises(mi.ModelError):
        mi.load_clip(tmp_path / "clip" / "open_clip_model.safetensors", model="ViT-S-32", device="cpu")


def test_weights_of_another_architecture_are_refused(tmp_path):
    shapes = {"positional_embedding": (5, 16), "visual.positional_embedding": (3, 2), "visual.proj": (4, 4)}
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "other.safetensors")
    with pytest.raises(mi.ModelError):
        mi.load_clip(tmp_path / "other.safetensors", model="ViT-S-32", device="cpu")


# Captioners


def unlike(**changes):
    return lambda state: state | {key.replace("__", "."): value for key, value in changes.items()}


BIG = torch.zeros(1).expand(10**7, 10**4)  # 400 GB of one number
HOSTILE_CAPTIONERS = {
    "wpe without dimensions": unlike(gpt__transformer__wpe__weight=torch.tensor(1.0)),
    "wte without dimensions": unlike(gpt__transformer__wte__weight=torch.tensor(1.0)),
    "many positions": unlike(gpt__transformer__wpe__weight=torch.zeros(10**5, 64)),
    "a block of a high number": unlike(gpt__transformer__h__1000000__ln_1__bias=torch.zeros(1)),
    "a block without a number": unlike(gpt__transformer__h__x__ln_1__bias=torch.zeros(1)),
    "integers": unlike(gpt__transformer__ln_f__bias=torch.zeros(64, dtype=torch.int64)),
    "complex": unlike(gpt__transformer__ln_f__bias=torch.zeros(64, dtype=torch.complex64)),
    "NaN": unlike(gpt__transformer__ln_f__bias=torch.full((64,), nan)),
    "a wide mapper": unlike(
        clip_project__model__0__weight=torch.zeros(1, 10**5), clip_project__model__2__weight=torch.zeros(10**5, 1)
    ),
    "empty": unlike(clip_project__model__0__weight=torch.zeros(0, 0)),
}
ONLY_PICKLED = {
    "no tensor": unlike(gpt__transformer__ln_f__bias="text"),
    "a list": lambda state: list(state.values()),
    "a key that is no text": lambda state: state | {7: torch.zeros(1)},
    "larger than the file": unlike(gpt__transformer__wte__weight=BIG),
    "many of one": lambda state: state | {f"gpt.transformer.h.{i}.more": torch.zeros(10**5) for i in range(2)}
    | dict.fromkeys((f"gpt.transformer.h.{i}.x" for i in range(2000)), torch.zeros(10**5)),
    "sparse": unlike(gpt__transformer__ln_f__bias=torch.eye(64).to_sparse()),
    "without data": unlike(gpt__transformer__ln_f__bias=torch.zeros(64, device="meta")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        pytest.param(change, suffix, id=f"{name}{suffix}")
        for suffix in (".safetensors", ".pt")
        for name, change in (HOSTILE_CAPTIONERS | (ONLY_PICKLED if suffix == ".pt" else {})).items()
    ],
)  # fmt: skip
def test_hostile_captioners_are_refused(tmp_path, own_pickles, change, suffix):
    state = change({key: value for key, value in checkpoint("mlp", 32).items() if "attn." not in key or "c_" in key})
    path = write(tmp_path, {}, f"captioner{suffix}")
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file({key: value.clone().contiguous() for key, value in state.items()}, path)
    with pytest.raises(mi.ModelError):
        load_captioner(path, device="cpu")


@pytest.mark.parametrize("about", ["[" * NESTED, "[1]", '{"normalize": 1e999}', '{"clip": [1]}', '{"clip_fingerprint": 7}', "{"])
def test_a_damaged_description_of_a_captioner_is_refused(tmp_path, about):
    path = write(tmp_path, checkpoint("mlp", 32), "captioner.safetensors")
    path.with_suffix(".json").write_text(about)
    with pytest.raises(mi.ModelError, match=r"captioner\.json"):
        load_captioner(path, device="cpu")


@pytest.mark.parametrize("name", ["x" * 5000 + ".safetensors", "a\0b.safetensors", "\ud800.safetensors", "x" * 5000 + ".pt"])
def test_names_that_no_file_has_are_refused(tmp_path, name):
    path = tmp_path / name
    readers = {
        mi.ModelError: (lambda p: load_captioner(p, device="cpu"), lambda p: mi.load_clip(p, model="ViT-S-32")),
        mi.InputError: (mi.LocalizedTokens.load, as_pixels, read_mask, read_plain_pickle, lines_of, read_json),
    }
    for kind, each in readers.items():
        for read in each:
            with pytest.raises(kind) as caught:
                read(path)
            str(caught.value).encode()  # what cannot be, stops ComfyUI's queue


@pytest.mark.parametrize("suffix", [".pt", ".bin"])
@pytest.mark.parametrize("archive", [False, True])
def test_pickles_of_weights_are_walked_too(tmp_path, own_pickles, suffix, archive):
    """What PyTorch reads with weights_only=True is hashed in C as well."""
    path, content = tmp_path / f"weights{suffix}", HOSTILE_PICKLES["a deep tuple as a key"]
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/data.pkl", content)
    else:
        path.write_bytes(content)
    for load in (load_captioner, lambda path: mi.load_clip(path, model="ViT-S-32", device="cpu")):
        with pytest.raises(mi.ModelError, match="neither a text nor a number"):
            load(path)


def test_an_archive_that_unpacks_to_more_than_it_has_is_refused(tmp_path, own_pickles):
    with zipfile.ZipFile(tmp_path / "weights.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x/data.pkl", b"\x80\x02}.")
        file.writestr("x/data/0", bytes(10**7))
    with pytest.raises(mi.ModelError, match="unpacks to more"):
        load_captioner(tmp_path / "weights.pt")


# Decoders


def decoder_folder(folder, file=None, change=None, weights=None):
    shutil.copytree(BUNDLED / "decoder", folder)
    if file:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))
    if weights:
        path = folder / "unet" / "diffusion_pytorch_model.safetensors"
        state = load_file(path)
        weights(state)
        save_file(state, path)
    return folder


UNET, SCHEDULER, INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (UNET, put("layers_per_block", 10**6)),
        (UNET, put("layers_per_block", -1)),
        (UNET, put("layers_per_block", [10**6] * 3)),
        (UNET, put("transformer_layers_per_block", 10**6)),
        (UNET, put("down_block_types", ["ResnetDownsampleBlock2D"] * 10**4)),
        (UNET, put("block_out_channels", [10**9] * 3)),
        (UNET, put("block_out_channels", [20000] * 3)),
        (UNET, put("block_out_channels", "many")),
        (UNET, put("cross_attention_dim", 10**9)),
        (UNET, put("attention_head_dim", 0)),
        (UNET, put("sample_size", None)),
        (UNET, put("sample_size", 10**9)),
        (UNET, put("sample_size", "x")),
        (UNET, put("sample_size", nan)),
        (UNET, put("encoder_hid_dim", None)),
        (UNET, put("encoder_hid_dim", -1)),
        (UNET, put("down_block_types", ["NoSuchBlock"] * 3)),
        ("movq/config.json", put("num_vq_embeddings", 10**10)),
        ("movq/config.json", put("latent_channels", 10**9)),
        *((SCHEDULER, put("num_train_timesteps", value)) for value in (0, -1, "x", None, 10**9, 1.5, nan, True)),
        (SCHEDULER, put("beta_schedule", "unknown")),
        (SCHEDULER, put("beta_schedule", None)),
        (SCHEDULER, put("beta_end", inf)),
        (SCHEDULER, put("steps_offset", 10**9)),
        (INDEX, put("unet", ["os", "system"])),
        (INDEX, put("unet", ["antigravity", "x"])),
        (INDEX, put("unet", ["diffusers", "NoSuchModel"])),
        (INDEX, put("unet", [1, 2])),
        (INDEX, put("_class_name", ["KandinskyV22Pipeline"])),
        (INDEX, put("_class_name", None)),
        ("clip.json", put("clip_fingerprint", [1])),
    ],
)
def test_absurd_decoders_are_refused(tmp_path, file, change):
    with pytest.raises(MaskInversionError):
        load_decoder(decoder_folder(tmp_path / "decoder", file, change))


@pytest.mark.parametrize("file", [UNET, SCHEDULER, INDEX, "clip.json"])
@pytest.mark.parametrize("text", ["[" * NESTED, "[]", "{", "", "7", "\ud800"])
def test_damaged_json_of_decoders_is_refused(tmp_path, file, text):
    folder = decoder_folder(tmp_path / "decoder")
    (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(mi.ModelError):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (lambda state: state.pop("conv_in.weight"), r"conv_in\.weight"),
        (lambda state: state["conv_in.weight"].fill_(nan), "NaN"),
        (lambda state: state.update({"conv_in.weight": torch.zeros(1, 2, 3)}), "could not be loaded"),
        (lambda state: state.clear(), "it has none|describes a model"),
    ],
)
def test_weights_that_are_missing_or_no_numbers_are_refused(tmp_path, weights, message):
    with pytest.raises(mi.ModelError, match=message):
        load_decoder(decoder_folder(tmp_path / "decoder", weights=weights))


def test_more_steps_than_a_scheduler_has_are_refused(tmp_path):
    decoder = load_decoder("bundled")
    tokens = mi.LocalizedTokens.load(
        tokens_file(tmp_path / "x.safetensors", embeddings=torch.full((1, 64), 0.1), global_embedding=torch.full((64,), 0.1),
                    maps=torch.zeros(1, 16, 24), losses=torch.zeros(3, 1), iou=torch.zeros(1))
    )  # fmt: skip
    tokens = replace(tokens, fingerprint=decoder.fingerprint)
    for steps in (1000, 10**9):
        with pytest.raises(mi.InputError, match=f"steps is {steps}; .* has 999 at most"):
            decoder.generate([tokens], Settings(steps=steps))
    with torch.no_grad():
        decoder.pipeline.movq.decoder.conv_out.bias.fill_(nan)
    with pytest.raises(mi.ModelError, match="NaN"):
        decoder.generate([tokens], Settings(steps=1))


# Files that are none

READERS = {
    "tokens": (mi.LocalizedTokens.load, "x.safetensors"),
    "picture": (as_pixels, "x.png"),
    "mask": (read_mask, "x.png"),
    "pickle": (read_plain_pickle, "x.p"),
    "JSON": (read_json, "x.json"),
    "phrases": (lines_of, "x.txt"),
    "COCO": (lambda path: read_coco(path, path.parent), "x.json"),
    "CLIP": (lambda path: mi.load_clip(path, model="ViT-S-32"), "x.safetensors"),
    "CLIP of a pickle": (lambda path: mi.load_clip(path, model="ViT-S-32"), "x.pt"),
    "CLIP's folder": (lambda path: mi.load_clip(f"local-dir:{path.parent}"), "open_clip_model.safetensors"),
    "captioner": (load_captioner, "x.safetensors"),
    "captioner of a pickle": (load_captioner, "x.pt"),
    "captioner's description": (lambda path: load_captioner(path.with_suffix(".safetensors")), "x.json"),
    "decoder": (lambda path: load_decoder(path.parents[1]), "unet/diffusion_pytorch_model.safetensors"),
    "decoder's index": (lambda path: load_decoder(path.parent), "model_index.json"),
    "adapter": (lambda path: load_decoder(BUNDLED / "decoder", adapter=path), "x.safetensors"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("reader", [name for name in READERS if name != "adapter"])
def test_a_pipe_is_refused(tmp_path, own_pickles, reader):
    read, name = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if reader.startswith("decoder"):
        shutil.copytree(BUNDLED / "decoder", tmp_path, dirs_exist_ok=True)
        path.unlink()
    if reader == "CLIP's folder":
        shutil.copy(BUNDLED / "open_clip_config.json", tmp_path)
    if reader == "captioner's description":
        write(tmp_path, checkpoint("mlp", 32), "x.safetensors")
    os.mkfifo(path)
    with pytest.raises(MaskInversionError):
        read(path)


@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("adapter", "decoder's index")])
@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"{" * 9, b"<!doctype html>", b"version https://git-lfs", b"\xff" * 4096])
def test_what_is_something_else_is_refused(tmp_path, own_pickles, reader, content):
    if reader == "phrases" and content != b"\xff" * 4096:
        return  # any text is a text
    read, name = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if reader == "decoder":
        shutil.copytree(BUNDLED / "decoder", tmp_path, dirs_exist_ok=True)
    if reader == "CLIP's folder":
        shutil.copy(BUNDLED / "open_clip_config.json", tmp_path)
    if reader == "captioner's description":
        write(tmp_path, checkpoint("mlp", 32), "x.safetensors")
    path.write_bytes(content)
    with pytest.raises(MaskInversionError):
        read(path)


def test_messages_can_be_written_whatever_the_names_are():
    error = mi.InputError("there is no file caf\udce9.safetensors")
    assert str(error) == r"there is no file caf\udce9.safetensors"


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "file/x", "\ud800"])
def test_files_that_cannot_be_written_are_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    if name == "\ud800" and os.name == "nt":
        return
    with pytest.raises(mi.InputError, match="cannot be written"), written_whole(tmp_path / name):
        pass
    assert [path.name for path in Path(tmp_path).iterdir()] == ["file"]


def test_a_picture_without_segments_has_no_region(tmp_path):
    images = [{"id": number, "file_name": "a.png", "height": 24, "width": 40} for number in (1, 2)]
    segments = [{"id": 7, "category_id": 1}]
    annotations = [{"image_id": 1, "file_name": "a.png", "segments_info": []}]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": annotations}
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(mi.InputError, match="no picture with a region"):
        read_coco(tmp_path / "x.json", tmp_path)
    annotations.append({"image_id": 2, "file_name": "a.png", "segments_info": segments})
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert [sample.name for sample in read_coco(tmp_path / "x.json", tmp_path).samples] == ["2"]
