"""Parts of mmcv, mmdet and torch that look at values or fixed sizes, in a form that a trace takes.

`traceable` has a model use these while it is traced.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = Sequence[tuple[int, int]]  # height and width of each map, numbers or symbols of a trace


@contextlib.contextmanager
def traceable(graph: Any, sampling: str) -> Iterator[None]:
    """Have a model compute the same in operations that a trace takes.

    Args:
        sampling: how deformable attention reads maps: "grid" by grid_sample, or "gather" by adding
            up the four cells around a point, which runtimes do not round otherwise.
    """
    backbone = graph.model.backbone
    replaced: list[Any] = [backbone]
    backbone.forward = _contiguous(backbone.forward)
    for module in graph.modules():
        forward: Callable[..., Any] | None = None
        if isinstance(module, nn.AdaptiveAvgPool2d):
            forward = _adaptive_average
        elif all(hasattr(module, name) for name in ("sampling_offsets", "value_proj")):
            forward = _deformable(sampling)
        elif hasattr(module, "point_generator") and hasattr(module, "postional_encoding"):
            forward = _pixel_decoder
        if forward is not None:
            module.forward = MethodType(forward, module)
            replaced.append(module)
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _contiguous(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Have a backbone return maps in rows: of channels last, a trace asks which sizes divide."""
    return lambda image: tuple(values.contiguous() for values in forward(image))


def _adaptive_average(self: nn.AdaptiveAvgPool2d, maps: Tensor) -> Tensor:
    """Average cells of any size, as products with the share that each row and column has."""
    sides = self.output_size
    down, across = sides if isinstance(sides, Sequence) else (sides, sides)
    rows, columns = (
        maps.shape[axis] if side is None else side for axis, side in ((2, down), (3, across))
    )
    if rows == columns == 1:
        return maps.mean((2, 3), keepdim=True)
    by_rows = _shares(maps.shape[2], rows, maps)
    by_columns = _shares(maps.shape[3], columns, maps)
    return F.linear(F.linear(maps, by_columns).mT, by_rows).mT


def _shares(length: int, cells: int, like: Tensor) -> Tensor:
    """Return (cells, length): the share of each place in the mean of each cell."""
    cell = torch.arange(cells, device=like.device)
    first = cell * length // cells
    last = ((cell + 1) * length + cells - 1) // cells
    place = torch.arange(length, device=like.device)
    inside = (place >= first[:, None]) & (place < last[:, None])
    return inside.to(like.dtype) / (last - first).to(like.dtype)[:, None]


def _deformable(sampling: str) -> Callable[..., Tensor]:
    sample = _by_grid if sampling == "grid" else _by_gather

    def forward(
        self: Any,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        identity: Tensor | None = None,
        query_pos: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        reference_points: Tensor | None = None,
        spatial_shapes: Sizes = (),
        **_: Any,
    ) -> Tensor:
        """Compute mmcv's MultiScaleDeformableAttention (arXiv 2010.04159, eq. 3)."""
        assert reference_points is not None
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        if not self.batch_first:
            query, value = query.transpose(0, 1), value.transpose(0, 1)
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        maps = self.value_proj(value).unflatten(2, (heads, -1))
        offsets = self.sampling_offsets(query).unflatten(2, (heads, levels, points, 2))
        weights = self.attention_weights(query).unflatten(2, (heads, levels * points))
        weights = weights.softmax(-1).unflatten(3, (levels, points))
        found, start = [], 0
        for level, (height, width) in enumerate(spatial_shapes):
            centre = reference_points[:, :, None, level, None, :]  # (B, Q, 1, 1, 2 or 4)
            if reference_points.shape[-1] == 2:
                across, down = offsets[:, :, :, level].unbind(-1)
                place = centre + torch.stack([across / width, down / height], -1)
            else:
                reach = centre[..., 2:] * (0.5 / points)
                place = centre[..., :2] + offsets[:, :, :, level] * reach
            part = maps[:, start : start + height * width]
            found.append(sample(part, (height, width), place, weights[:, :, :, level]))
            start = start + height * width
        out = self.output_proj(sum(found[1:], found[0]))
        return (out if self.batch_first else out.transpose(0, 1)) + identity

    return forward


