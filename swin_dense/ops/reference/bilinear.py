"""Bilinear samples of maps that are 0 outside, and what flows back through them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(M, C, H, W), twice (M, R, S) in positions of the map -> (M, C, R, S).

    (0, 0) is the centre of the first position. Nothing may be empty.
    """
    return F.grid_sample(maps, _grid(maps, y, x), align_corners=False)


def sample_backward(
    grad: Tensor, maps: Tensor, y: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of maps, y and x; `grad` is that of the samples, (M, C, R, S)."""
    by_maps, by_grid = torch.ops.aten.grid_sampler_2d_backward(
        grad, maps, _grid(maps, y, x), 0, 0, False, [True, True]
    )
    height, width = maps.shape[2:]
    return by_maps, by_grid[..., 1] * (2 / height), by_grid[..., 0] * (2 / width)


def _grid(maps: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Positions as grid_sample wants them: from -1 to 1 over the map, its edges included."""
    height, width = maps.shape[2:]
    y, x = y.clamp(-2, height + 1), x.clamp(-2, width + 1)  # what lies outside may be infinite
    return torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
