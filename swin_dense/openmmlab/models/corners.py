"""Corners of objects: pooled, where they are to be found, and where they were found.

Of RepPoints V2 (arXiv 2007.08508), after CornerNet (arXiv 1808.01244). Letters: n objects, h w of
one level. A place is at (column, row) * stride pixels.
"""

from typing import Any

import torch
from mmcv.cnn import ConvModule
from mmdet.models.dense_heads.corner_head import BiCornerPool
from mmdet.models.utils import gaussian_radius
from torch import Tensor

OVERLAP = 0.7  # that a box keeps whose corners are off by their radius


class CornerPools(BiCornerPool):
    """mmdet's two corner pools with a shortcut; what they found is joined by a 1x1 convolution."""

    def __init__(
        self, channels: int, pooled: int, directions: tuple[str, str], norm_cfg: dict[str, Any]
    ) -> None:
        super().__init__(channels, list(directions), pooled, channels, norm_cfg)
        self.conv2 = ConvModule(channels, channels, 1, norm_cfg=norm_cfg)


def radii(boxes: Tensor) -> Tensor:
    """(n, 4) -> (n,) pixels by which corners may be off.

    mmdet's: the smallest of three radii at which a box overlaps its object by OVERLAP still, whose
    corners are both off inwards, outwards, or one each. Theirs takes it in pixels of the image for
    every level, so that on a coarse one hardly a place but the nearest is within it.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).tolist()
    return boxes.new_tensor([gaussian_radius((h, w), OVERLAP) for w, h in sides])


def corner_targets(
    corners: Tensor, radius: Tensor, size: tuple[int, int], stride: int
) -> tuple[Tensor, Tensor]:
    """Return the targets of one level for one of the objects' corners, such as the top left.

    Args:
        corners: (n, 2), x and y in pixels.
        radius: (n,) pixels.
        size: h, w of the level.
        stride: pixels between two places.

    Returns:
        Heat (h, w): 1 at the place nearest to a corner, less by distance within its radius, else 0;
        offset (2, h, w): from there to the corner in strides, 0 at all other places. A place that
        is nearest to several is that of the closest.
    """
    heat, offset = corners.new_zeros(size), corners.new_zeros(2, *size)
    if not len(corners):
        return heat, offset
    columns, rows = (torch.arange(s, device=corners.device) * stride for s in size[::-1])
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).flatten(0, 1)  # (hw, 2)
    gaps = corners[:, None] - places  # (n, hw, 2)
    distance = gaps.norm(dim=-1)
    sigma = (2 * radius[:, None] + 1) / 6
    bumps = torch.exp(-((distance / sigma) ** 2) / 2) * (distance < radius[:, None])
    least, nearest = distance.min(1, keepdim=True)
    claims = torch.full_like(distance, torch.inf).scatter(1, nearest, least)
    closest, owner = claims.min(0)
    taken = closest.isfinite()
    heat = torch.where(taken, 1.0, bumps.amax(0)).view(size)
    own = gaps[owner, torch.arange(len(places), device=owner.device)] / stride
    offset = torch.where(taken, own.T, 0.0).view(2, *size)
    return heat, offset


def snap(points: Tensor, heat: Tensor, offset: Tensor, stride: int) -> Tensor:
    """Points to where the hottest of four places around each says its corner is.

    Args:
        points: (n, 2), x and y in pixels.
        heat: (h, w); only its order counts.
        offset: (2, h, w), from a place to its corner, in strides.

    Returns:
        (n, 2), x and y in pixels.
    """
    last = points.new_tensor(heat.shape[::-1], dtype=torch.long) - 1
    first = (points / stride).floor().long()
    first = first.clamp(min=0).minimum((last - 1).clamp(min=0))
    window = first.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    places = (first[:, None] + window).minimum(last)  # (n, 4, 2)
    hottest = heat[places[..., 1], places[..., 0]].argmax(1)
    found = places[torch.arange(len(places), device=places.device), hottest]
    return (found + offset[:, found[:, 1], found[:, 0]].T) * stride
