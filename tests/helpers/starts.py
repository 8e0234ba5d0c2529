"""What the towers say of single patches, against the model's own modules."""

from unittest.mock import patch

import torch

import maskinversion as mi
from maskinversion.explain.plan import joined
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
    """Pictures that go through together are embedded, encoded and inverted as one by one, with as many masks or filled up."""
    inverter = mi.MaskInverter(clip, iterations=2, layers=2)
    pictures = [image, image.flip(0), image.flip(1)]
    encoded = [inverter.encode(picture) for picture in pictures]
    masks = torch.zeros(2, *image.shape[:2])
    masks[0, : len(image) // 2], masks[1, :, len(image) // 3 :] = 1, 1
    each = [masks, masks[:1], masks]
    alone = [inverter.invert(one, own) for one, own in zip(encoded, each)]
    several = inverter.encode(pictures)
    for filled_up, together in ((lambda count, device: count, 2), (lambda count, device: 2, 3)):
        with patch("maskinversion.inverter.filled_up", filled_up), patch("maskinversion.inverter.joined", wraps=joined) as called:
            found = inverter.invert(several, each)
        assert [len(call.args[0]) for call in called.call_args_list] == [together] and joined(called.call_args.args[0])
        for one, own in zip(found, alone, strict=True):
            for name in ("global_embedding", "embeddings", "maps", "losses", "iou"):
                torch.testing.assert_close(getattr(one, name), getattr(own, name), rtol=rtol, atol=rtol)
    embedded = clip.tower.embed_canvases(torch.stack([one.canvas for one in encoded]))
    torch.testing.assert_close(embedded, torch.stack([one.global_embedding for one in encoded]), rtol=rtol, atol=rtol)
