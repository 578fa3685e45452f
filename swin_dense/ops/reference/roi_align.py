from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype

_MOST_SAMPLES = 65536  # along one side of one bin; a bin is larger than that by mistake only
_CHUNK = 1 << 22  # numbers roi_align holds at a time, per temporary
_NOWHERE = -2.0  # argmax of a bin whose maximum lies at no sample


def roi_align(
    features: Tensor,
    rois: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    take_max: bool,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(features.device.type, enabled=False):
        return _forward(
            features, rois, _Grid(pooled_height, pooled_width, sampling_ratio),
            spatial_scale, take_max, aligned,
        )  # fmt: skip


def _forward(
    features: Tensor, rois: Tensor, grid: "_Grid", scale: float, take_max: bool, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    channels, height, width = features.shape[1:]
    dtype = sum_dtype(features.dtype)
    shape = (len(rois), grid.height, grid.width, channels)
    out = rois.new_empty(shape, dtype=dtype)
    argmax = [rois.new_empty(shape if take_max else 0, dtype=dtype) for _ in "yx"]
    if out.numel() == 0:
        argmax = [x.permute(0, 3, 1, 2) if take_max else x for x in argmax]
        return out.permute(0, 3, 1, 2).to(features.dtype).contiguous(), argmax[0], argmax[1]

    boxes = _Boxes.read(rois, len(features), scale, aligned)
    pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (B * H * W, C)
    # A sum is finite only if all its terms are, and cheaper to look at.
    holes = not take_max and not bool(pixels.sum(dtype=dtype).isfinite())
    for which in _chunks(boxes, grid, channels, height, width, take_max):
        part = boxes.select(which)
        rows = _Samples.lay(part.y, part.height, grid.height, height, grid.sampling_ratio)
        columns = _Samples.lay(part.x, part.width, grid.width, width, grid.sampling_ratio)
        if take_max:
            found = _maximum(pixels, part, rows, columns, height, width)
            for target, values in zip((out, *argmax), found, strict=True):
                target[which] = values
            continue
        samples = (rows.grid * columns.grid).to(dtype)[:, None, None, None].clamp(min=1)
        down, across = rows.weights(), columns.weights()
        window = pixels[_addresses(part.image, rows, columns)].to(dtype)  # (k, h, w, C)
        if not holes:
            out[which] = _pool(window, down, across) / samples
            continue
        # 0 * NaN would spread a NaN over the whole box: it belongs to the bins that read it.
        bad = ~window.isfinite()
        clean = _pool(window.masked_fill(bad, 0), down, across) / samples
        reached = _pool(bad.to(dtype), rows.weights(reach=True), columns.weights(reach=True)) > 0
        out[which] = clean.masked_fill(reached, float("nan"))

    nowhere = ~boxes.finite[:, None, None, None]
    out.masked_fill_(nowhere, float("nan"))
    if take_max:
        argmax = [x.masked_fill(nowhere, _NOWHERE).permute(0, 3, 1, 2).contiguous() for x in argmax]
    return out.permute(0, 3, 1, 2).to(features.dtype).contiguous(), argmax[0], argmax[1]


def roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    images: int,
    channels: int,
    height: int,
    width: int,
    spatial_scale: float,
    sampling_ratio: int,
    take_max: bool,
    aligned: bool,
) -> Tensor:
    with torch.autocast(grad.device.type, enabled=False):
        dtype = sum_dtype(grad.dtype)
        total = grad.new_zeros(images * height * width, channels, dtype=dtype)
        boxes = _Boxes.read(rois, images, spatial_scale, aligned)
        given = grad.permute(0, 2, 3, 1).masked_fill(~boxes.finite[:, None, None, None], 0)
        if given.numel() and total.numel():
            if take_max:
                _maximum_backward(given, boxes, argmax_y, argmax_x, height, width, total)
            else:
                grid = _Grid(grad.shape[2], grad.shape[3], sampling_ratio)
                _average_backward(given, boxes, grid, height, width, total)
        total = total.view(images, height, width, channels).permute(0, 3, 1, 2)
        return total.to(grad.dtype).contiguous()


def _average_backward(
    given: Tensor, boxes: "_Boxes", grid: "_Grid", height: int, width: int, total: Tensor
) -> None:
    """Add what each position of the map gives to the bins: the two weightings, transposed."""
    for which in _chunks(boxes, grid, given.shape[-1], height, width, False):
        part = boxes.select(which)
        rows = _Samples.lay(part.y, part.height, grid.height, height, grid.sampling_ratio)
        columns = _Samples.lay(part.x, part.width, grid.width, width, grid.sampling_ratio)
        samples = (rows.grid * columns.grid).to(total.dtype)[:, None, None, None]
        share = given[which].to(total.dtype) / samples.clamp(min=1)
        windows = _pool(share, rows.weights().mT, columns.weights().mT)
        _add_windows(total, part.image, rows, columns, windows)


def _maximum_backward(
    given: Tensor, boxes: "_Boxes", argmax_y: Tensor, argmax_x: Tensor,
    height: int, width: int, total: Tensor,
) -> None:  # fmt: skip
    """Add each gradient to the four positions around the sample that was the largest."""
    y, x = (a.permute(0, 2, 3, 1) for a in (argmax_y, argmax_x))
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    channel = torch.arange(given.shape[-1], device=given.device)
    origin = boxes.image[:, None, None, None] * (height * width)
    rows, columns = _neighbours(y, height), _neighbours(x, width)
    for row, row_weight in rows:
        for column, column_weight in columns:
            position = (origin + row * width + column) * given.shape[-1] + channel
            share = (row_weight * column_weight * given).masked_fill(~inside, 0)
            position = position.masked_fill(~inside, 0)
            total.view(-1).index_add_(0, position.reshape(-1), share.reshape(-1))


class _Grid(NamedTuple):
    """How many bins a box is cut into, and samples per side of a bin (0: one per position)."""

    height: int
    width: int
    sampling_ratio: int


class _Boxes(NamedTuple):
    """Boxes in positions of the map: first corner and size."""

    image: Tensor
    y: Tensor
    x: Tensor
    height: Tensor
    width: Tensor
    finite: Tensor  # False: not a box, or of an image that is not there

    @classmethod
    def read(cls, rois: Tensor, images: int, scale: float, aligned: bool) -> "_Boxes":
        image = rois[:, 0]
        corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
        sides = corners[:, 2:] - corners[:, :2]
        finite = (image > -1) & (image < images)
        finite = finite & corners[:, :2].isfinite().all(1) & sides.isfinite().all(1)
        corners = corners.where(finite[:, None], 0.0)
        sides = sides.where(finite[:, None], 0.0).clamp(min=0.0 if aligned else 1.0)
        image = image.where(finite, 0.0).long()
        return cls(image, corners[:, 1], corners[:, 0], sides[:, 1], sides[:, 0], finite)

    def select(self, which: Tensor) -> "_Boxes":
        return _Boxes(*(x[which] for x in self))


class _Samples(NamedTuple):
    """The samples of every bin along one axis of the map, one column per sample."""

    at: Tensor  # (k, bins, S)
    inside: Tensor  # (k, bins, S): in the map; a bin with fewer samples than S is filled up
    low: Tensor  # (k, bins, S): the position before the sample
    high: Tensor  # (k, bins, S): the position after it
    fraction: Tensor  # (k, bins, S): how far the sample lies from low to high
    grid: Tensor  # (k,): samples per bin, with those outside of the map
    first: Tensor  # (k,): the first position that any bin reads
    reach: int  # how many positions from there the bins of a box read, at most
    size: int  # positions of the map along this axis

    @classmethod
    def lay(
        cls, start: Tensor, length: Tensor, bins: int, size: int, sampling_ratio: int
    ) -> "_Samples":
        bin_size = length / bins
        if sampling_ratio > 0:
            grid = torch.full_like(bin_size, sampling_ratio, dtype=torch.long)
        else:
            grid = bin_size.clamp(max=_MOST_SAMPLES).ceil().long()
        # Only what can lie inside the map, with two samples of slack for rounding.
        origin = start[:, None] + torch.arange(bins, device=start.device) * bin_size[:, None]
        step = (bin_size / grid.clamp(min=1))[:, None]
        still = step == 0
        step = step.masked_fill(still, 1)
        most = grid[:, None].to(step.dtype)
        begin = ((-1 - origin) / step - 2.5).masked_fill(still, 0).clamp(min=0).minimum(most)
        end = ((size - origin) / step + 2.5).clamp(min=0).minimum(most)
        begin, end = begin.long(), end.long().where(~still, grid[:, None])
        count = max(int((end - begin).max()), 1)

        number = begin[..., None] + torch.arange(count, device=start.device)
        bin_size, parts = bin_size[:, None, None], grid.clamp(min=1)[:, None, None]
        at = origin[..., None] + (number + 0.5) * bin_size / parts
        inside = (number < end[..., None]) & (at >= -1) & (at <= size)
        (low, _), (high, fraction) = _neighbours(at, size)
        first = low.where(inside, size).amin((1, 2))
        last = high.where(inside, -1).amax((1, 2))
        reach = max(int((last + 1 - first).max()), 1)
        first = first.clamp(max=size - reach)
        return cls(at, inside, low, high, fraction, grid, first, reach, size)

    def weights(self, reach: bool = False) -> Tensor:
        """(k, bins, reach): how much of each position goes into each bin, or whether any does."""
        out = self.at.new_zeros(*self.at.shape[:2], self.reach)
        for position, weight in ((self.low, 1 - self.fraction), (self.high, self.fraction)):
            weight = self.inside.to(out.dtype) if reach else weight.where(self.inside, 0.0)
            place = (position - self.first[:, None, None]).where(self.inside, 0)
            out.scatter_add_(2, place, weight)
        return out


def _neighbours(at: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the positions before and after a coordinate, each with its weight."""
    clamped = at.clamp(min=0)
    low = clamped.clamp(max=size - 1).long()
    high = (low + 1).clamp(max=size - 1)
    fraction = torch.where(high > low, clamped - low, 0.0)
    return (low, 1 - fraction), (high, fraction)


def _pool(window: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(k, h, w, C), (k, H, h), (k, W, w) -> (k, H, W, C)."""
    lines = down @ window.flatten(2)
    return across[:, None] @ lines.unflatten(2, window.shape[2:])


def _addresses(image: Tensor, rows: "_Samples", columns: "_Samples") -> Tensor:
    """(k, h, w): the positions that the boxes read, and for small boxes some more."""
    row = rows.first[:, None] + torch.arange(rows.reach, device=image.device)
    column = columns.first[:, None] + torch.arange(columns.reach, device=image.device)
    return (image[:, None] * rows.size + row)[:, :, None] * columns.size + column[:, None]


def _add_windows(
    total: Tensor, image: Tensor, rows: "_Samples", columns: "_Samples", windows: Tensor
) -> None:
    """Add (k, h, w, C) to (B * H * W, C) where the boxes lie."""
    if total.device.type != "cpu":
        address = _addresses(image, rows, columns)
        total.index_add_(0, address.reshape(-1), windows.reshape(-1, total.shape[1]))
        return
    # On the CPU index_add_ is ten times slower than as many additions to a view.
    maps = total.view(-1, rows.size, columns.size, total.shape[1])
    corners = zip(image.tolist(), rows.first.tolist(), columns.first.tolist(), strict=True)
    for window, (number, y, x) in zip(windows, corners, strict=True):
        maps[number, y : y + rows.reach, x : x + columns.reach] += window


def _maximum(
    pixels: Tensor, part: _Boxes, rows: _Samples, columns: _Samples, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest sample of each bin, its y and its x: each (k, H, W, C)."""
    dtype = sum_dtype(pixels.dtype)
    value = pixels.new_zeros((), dtype=dtype)
    for row, row_weight in ((rows.low, 1 - rows.fraction), (rows.high, rows.fraction)):
        for column, column_weight in (
            (columns.low, 1 - columns.fraction),
            (columns.high, columns.fraction),
        ):
            address = (part.image[:, None, None] * height + row) * width
            address = address[:, :, None, :, None] + column[:, None, :, None, :]
            weight = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
            value = value + weight[..., None] * pixels[address].to(dtype)
    inside = rows.inside[:, :, None, :, None] & columns.inside[:, None, :, None, :]
    value = value.masked_fill(~inside[..., None], float("-inf")).flatten(3, 4)
    best, number = value.max(3)  # (k, H, W, C)
    steps = columns.at.shape[2]
    y = rows.at[:, :, None, None].expand(*best.shape, -1)
    x = columns.at[:, None, :, None].expand(*best.shape, -1)
    y = y.gather(-1, (number // steps)[..., None])[..., 0]
    x = x.gather(-1, (number % steps)[..., None])[..., 0]
    # Samples outside of the map are worth 0; a bin without samples is, too.
    samples = (rows.grid * columns.grid)[:, None, None, None]
    others = (inside.flatten(3).sum(3)[..., None] < samples) | (samples == 0)
    outside = others & (best < 0)
    return (
        best.masked_fill(outside, 0),
        y.masked_fill(outside, _NOWHERE),
        x.masked_fill(outside, _NOWHERE),
    )


def _chunks(
    boxes: _Boxes, grid: _Grid, channels: int, height: int, width: int, take_max: bool
) -> Iterator[Tensor]:
    """Boxes of like size together, no more at a time than keep a temporary near _CHUNK numbers."""
    sides = []
    for length, bins, size in (
        (boxes.height, grid.height, height),
        (boxes.width, grid.width, width),
    ):
        # How many positions (or, for a maximum, samples) a box reads along this axis.
        reads = (length + 2).clamp(max=size)
        if take_max:
            per_bin = (length / bins).ceil().clamp(max=size + 6)
            reads = bins * (
                per_bin if grid.sampling_ratio == 0 else per_bin * 0 + grid.sampling_ratio
            )
        sides.append(reads.clamp(min=1))
    # Sides of one class are within a factor of 1.5, so at most half a window is padding.
    classes = torch.stack(sides).double().log2().div(0.585).floor().long()
    key = (classes[0] * 64 + classes[1]).tolist()
    cost = (sides[0] * sides[1]).tolist()
    order = sorted(range(len(key)), key=lambda i: (key[i], cost[i]))
    begin = 0
    while begin < len(order):
        end, largest = begin, 0.0
        while end < len(order) and key[order[end]] == key[order[begin]]:
            largest = max(largest, cost[order[end]])
            if end > begin and (end + 1 - begin) * largest * channels > _CHUNK:
                break
            end += 1
        yield torch.tensor(order[begin:end], device=boxes.y.device)
        begin = end
