"""Sums of bilinear samples of maps that are 0 outside, and what flows back through them.

A sample is four rows of the map, weighted: these are gathered, and on the way back added to. The
gradient of grid_sample has no deterministic form on CUDA.

Letters: B images, N heads or groups, C channels of one, S places that get a sum each, P samples
in a sum. (0, 0) is the centre of the first position of a map.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype

_CORNERS = 4  # top left, top right, bottom left, bottom right


def sum_samples(maps: Tensor, size: Sequence[int], y: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """(B, H * W, N, C), thrice (B, S, N, P) -> (B, S, N, C), as sums are kept."""
    rows, corners = _rows(maps), _Corners.of(size, y, x)
    shares = (corners.shares() * factor[..., None]).flatten(0, 2).flatten(1)
    places = corners.place.flatten(0, 2).flatten(1)
    out = F.embedding_bag(places, rows, mode="sum", per_sample_weights=shares.to(rows.dtype))
    return out.view(*y.shape[:3], -1)


def sum_samples_backward(
    grad: Tensor, maps: Tensor, size: Sequence[int], y: Tensor, x: Tensor, factor: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of maps, y, x and factor; `grad` is that of the sums, (B, S, N, C)."""
    rows, corners = _rows(maps), _Corners.of(size, y, x)
    grad = grad.to(rows.dtype)
    shares, by_rows = corners.shares() * factor[..., None], torch.zeros_like(rows)
    products = []  # of the gradient with each corner
    for corner in range(_CORNERS):
        place = corners.place[..., corner].flatten()
        read = rows.index_select(0, place).view(*y.shape, -1)
        products.append(read.mul_(grad[..., None, :]).sum(-1))
        given = shares[..., corner, None].to(grad.dtype) * grad[..., None, :]
        by_rows.index_add_(0, place, given.reshape(len(place), -1))
    down, across = corners.down, corners.across
    a, b, c, d = products
    by_y = (1 - across) * (c - a) + across * (d - b)
    by_x = (1 - down) * (b - a) + down * (d - c)
    by_factor = (corners.shares() * torch.stack(products, -1)).sum(-1)
    by_maps = by_rows.view(len(maps), -1, *maps.shape[2:])[:, :-1]
    return by_maps, by_y * factor, by_x * factor, by_factor


def _rows(maps: Tensor) -> Tensor:
    """(B, H * W, N, C) -> (B * (H * W + 1) * N, C): a row of zeros stands behind every map."""
    maps = maps.to(sum_dtype(maps.dtype))
    none = maps.new_zeros(len(maps), 1, *maps.shape[2:])
    return torch.cat([maps, none], 1).flatten(0, 2)


class _Corners(NamedTuple):
    """The positions around every sample."""

    place: Tensor  # (B, S, N, P, 4): their rows; that of the zeros where the map has none
    down: Tensor  # (B, S, N, P): how far the sample lies below the upper two, 0 to 1
    across: Tensor  # (B, S, N, P): how far to the right of the left two

    @classmethod
    def of(cls, size: Sequence[int], y: Tensor, x: Tensor) -> "_Corners":
        batch, _, heads, _ = y.shape
        count = size[0] * size[1]
        parts, beyond = [], []
        for at, length, step in ((y, size[0], size[1]), (x, size[1], 1)):
            at = at.clamp(-2, length + 1)  # what lies outside may be infinite
            first = at.floor()
            beyond.append(at - first)  # NaN if the sample is, which makes its sum NaN
            position = first.nan_to_num().long()
            position = torch.stack([position, position + 1], -1)
            outside = (position < 0) | (position >= length)
            parts.append((position * step).masked_fill_(outside, count))
        place = parts[0][..., None] + parts[1][..., None, :]  # (B, S, N, P, 2, 2)
        image = torch.arange(batch, device=y.device)[:, None, None] * (count + 1)
        head = torch.arange(heads, device=y.device)
        place = place.flatten(-2).clamp_(max=count) + image[..., None, None]
        return cls(place * heads + head[:, None, None], *beyond)

    def shares(self) -> Tensor:
        """(B, S, N, P, 4): how much of each position is in the sample."""
        down = torch.stack([1 - self.down, self.down], -1)
        across = torch.stack([1 - self.across, self.across], -1)
        return (down[..., None] * across[..., None, :]).flatten(-2)