def _by_grid(maps: Tensor, size: tuple[int, int], place: Tensor, weights: Tensor) -> Tensor:
    """Return what weighted points hold of a map.

    Args:
        maps: (B, H * W, N, D).
        size: H and W.
        place: (B, Q, N, P, 2), x then y, 0 to 1.
        weights: (B, Q, N, P).

    Returns:
        (B, Q, N * D).
    """
    batch, _, heads, channels = maps.shape
    queries, points = place.shape[1], place.shape[3]
    rows = maps.permute(0, 2, 3, 1).reshape(batch * heads, channels, *size)
    grid = (place * 2 - 1).permute(0, 2, 1, 3, 4).reshape(batch * heads, queries, points, 2)
    found = F.grid_sample(rows, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    shares = weights.permute(0, 2, 1, 3).reshape(batch * heads, 1, queries, points)
    total = (found * shares).sum(3)  # (B * N, D, Q)
    return total.reshape(batch, heads * channels, queries).transpose(1, 2)


def _by_gather(maps: Tensor, size: tuple[int, int], place: Tensor, weights: Tensor) -> Tensor:
    """Compute `_by_grid` by adding up the four cells around each point."""
    batch, _, heads, channels = maps.shape
    queries, points = place.shape[1], place.shape[3]
    height, width = size
    x, y = place[..., 0] * width - 0.5, place[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    right, below = x - left, y - top
    rows = maps.permute(0, 2, 1, 3)  # (B, N, K, D)
    total = None
    for down, across, share in (
        (0, 0, (1 - below) * (1 - right)),
        (0, 1, (1 - below) * right),
        (1, 0, below * (1 - right)),
        (1, 1, below * right),
    ):
        row, column = top + down, left + across
        inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
        cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        cell = cell.long().permute(0, 2, 1, 3).reshape(batch, heads, queries * points, 1)
        factor = torch.where(inside, share * weights, 0.0).permute(0, 2, 1, 3)
        held = rows.gather(2, cell.expand(-1, -1, -1, channels))
        part = held.unflatten(2, (queries, points)) * factor[..., None]
        total = part if total is None else total + part
    assert total is not None
    return total.sum(3).permute(0, 2, 1, 3).flatten(2)  # (B, N, Q, P, D) -> (B, Q, N * D)


def _pixel_decoder(self: Any, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Compute mmdet's MSDeformAttnPixelDecoder, the sizes of maps as symbols."""
    batch, count = maps[0].shape[0], self.num_encoder_levels
    rows, places, cells, sizes = [], [], [], []
    for level in range(count):
        values = maps[self.num_input_levels - level - 1]
        height, width = values.shape[-2:]
        nowhere = values.new_zeros((batch, height, width), dtype=torch.bool)
        place = self.postional_encoding(nowhere)
        place = place + self.level_encoding.weight[level].view(1, -1, 1, 1)
        rows.append(self.input_convs[level](values).flatten(2).transpose(1, 2))
        places.append(place.flatten(2).transpose(1, 2))
        sizes.append((height, width))
        cells.append(centres(height, width, values))
    points = torch.cat(cells)[None, :, None].expand(batch, -1, count, -1)
    memory = self.encoder(
        query=torch.cat(rows, 1),
        query_pos=torch.cat(places, 1),
        key_padding_mask=None,
        spatial_shapes=sizes,
        reference_points=points,
        level_start_index=None,
        valid_ratios=maps[0].new_ones((batch, count, 2)),
    ).transpose(1, 2)
    outs, start = [], 0
    for height, width in sizes:
        outs.append(memory[:, :, start : start + height * width].unflatten(2, (height, width)))
        start = start + height * width
    for level in range(self.num_input_levels - count - 1, -1, -1):
        lateral = self.lateral_convs[level](maps[level])
        coarse = F.interpolate(
            outs[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False
        )
        outs.append(self.output_convs[level](lateral + coarse))
    return self.mask_feature(outs[-1]), outs[: self.num_outs]


def centres(height: int, width: int, like: Tensor) -> Tensor:
    """Return (H * W, 2) centres of cells, x then y, 0 to 1."""
    rows = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    columns = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([across, down], -1).flatten(0, 1)
