"""Multi-scale deformable attention in Triton; it means what reference.ms_deform_attn means.

A program has some neighbouring queries of one head, which mostly look at neighbouring places, and
in the forward a part of the channels. The sizes of the maps are read by the kernel: the host would
have to wait for them. Where they do not add up to K everything becomes NaN.

What many queries add to the same value goes through atomics, in float32: its last bits depend on
the order of the programs. The gradients of locations and weights come out the same every time.

Letters: B images, K positions of all maps together, N heads, D channels of a head, Q queries, L
maps, P points in each. ROWS are the queries of a program, COLUMNS the channels at a time.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import torch
from torch import Tensor

from swin_dense.ops.triton import launch

_NUMBERS = 1024  # of queries times channels, at a time
_AT_ONCE = 4  # points that are under way together in the forward, at most

# Triton's own once a kernel is needed: its language, and its name for what is fixed.
tl: Any = None
constexpr: TypeAlias = int


def why_not(value: Tensor) -> str | None:
    """Return the reason why the kernels cannot take this call, in words, or None."""
    return launch.why_not(value)


def forward(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """(B, K, N, D) -> (B, Q, N * D), in the dtype of `value`."""
    batch, keys, heads, channels = value.shape
    queries, levels, points = (attention_weights.shape[axis] for axis in (1, 3, 4))
    kept = launch.kept_in(value.dtype)
    out = value.new_empty((batch, queries, heads * channels), dtype=kept)
    if out.numel():
        fixed = _fixed(channels)
        blocks, parts = -(-queries // fixed["ROWS"]), -(-channels // fixed["COLUMNS"])
        with launch.on(value):
            _kernels()[0][(batch * blocks * parts * heads,)](
                value.to(kept).contiguous(),
                spatial_shapes.contiguous(),
                sampling_locations.contiguous(),
                attention_weights.contiguous(),
                out, keys, queries, heads, levels, points, blocks,
                UNROLLED=min(max(points, 1), _AT_ONCE), **fixed,
            )  # fmt: skip
    return out.to(value.dtype)


def backward(
    grad: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of value, sampling_locations and attention_weights."""
    batch, keys, heads, channels = value.shape
    queries, levels, points = (attention_weights.shape[axis] for axis in (1, 3, 4))
    kept = launch.kept_in(value.dtype)
    by_value = value.new_zeros(value.shape, dtype=torch.float32)
    by_locations = sampling_locations.new_empty(sampling_locations.shape)
    by_weights = attention_weights.new_empty(attention_weights.shape)
    if by_value.numel() or by_weights.numel():
        fixed = _fixed(channels)
        blocks = max(-(-queries // fixed["ROWS"]), 1)  # without queries sizes are read, too
        with launch.on(value):
            _kernels()[1][(batch * blocks * heads,)](
                grad.to(kept).contiguous(),
                value.to(kept).contiguous(),
                spatial_shapes.contiguous(),
                sampling_locations.contiguous(),
                attention_weights.contiguous(),
                by_value, by_locations, by_weights,
                keys, queries, heads, levels, points, blocks, batch, **fixed,
            )  # fmt: skip
    return by_value.to(value.dtype), by_locations, by_weights


def _fixed(channels: int) -> dict[str, Any]:
    columns = launch.power_of_two(max(channels, 1), 16, 64)
    return {
        "CHANNELS": channels,
        "ROWS": _NUMBERS // columns,
        "COLUMNS": columns,
        **launch.options(4),
    }


@functools.cache
def _kernels() -> list[Any]:
    """Return the kernels of forward and backward; Triton is imported by now."""
    parts = ("_size", "_fit", "_map", "_point", "_corner")
    return launch.load(globals(), parts, ("_forward", "_backward"))


# --- Kernels: no Python from here on, but what Triton reads --------------------------------------


def _size(sizes, level, n_keys):
    """Read height and width of a map, no longer than one more than K: their product fits."""
    most = n_keys.to(tl.int64) + 1
    height = tl.minimum(tl.load(sizes + level * 2), most)
    width = tl.minimum(tl.load(sizes + level * 2 + 1), most)
    return height, width


def _fit(sizes, n_levels, n_keys):
    """Tell whether the sizes are those of maps that make up K positions."""
    total = n_keys.to(tl.int64) * 0
    negative = total
    for level in range(n_levels):
        height, width = _size(sizes, level, n_keys)
        negative += tl.where((height < 0) | (width < 0), 1, 0)
        total += tl.minimum(height * width, n_keys.to(tl.int64) + 1)
    return (negative == 0) & (total == n_keys)


def _map(sizes, level, n_keys, fit):
    """Read height and width of a map, 0 if the maps do not fit."""
    height, width = _size(sizes, level, n_keys)
    return tl.where(fit, height, 0).to(tl.int32), tl.where(fit, width, 0).to(tl.int32)


def _point(locations, weights, at, wanted, height, width):
    """Place one sample of each query: its corner at the top left, what lies beyond it, its weight.

    A location that is no number makes what lies beyond it NaN.
    """
    x = tl.load(locations + at * 2, mask=wanted, other=0.0) * width.to(tl.float32) - 0.5
    y = tl.load(locations + at * 2 + 1, mask=wanted, other=0.0) * height.to(tl.float32) - 0.5
    weight = tl.load(weights + at, mask=wanted, other=0.0)
    spoilt = (y != y) | (x != x)
    # Whatever lies further out has no corner in the map either, and fits an integer.
    bottom, end = (height + 1).to(tl.float32), (width + 1).to(tl.float32)
    y = tl.where(y > -2.0, y, -2.0)
    y = tl.where(y < bottom, y, bottom)
    x = tl.where(x > -2.0, x, -2.0)
    x = tl.where(x < end, x, end)
    top, left = tl.floor(y), tl.floor(x)
    down = tl.where(spoilt, float("nan"), y - top)
    right = tl.where(spoilt, float("nan"), x - left)
    return top.to(tl.int32), left.to(tl.int32), down, right, weight, spoilt


def _corner(row, column, spoilt, wanted, height, width, LEADS: constexpr):
    """Find the position of a corner in its map, and whether it is to be read."""
    inside = wanted & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    if LEADS:  # the map's first position hands NaN on
        inside = inside | (wanted & spoilt)
    return tl.where(inside & (spoilt == 0), row * width + column, 0).to(tl.int64), inside


def _forward(
    value, sizes, locations, weights, out,
    n_keys, n_queries, n_heads, n_levels, n_points, n_blocks,
    CHANNELS: constexpr, UNROLLED: constexpr, ROWS: constexpr, COLUMNS: constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    parts = (CHANNELS + COLUMNS - 1) // COLUMNS
    part = number % parts
    head = number // parts % n_heads
    block = number // parts // n_heads % n_blocks
    image = (number // parts // n_heads // n_blocks).to(tl.int64)
    query = block * ROWS + tl.arange(0, ROWS)
    real = query < n_queries
    item = (image * n_queries + query) * n_heads + head
    column = part * COLUMNS + tl.arange(0, COLUMNS)
    there = column < CHANNELS
    base = (image * n_keys * n_heads + head) * CHANNELS
    stride = n_heads * CHANNELS
    fit = _fit(sizes, n_levels, n_keys)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32) + tl.where(fit, 0.0, float("nan"))
    for level in range(n_levels):
        height, width = _map(sizes, level, n_keys, fit)
        for some in range(0, n_points, UNROLLED):
            for i in tl.static_range(UNROLLED):
                on_map = (some + i < n_points) & (height * width > 0)
                wanted = query < tl.where(on_map, n_queries, 0)
                at = (item * n_levels + level) * n_points + some + i
                top, left, down, right, weight, spoilt = _point(
                    locations, weights, at, wanted, height, width
                )
                for c in tl.static_range(4):
                    position, inside = _corner(
                        top + c // 2, left + c % 2, spoilt, wanted, height, width, c == 0
                    )
                    by_row = down if c // 2 else 1.0 - down
                    by_column = right if c % 2 else 1.0 - right
                    share = tl.where(inside, by_row * by_column * weight, 0.0)
                    from_ = value + base + position[:, None] * stride + column[None, :]
                    mask = inside[:, None] & there[None, :]
                    sums += share[:, None] * tl.load(from_, mask=mask, other=0.0).to(tl.float32)
        base += (height * width).to(tl.int64) * stride
    to = out + item[:, None] * CHANNELS + column[None, :]
    tl.store(to, sums.to(value.dtype.element_ty), mask=real[:, None] & there[None, :])


def _backward(
    grad, value, sizes, locations, weights, by_value, by_locations, by_weights,
    n_keys, n_queries, n_heads, n_levels, n_points, n_blocks, n_images,
    CHANNELS: constexpr, ROWS: constexpr, COLUMNS: constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    head = number % n_heads
    block = number // n_heads % n_blocks
    image = (number // n_heads // n_blocks).to(tl.int64)
    query = block * ROWS + tl.arange(0, ROWS)
    real = query < n_queries
    item = (image * n_queries + query) * n_heads + head
    column = tl.arange(0, COLUMNS)
    there = column < CHANNELS
    grads = grad + item[:, None] * CHANNELS + column[None, :]
    given = tl.load(grads, mask=real[:, None] & there[None, :], other=0.0).to(tl.float32)
    base = (image * n_keys * n_heads + head) * CHANNELS
    stride = n_heads * CHANNELS
    fit = _fit(sizes, n_levels, n_keys)
    spoil = tl.where(fit, 0.0, float("nan"))
    for level in range(n_levels):
        height, width = _map(sizes, level, n_keys, fit)
        wanted = query < tl.where(height * width > 0, n_queries, 0)
        for point in range(n_points):
            at = (item * n_levels + level) * n_points + point
            top, left, down, right, weight, spoilt = _point(
                locations, weights, at, wanted, height, width
            )
            by_y = tl.zeros((ROWS,), tl.float32) + spoil
            by_x, by_weight = by_y, by_y
            for c in tl.static_range(4):
                position, inside = _corner(
                    top + c // 2, left + c % 2, spoilt, wanted, height, width, c == 0
                )
                by_row = down if c // 2 else 1.0 - down
                by_column = right if c % 2 else 1.0 - right
                share = tl.where(inside, by_row * by_column * weight, 0.0)
                product = tl.zeros((ROWS,), tl.float32)
                for start in tl.static_range(0, CHANNELS, COLUMNS):
                    there = column < CHANNELS - start
                    if CHANNELS > COLUMNS:
                        mask = real[:, None] & there[None, :]
                        given = tl.load(grads + start, mask=mask, other=0.0).to(tl.float32)
                    mask = inside[:, None] & there[None, :]
                    to = base + start + position[:, None] * stride + column[None, :]
                    found = tl.load(value + to, mask=mask, other=0.0).to(tl.float32)
                    product += tl.sum(given * found, 1)
                    tl.atomic_add(by_value + to, given * share[:, None], mask=mask, sem="relaxed")
                by_y += product * (by_column if c // 2 else -by_column)
                by_x += product * (by_row if c % 2 else -by_row)
                by_weight += product * by_row * by_column
            tl.store(by_locations + at * 2, by_x * weight * width, mask=real)
            tl.store(by_locations + at * 2 + 1, by_y * weight * height, mask=real)
            tl.store(by_weights + at, by_weight, mask=real)
        base += (height * width).to(tl.int64) * stride
    # Maps that do not fit: nothing was added, and all is NaN.
    size = n_images.to(tl.int64) * n_keys * stride
    begin = tl.where(fit, size, number.to(tl.int64) * ROWS * COLUMNS)
    for some in range(begin, size, tl.num_programs(0).to(tl.int64) * ROWS * COLUMNS):
        to = some + tl.arange(0, ROWS * COLUMNS)
        nothing = tl.zeros((ROWS * COLUMNS,), tl.float32) + float("nan")
        tl.store(by_value + to, nothing, mask=to < size)
