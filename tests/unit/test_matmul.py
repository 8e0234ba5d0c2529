"""Products by the fastest library: the same numbers, whichever it is, and nothing outside of it changes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import maskinversion as mi
from maskinversion.compute import matmul

CPU = torch.device("cpu")


@pytest.fixture
def onednn(monkeypatch):
    """It is taken, whatever the clock says on this machine."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    taken = []
    given = matmul.onednn_linear
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: True)
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
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: False)
    onednn.clear()
    expected = inverter.invert(inverter.encode(scene[0]), scene[1])
    assert not onednn
    torch.testing.assert_close(found.global_embedding, expected.global_embedding, rtol=1e-4, atol=1e-5)
    assert F.cosine_similarity(found.embeddings, expected.embeddings).min() > 1 - 1e-5


def test_who_has_switched_onednn_off_does_not_get_it():
    matmul.onednn_is_faster.cache_clear()
    with torch.backends.mkldnn.flags(enabled=False):
        assert not matmul.onednn_is_faster()
    matmul.onednn_is_faster.cache_clear()
