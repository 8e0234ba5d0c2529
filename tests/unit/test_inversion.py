"""The closed form against autograd, on random weights; and what an inversion must leave alone."""

import hashlib

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import maskinversion as mi
from maskinversion.compute.buffers import Buffers
from maskinversion.compute.cached_product import forget_products, product_of
from maskinversion.explain import plan
from maskinversion.explain.objective import DiceObjective
from maskinversion.explain.table import TabulatedMap
from maskinversion.models.towers.open_clip_vit import OpenClipViT
from tests.helpers import ground_truth
from tests.helpers.pictures import many_masks, picture
from tests.helpers.small_models import small_clip


def random_clip(name: str, dtype: torch.dtype) -> mi.Clip:
    torch.manual_seed(0)
    return mi.load_clip(f"{name}/random", device="cpu", dtype=dtype)


def compare(clip, size, masks, lr=0.1, alpha=0.0, layers=1, iterations=10):
    """Largest differences between product and ground truth: 1 - token cosine, tokens (relative), maps, losses."""
    image, mask = picture(size, masks)
    inverter = mi.MaskInverter(clip, iterations=iterations, lr=lr, alpha=alpha, layers=layers, image_size=size)
    tokens = inverter.invert(inverter.encode(image), mask)
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    pixels = ((image.permute(2, 0, 1) - mean) / std)[None].to(clip.tower.dtype)
    clip.model.visual.requires_grad_(False)
    expected, maps, losses = ground_truth.invert(clip.model.visual, pixels, mask.to(pixels), iterations, lr, alpha, layers)
    cosine = F.cosine_similarity(tokens.embeddings, expected).min().item()
    relative = ((tokens.embeddings - expected).norm(dim=1) / expected.norm(dim=1)).max().item()
    return 1 - cosine, relative, (tokens.maps - maps).abs().max().item(), (tokens.losses - losses).abs().max().item()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "masks", "alpha", "layers"),
    [("ViT-B-32", 224, 3, 0.0, 1), ("ViT-B-32", 320, 2, 5.0, 3), ("ViT-B-16", 224, 1, 5.0, 1), ("ViT-B-16", 288, 2, 0.0, 3)],
)
def test_equals_autograd_in_float64(name, size, masks, alpha, layers):
    off, relative, maps, losses = compare(random_clip(name, torch.float64), size, masks, alpha=alpha, layers=layers)
    assert off < 1e-9 and relative < 1e-9 and maps < 1e-9 and losses < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size", "masks", "alpha"), [("ViT-B-32", 224, 3, 5.0), ("ViT-B-16", 224, 2, 0.0)])
def test_equals_autograd_in_float32(name, size, masks, alpha):
    off, _, maps, losses = compare(random_clip(name, torch.float32), size, masks, alpha=alpha)
    assert off < 1e-5 and maps < 1e-4 and losses < 1e-4


@pytest.mark.parametrize(
    "vision",
    [
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True},
        {"final_ln_after_pool": True},
        {"ls_init_value": 0.3},
        {"quick_gelu": True},
        {"no_ln_pre": True, "patch_dropout": 0.5},
        {"image_size": (48, 48), "patch_size": (16, 16)},
    ],
    ids=str,
)
@pytest.mark.parametrize(("size", "layers", "lr"), [(48, 1, 0.1), (80, 4, 0.5)])
def test_equals_autograd_for_every_option_of_the_architecture(vision, size, layers, lr):
    off, relative, maps, losses = compare(small_clip(**vision), size, masks=3, alpha=1.0, layers=layers, lr=lr)
    assert off < 1e-9 and relative < 1e-9 and maps < 1e-9 and losses < 1e-9


