"""Pictures and masks for tests."""

import torch
import torch.nn.functional as F


def picture(size: int, masks: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise, with a hard mask, a soft one, and one that overlaps both."""
    generator = torch.Generator().manual_seed(1)
    made = torch.zeros(3, size, size)
    made[0, size // 8 : size // 2, size // 6 : size * 2 // 3] = 1
    made[1] = F.interpolate(torch.rand(1, 1, 5, 5, generator=generator), size=size, mode="bilinear")[0, 0]
    made[2, size // 3 :, size // 3 :] = 1
    return torch.rand(size, size, 3, generator=generator), made[:masks]


def many_masks(size: int, count: int) -> torch.Tensor:
    noise = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(4))
    return (F.interpolate(noise, size=size, mode="bilinear")[:, 0] > 0.5).float()
