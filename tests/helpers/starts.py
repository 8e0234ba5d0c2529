"""What the towers say of single patches, against the model's own modules."""

import torch

import maskinversion as mi
from maskinversion.explain.plan import joined, pictures_at_once
from maskinversion.explain.pooler import PoolerMap


def check_values(clip: mi.Clip, image: torch.Tensor, rtol: float = 1e-9) -> None:
    """Every token of an image that is one token over and over has that token's own value, whatever attention weighs it by."""
    tower = clip.tower
    encoded = mi.MaskInverter(clip).encode(image)
    tokens = len(encoded.entering)
    for index in (tower.prefix, tokens - 1):
        entering, leaving = encoded.entering[index : index + 1], encoded.leaving[index : index + 1]
        if isinstance(encoded.maps[-1], PoolerMap):
            alone = leaving.expand(1, tokens, -1).to(tower.dtype)
        else:
            alone = entering.expand(1, tokens, -1).to(tower.dtype)
            alone, _ = tower.run_block(tower.blocks[-1], alone, encoded.grid, wanted=False)
        found = tower.embed_mixture(tower.mixed_values(entering, leaving), entering)
        torch.testing.assert_close(found, tower.embed(alone).to(found), rtol=rtol, atol=rtol)


def check_batches(clip: mi.Clip, image: torch.Tensor, rtol: float = 1e-9) -> None:
    """Pictures that go through together are embedded, encoded and inverted as one by one."""
    inverter = mi.MaskInverter(clip, iterations=2, layers=2)
    pictures = [image, image.flip(0), image.flip(1)]
    encoded = [inverter.encode(picture) for picture in pictures]
    masks = torch.zeros(2, *image.shape[:2])
    masks[0, : len(image) // 2], masks[1, :, len(image) // 3 :] = 1, 1
    together = inverter.encode(pictures)
    assert pictures_at_once(together[0].maps, 2, 2) > 1 and joined([together[0].maps, together[2].maps])  # which takes another way
    several = inverter.invert(together, [masks, masks[:1], masks])
    for one, own, found in zip(encoded, (masks, masks[:1], masks), several, strict=True):
        alone = inverter.invert(one, own)
        for name in ("global_embedding", "embeddings", "maps", "losses"):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), rtol=rtol, atol=rtol)
    embedded = clip.tower.embed_canvases(torch.stack([one.canvas for one in encoded]))
    torch.testing.assert_close(embedded, torch.stack([one.global_embedding for one in encoded]), rtol=rtol, atol=rtol)
