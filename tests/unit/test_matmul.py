"""Products by either library: the same numbers, whichever it is, chosen once, and nothing outside of it changes."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import maskinversion as mi
from maskinversion.compute import matmul, processor

CPU = torch.device("cpu")


@pytest.fixture
def onednn(monkeypatch):
    """It is taken, whatever this machine's processor is."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    taken = []
    given = matmul.onednn_linear
    monkeypatch.setattr(matmul, "chosen_library", lambda: "onednn")
    monkeypatch.setattr(matmul, "onednn_linear", lambda x, *rest: taken.append(x.shape) or given(x, *rest))
    return taken


@pytest.mark.parametrize("shape", [(7,), (5, 7), (1, 7), (2, 5, 7), (0, 7)])
@pytest.mark.parametrize("bias", [None, torch.randn(3)])
def test_it_is_the_linear_layer(onednn, shape, bias):
    x, weight = torch.randn(shape), torch.randn(3, 7)
    torch.testing.assert_close(matmul.linear(x, weight, bias), F.linear(x, weight, bias))
    torch.testing.assert_close(matmul.linear(x, weight.T.contiguous().T, bias), F.linear(x, weight, bias))
    assert onednn == [torch.Size(shape)] * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_are_left_to_pytorch(onednn, dtype):
    x, weight, bias = torch.randn(5, 7).to(dtype), torch.randn(3, 7).to(dtype), torch.randn(3).to(dtype)
    assert torch.equal(matmul.linear(x, weight, bias), F.linear(x, weight, bias)) and not onednn


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_linear_layers_of_any_module_are_reached_and_only_within(onednn, mode):
    module = nn.Sequential(nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3, bias=False)).eval()
    x = torch.randn(2, 4, 7)
    with mode():
        expected = module(x)
        assert not onednn
        with matmul.fast_linears(CPU):
            found = module(x)
        assert len(onednn) == 2
        assert torch.equal(module(x), expected) and len(onednn) == 2
    torch.testing.assert_close(found, expected)


def test_an_error_inside_ends_it(onednn):
    with pytest.raises(RuntimeError, match="stop"), matmul.fast_linears(CPU):
        raise RuntimeError("stop")
    nn.Linear(7, 5)(torch.randn(1, 7))
    assert not onednn


def test_tokens_do_not_depend_on_who_multiplies(onednn, monkeypatch, bundled, scene):
    inverter = mi.MaskInverter(bundled)
    found = inverter.invert(inverter.encode(scene[0]), scene[1])
    products_of_a_block = 4
    assert len(onednn) > products_of_a_block * len(bundled.tower.blocks)
    monkeypatch.setattr(matmul, "chosen_library", lambda: "pytorch")
    onednn.clear()
    expected = inverter.invert(inverter.encode(scene[0]), scene[1])
    assert not onednn
    torch.testing.assert_close(found.global_embedding, expected.global_embedding, rtol=1e-4, atol=1e-5)
    assert F.cosine_similarity(found.embeddings, expected.embeddings).min() > 1 - 1e-5


def test_who_has_switched_onednn_off_does_not_get_it(onednn):
    with torch.backends.mkldnn.flags(enabled=False):
        matmul.linear(torch.randn(1, 7), torch.randn(3, 7))
    assert not onednn


@pytest.mark.parametrize(
    "maker, expected", [("GenuineIntel", "pytorch"), ("AuthenticAMD", "onednn"), ("HygonGenuine", "onednn"), ("", "pytorch")]
)
def test_the_library_is_chosen_by_the_maker_of_the_processor(monkeypatch, maker, expected):
    if not (torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this PyTorch has one library only")
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    monkeypatch.setattr(processor, "words", lambda: frozenset([maker]))
    assert matmul.chosen_library.__wrapped__() == expected


def test_this_processor_says_what_it_is():
    known = {"GenuineIntel", "AuthenticAMD", "HygonGenuine", "asimd", "avx2", "neon"}
    if sys.platform == "darwin":
        pytest.skip("PyTorch has one library only on a Mac")
    assert processor.words() & known


@pytest.mark.parametrize("found, expected", [({"avx512f"}, False), ({"avx512_bf16"}, True), ({"amx_bf16"}, True), ({"bf16"}, True)])
def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch, found, expected):
    monkeypatch.setattr(processor, "words", lambda: frozenset(found))
    assert processor.has_bfloat16() == expected
    assert processor.low_precision(CPU) == (torch.bfloat16 if expected else None)


@pytest.mark.parametrize("capability, expected", [((6, 1), None), ((7, 5), torch.float16), ((8, 9), torch.float16)])
def test_half_precision_is_used_where_the_gpu_has_tensor_cores(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert processor.low_precision(torch.device("cuda")) == expected
    assert processor.low_precision(torch.device("mps")) is None


def test_a_variable_overrules_the_choice_and_is_recorded(monkeypatch, bundled, scene):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    for asked in matmul.LIBRARIES:
        monkeypatch.setenv(matmul.VARIABLE, asked)
        chosen = matmul.chosen_library.__wrapped__()
        assert chosen == asked
        monkeypatch.setattr(matmul, "chosen_library", lambda chosen=chosen: chosen)
        inverter = mi.MaskInverter(bundled, iterations=1)
        found = inverter.invert(inverter.encode(scene[0]), scene[1]).parameters["arithmetic"]
        assert found["products"] == asked and found["threads"] == torch.get_num_threads() and found["torch"] == torch.__version__
        monkeypatch.undo()


def test_a_variable_with_another_word_is_refused_by_the_command_line(monkeypatch):
    monkeypatch.setenv(matmul.VARIABLE, "fastest")
    done = subprocess.run([sys.executable, "-m", "maskinversion", "demo"], capture_output=True, text=True)
    assert done.returncode == 1 and "MASKINVERSION_PRODUCTS is 'fastest'; it must be one of pytorch, onednn" in done.stderr