@pytest.mark.parametrize("shape", [(90, 200), (310, 100)])
def test_equals_autograd_on_a_canvas_of_the_images_own_shape(shape):
    clip = small_clip()
    image = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(3))
    masks = torch.zeros(2, *shape)
    masks[0, : shape[0] // 2], masks[1, :, shape[1] // 2 :] = 1, 1
    inverter = mi.MaskInverter(clip, layers=2, fit="aspect")
    encoded = inverter.encode(image)
    tokens = inverter.invert(encoded, masks)
    height, width = encoded.geometry.model_size
    assert abs(height / width / (shape[0] / shape[1]) - 1) < 0.2 and abs(height * width / 48**2 - 1) < 0.2
    mean, std = (torch.tensor(v)[:, None, None] for v in (clip.tower.mean, clip.tower.std))
    pixels = (encoded.geometry.to_model(image.permute(2, 0, 1)[None], "bicubic") - mean) / std
    seen = inverter.masks_for(encoded, masks)
    expected, maps, _ = ground_truth.invert(clip.model.visual, pixels.double(), seen.double(), 10, 0.1, 0.0, 2)
    assert torch.allclose(tokens.embeddings, expected, rtol=1e-9) and torch.allclose(tokens.maps, maps, atol=1e-9)
    assert tokens.maps_for().shape == (2, *shape)


@pytest.mark.parametrize("shape", [(32, 32), (33, 800), (8192, 8192)])
@pytest.mark.parametrize("fit", ["stretch", "aspect"])
def test_images_of_any_size(shape, fit):
    inverter = mi.MaskInverter(small_clip(), iterations=1, fit=fit)
    mask = torch.zeros(shape)
    mask[shape[0] // 2 :] = 1
    tokens = inverter.invert(inverter.encode(torch.zeros(*shape, 3, dtype=torch.uint8)), mask)
    assert tokens.maps_for().shape == (1, *shape) and tokens.embeddings.isfinite().all()


def test_gradient_equals_finite_differences():
    clip = small_clip()
    image, masks = picture(48, 3)
    layers = clip.tower.encode((image.permute(2, 0, 1)[None] - 0.5).double(), layers=2)[0]
    maps = layers.maps
    objective = DiceObjective(masks.double(), layers.grid)
    generator = torch.Generator().manual_seed(2)
    unit = F.normalize(torch.randn(3, 40, generator=generator, dtype=torch.float64), dim=1)

    def loss(tokens):
        return objective.evaluate(sum(m.relevance(m.cotangents(tokens))[0] for m in maps))[0]

    found = [m.relevance(m.cotangents(unit)) for m in maps]
    _, pull = objective.evaluate(sum(r for r, _ in found))
    gradient = sum(m.cotangents_vjp(m.relevance_vjp(pull, rectified)) for m, (_, rectified) in zip(maps, found))
    for _ in range(20):
        direction = torch.randn(3, 40, generator=generator, dtype=torch.float64)
        numeric = (loss(unit + 1e-6 * direction) - loss(unit - 1e-6 * direction)) / 2e-6
        torch.testing.assert_close((gradient * direction).sum(1), numeric, rtol=1e-5, atol=1e-8)


def test_loss_on_the_grid_equals_loss_on_pixels():
    generator = torch.Generator().manual_seed(3)
    for (height, width), patch in (((7, 7), 16), ((5, 9), 14), ((3, 2), 5)):
        masks = torch.rand(4, height * patch, width * patch, generator=generator, dtype=torch.float64)
        relevance = torch.rand(4, height * width, generator=generator, dtype=torch.float64).requires_grad_()
        full = F.interpolate(relevance.unflatten(1, (height, width))[None], size=masks.shape[1:], mode="bilinear")[0]
        low, high = full.amin((1, 2), keepdim=True), full.amax((1, 2), keepdim=True)
        heat = (full - low) / (high - low)
        loss = 1 - (2 * (heat * masks).sum((1, 2)) + 1) / (heat.sum((1, 2)) + masks.sum((1, 2)) + 1)
        (gradient,) = torch.autograd.grad(loss.sum(), relevance)
        objective = DiceObjective(masks, (height, width))
        found, pull = objective.evaluate(relevance.detach())
        torch.testing.assert_close(found, loss.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(pull, gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(objective.render(relevance.detach()), heat.detach(), rtol=1e-9, atol=1e-12)


def test_a_map_without_contrast_stays_finite():
    objective = DiceObjective(torch.ones(1, 32, 32), (4, 4))
    loss, pull = objective.evaluate(torch.full((1, 16), 0.25))
    assert torch.isfinite(loss).all() and (pull == 0).all() and (objective.render(torch.full((1, 16), 0.25)) == 0).all()


def fingerprint(model) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_the_model_is_left_bit_for_bit_untouched(bundled, scene):
    image, masks = scene
    pixels = torch.rand(2, 3, 96, 96)
    before = fingerprint(bundled.model), bundled.model.encode_image(pixels)
    methods = {name: (type(m).forward, "forward" in vars(m)) for name, m in bundled.model.named_modules()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in bundled.model.modules()]
    inverter = mi.MaskInverter(bundled, image_size=192, layers=3)
    inverter.invert(inverter.encode(image), masks)
    assert fingerprint(bundled.model) == before[0]
    assert torch.equal(bundled.model.encode_image(pixels), before[1])
    assert {name: (type(m).forward, "forward" in vars(m)) for name, m in bundled.model.named_modules()} == methods
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in bundled.model.modules()] == hooks
    assert all(p.grad is None for p in bundled.model.parameters())


def test_the_global_embedding_is_the_models_own(bundled, scene):
    inverter = mi.MaskInverter(bundled)
    encoded = inverter.encode(scene[0])
    pixels = F.interpolate(scene[0].permute(2, 0, 1)[None], size=96, mode="bicubic", antialias=True).clamp(0, 1)
    expected = bundled.model.encode_image((pixels - 0.5) / 0.25)[0]
    torch.testing.assert_close(encoded.global_embedding, expected, rtol=1e-4, atol=1e-5)


def test_same_result_in_any_autograd_mode(bundled, scene):
    inverter = mi.MaskInverter(bundled)
    results = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            results.append(inverter.invert(inverter.encode(scene[0]), scene[1]))
    for other in results[1:]:
        assert torch.equal(results[0].embeddings, other.embeddings) and torch.equal(results[0].maps, other.maps)
    assert not results[0].embeddings.requires_grad and not results[0].embeddings.is_inference()


def test_half_precision_weights_keep_the_optimisation_in_float32():
    image, masks = picture(48, 3)
    results = []
    for dtype in (torch.float32, torch.float16):
        clip = small_clip()
        clip.model.to(dtype)
        inverter = mi.MaskInverter(clip)
        results.append(inverter.invert(inverter.encode(image), masks))
    assert results[1].embeddings.dtype == results[1].maps.dtype == torch.float32
    assert F.cosine_similarity(results[0].embeddings, results[1].embeddings).min() > 0.99


def test_a_kept_product_is_formed_anew_when_the_weights_are_others():
    image, masks = picture(48, 2)
    clip = small_clip()
    inverter = mi.MaskInverter(clip, layers=2)
    products = [product_of(block) for block in clip.tower.blocks[-2:]]
    inverter.encode(image)
    before = [product.kept for product in products]
    inverter.encode(image)
    assert all(product.kept is earlier for product, earlier in zip(products, before, strict=True)) and None not in before
    clip.model.visual.transformer.resblocks[-1].mlp.c_fc.weight.data[3, 5] += 0.01
    found = inverter.invert(inverter.encode(image), masks)
    assert [product.kept is earlier for product, earlier in zip(products, before, strict=True)] == [True, False]
    forget_products()
    anew = mi.MaskInverter(mi.Clip("anew", OpenClipViT(clip.model.visual), clip.model), layers=2)
    assert torch.equal(found.embeddings, anew.invert(anew.encode(image), masks).embeddings)


def test_masks_are_independent_of_one_another_and_of_chunks(monkeypatch):
    image, masks = picture(48, 3)
    inverter = mi.MaskInverter(small_clip())
    encoded = inverter.encode(image)
    many = inverter.invert(encoded, masks.repeat(20, 1, 1))
    alone = inverter.invert(encoded, masks[1])
    found = [many]
    first = encoded.maps[0]
    for sizes in ((1, 1, 1), (2**40, 1, 2**40), (first.cotangent_bytes * 7, first.relevance_bytes * 3, 2**40)):
        monkeypatch.setattr(Buffers, "of", lambda device, sizes=sizes: Buffers(device, *sizes))
        found.append(inverter.invert(encoded, masks.repeat(20, 1, 1)))
    for other in found:
        torch.testing.assert_close(other.embeddings[1::3], alone.embeddings.expand(20, -1), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other.maps, many.maps, rtol=0, atol=1e-9)


def test_the_map_closes_on_the_mask(bundled, scene):
    inverter = mi.MaskInverter(bundled)
    tokens = inverter.invert(inverter.encode(scene[0]), scene[1])
    assert (tokens.losses[-1] < tokens.losses[0]).all()
    inside, outside = ((tokens.maps_for() * m).sum((1, 2)) / m.sum((1, 2)) for m in (scene[1], 1 - scene[1]))
    assert (inside > 2 * outside).all()


def test_the_callback_sees_every_step_and_may_stop(bundled, scene):
    inverter = mi.MaskInverter(bundled, iterations=6)
    encoded = inverter.encode(scene[0])
    seen = []
    tokens = inverter.invert(encoded, scene[1], lambda step, total, maps, losses: seen.append((step, total, maps, losses)))
    assert [(s, t) for s, t, *_ in seen] == [(i, 6) for i in range(1, 7)]
    assert torch.equal(seen[-1][2], tokens.maps) and torch.equal(seen[-1][3], tokens.losses[-1])

    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inverter.invert(encoded, scene[1], stop)


@pytest.mark.parametrize(
    "vision", [{}, {"block_type": "custom", "scale_attn_inner": True, "scale_fc": True}], ids=["plain", "chain"]
)
def test_a_table_for_many_masks_changes_nothing(vision):
    clip = small_clip(width=128, **vision)
    image, _ = picture(48, 1)
    masks = many_masks(48, 40)
    inverter = mi.MaskInverter(clip, layers=2)
    encoded = inverter.encode(image)
    assert all(TabulatedMap.worthwhile(m, 40, 10) and not TabulatedMap.worthwhile(m, 1, 10) for m in encoded.maps)
    together = inverter.invert(encoded, masks)
    for i in (0, 17):
        alone = inverter.invert(encoded, masks[i])
        torch.testing.assert_close(together.embeddings[i], alone.embeddings[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.maps[i], alone.maps[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 40])
def test_fast_precision_stays_close_to_exact(count, monkeypatch):
    monkeypatch.setattr(plan, "low_precision", lambda device: torch.bfloat16)
    clip = random_clip("ViT-B-32", torch.float32)
    image, _ = picture(224, 1)
    masks = many_masks(224, count)
    exact, fast = (
        inverter.invert(inverter.encode(image), masks)
        for inverter in (mi.MaskInverter(clip), mi.MaskInverter(clip, precision="fast"))
    )
    assert F.cosine_similarity(exact.embeddings, fast.embeddings).min() > 0.999
    assert not torch.equal(exact.embeddings, fast.embeddings) and fast.maps.dtype == torch.float32


@pytest.mark.parametrize("alpha, tolerance", [(0.0, 5e-3), (1.0, 1e-3)])
def test_each_mask_stops_when_its_own_loss_has_settled(alpha, tolerance):
    image, masks = picture(48, 3)
    clip = small_clip()
    whole, early = (mi.MaskInverter(clip, iterations=60, lr=0.05, alpha=alpha, tolerance=least) for least in (0.0, tolerance))
    everything, together = (inverter.invert(inverter.encode(image), masks) for inverter in (whole, early))
    stops = []
    for index in range(len(masks)):
        alone = early.invert(early.encode(image), masks[index])
        steps = len(alone.losses)
        stops.append(steps)
        changes = alone.losses[:, 0].diff().abs()
        assert changes[-1] < tolerance <= changes[:-1].min()
        torch.testing.assert_close(alone.losses[:, 0], everything.losses[:steps, index], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.losses[:steps, index], alone.losses[:, 0], rtol=1e-9, atol=1e-9)
        assert (together.losses[steps:, index] == together.losses[steps - 1, index]).all()
        torch.testing.assert_close(together.embeddings[index], alone.embeddings[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(together.maps[index], alone.maps[0], rtol=1e-9, atol=1e-9)
    assert len(together.losses) == max(stops) < 60 and min(stops) < max(stops)


def test_a_mask_that_has_settled_costs_nothing_more(monkeypatch):
    image, masks = picture(48, 3)
    rows = []
    real = plan.Plan.evaluate

    def noted(self, unit, going=None):
        if going is None:
            rows.append(len(unit))
        return real(self, unit, going)

    monkeypatch.setattr(plan.Plan, "evaluate", noted)
    inverter = mi.MaskInverter(small_clip(), iterations=60, lr=0.05, tolerance=5e-3)
    inverter.invert(inverter.encode(image), masks)
    assert rows == sorted(rows, reverse=True) and rows[0] == 3 > rows[-1] > 0


class CountsWaits(TorchDispatchMode):
    """Counts the operations for which a GPU's results have to be waited for."""

    def __init__(self):
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.waits += any(name in str(function) for name in ("_local_scalar_dense", "nonzero", "_to_copy"))
        return function(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device():
    image, masks = picture(48, 3)
    counts = []
    for iterations in (5, 15):
        inverter = mi.MaskInverter(small_clip(), iterations=iterations, alpha=1.0, layers=2)
        encoded = inverter.encode(image)
        with CountsWaits() as counted:
            inverter.invert(encoded, masks, lambda *_: None)
        counts.append(counted.waits)
    assert counts[0] == counts[1] > 0
