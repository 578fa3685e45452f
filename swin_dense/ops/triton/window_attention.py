"""Window attention in Triton, for windows of at most 64 tokens; it means what
reference.window_attention means.

A program has one head, and one window in the forward, a row of windows in the backward. What is
summed over windows is added up in their order by a program and then over programs by torch, so
that the bits are the same every time.

Letters: B images, N heads, D channels of a head, L tokens of a window. ROWS is L and COLUMNS is D,
rounded up to what a product can have.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops.triton import launch

_PROGRAMS = 1024  # of the backward, about; more would mean more sums to add up
_MOST_PARTIAL = 1 << 24  # numbers in the sums of the bias, 64 MiB

# Triton's own once a kernel is needed: its language, and its name for what is fixed.
tl: Any = None
constexpr: TypeAlias = int


def why_not(qkv: Tensor, window: int) -> str | None:
    """Return the reason why the kernels cannot take this call, in words, or None."""
    if window > 8:
        return f"the Triton kernels hold windows of at most 8x8 tokens, not {window}x{window}"
    if qkv.shape[5] > 64:
        return f"the Triton kernels hold heads of at most 64 channels, these have {qkv.shape[5]}"
    return launch.why_not(qkv)


def forward(
    qkv: Tensor, bias: Tensor, pad_qkv: Tensor, scale: Tensor, window: int, shift: int, cosine: bool
) -> Tensor:
    """(B, H, W, 3, N, D) -> (B, H, W, N * D), in the dtype of `qkv`."""
    batch, height, width, _, heads, channels = qkv.shape
    kept = launch.kept_in(qkv.dtype)
    fixed = _fixed(window, shift, channels, cosine, kept)
    added = _whole_tiles(bias, fixed["ROWS"])
    inputs = [x.contiguous() for x in (qkv.to(kept), added, pad_qkv.to(kept), scale)]
    out = qkv.new_empty((batch, height, width, heads * channels), dtype=kept)
    windows = batch * -(-height // window) * -(-width // window)
    if windows:
        with launch.on(qkv):
            _kernels()[0][(windows * heads,)](*inputs, out, height, width, heads, **fixed)
    return out.to(qkv.dtype)


def backward(
    grad: Tensor,
    qkv: Tensor,
    bias: Tensor,
    pad_qkv: Tensor,
    scale: Tensor,
    window: int,
    shift: int,
    cosine: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of qkv, bias, pad_qkv and scale."""
    batch, height, width, _, heads, channels = qkv.shape
    kept = launch.kept_in(qkv.dtype)
    fixed = _fixed(window, shift, channels, cosine, kept)
    added = _whole_tiles(bias, fixed["ROWS"])
    inputs = [x.contiguous() for x in (qkv.to(kept), added, pad_qkv.to(kept), scale, grad.to(kept))]
    by_qkv = torch.empty_like(inputs[0])
    by_pad = torch.zeros_like(inputs[2])  # that of its q stays so: nobody asks what it sees
    windows = batch * -(-height // window) * -(-width // window)
    if windows == 0:
        return by_qkv.to(qkv.dtype), bias.new_zeros(bias.shape), by_pad.to(qkv.dtype), scale * 0
    # By the sizes alone, so that the order of the sums is that on any device.
    groups = max(min(_PROGRAMS // heads, _MOST_PARTIAL // added.numel(), windows), 1)
    each = -(-windows // groups)
    groups = -(-windows // each)
    sums = [
        torch.empty((groups, *shape), dtype=torch.float32, device=qkv.device)
        for shape in (added.shape, (2, heads, channels), scale.shape)
    ]
    with launch.on(qkv):
        _kernels()[1][(groups * heads,)](
            *inputs, by_qkv, *sums, height, width, heads, windows, each, **fixed
        )
    by_bias, by_key_and_value, by_scale = (x.sum(0) for x in sums)
    by_bias = by_bias[:, : window * window, : window * window].contiguous()
    by_pad[1:] = by_key_and_value
    return by_qkv.to(qkv.dtype), by_bias, by_pad.to(qkv.dtype), by_scale


def _whole_tiles(bias: Tensor, rows: int) -> Tensor:
    """Extend (N, L, L) to (N, ROWS, ROWS): keys that there are not are seen by nobody."""
    more = rows - bias.shape[1]
    return F.pad(F.pad(bias, (0, more), value=float("-inf")), (0, 0, 0, more))


def _fixed(
    window: int, shift: int, channels: int, cosine: bool, dtype: torch.dtype
) -> dict[str, Any]:
    rows = launch.power_of_two(window * window, 16, 64)
    columns = launch.power_of_two(channels, 16, 64)
    # So many warps that the registers of their threads suffice, or nearly: tensor cores have 16
    # rows for a warp, and take no float32. Of that two windows at a time are more than some cards'
    # memory holds.
    if dtype == torch.float32:
        options = launch.options(rows // 4, stages=1)
    else:
        options = launch.options(rows // (16 if columns <= 32 else 8), stages=2)
    return {
        "WINDOW": window,
        "SHIFT": shift,
        "CHANNELS": channels,
        "COSINE": cosine,
        "ROWS": rows,
        "COLUMNS": columns,
        **options,
    }


@functools.cache
def _kernels() -> list[Any]:
    """Return the kernels of forward and backward; Triton is imported by now."""
    parts = ("_lay", "_read", "_part", "_near_one", "_through_length", "_product", "_weighted")
    return launch.load(globals(), (*parts, "_weights"), ("_forward", "_backward"))


# --- Kernels: no Python from here on, but what Triton reads --------------------------------------


def _lay(number, n_height, n_width, WINDOW: constexpr, SHIFT: constexpr, ROWS: constexpr):
    """Place each token of a window: in the map of its image, or outside of it, and its region."""
    down = (n_height + WINDOW - 1) // WINDOW * WINDOW
    across = (n_width + WINDOW - 1) // WINDOW * WINDOW
    in_row = across // WINDOW
    above = number // in_row
    image = above // (down // WINDOW)
    row = tl.arange(0, ROWS)
    # A row after the last token stands for it, so that it sees something and no NaN comes up.
    token = tl.minimum(row, WINDOW * WINDOW - 1)
    y = above % (down // WINDOW) * WINDOW + token // WINDOW
    x = number % in_row * WINDOW + token % WINDOW
    # On the map as the shift has turned it: tokens that it brought together do not see each other.
    region = tl.where(y >= down - SHIFT, 2, 0) + tl.where(x >= across - SHIFT, 1, 0)
    y = (y + SHIFT) % down
    x = (x + SHIFT) % across
    place = (image.to(tl.int64) * n_height + y) * n_width + x
    real = row < WINDOW * WINDOW
    inside = real & (y < n_height) & (x < n_width)
    outside = real & ((y >= n_height) | (x >= n_width))
    return place, inside, outside, region


def _read(base, stride, place, wanted, CHANNELS: constexpr, COLUMNS: constexpr):
    """Read D numbers for each token that is wanted, else zeros: (ROWS, COLUMNS)."""
    column = tl.arange(0, COLUMNS)
    mask = wanted[:, None] & (column < CHANNELS)[None, :]
    return tl.load(base + place[:, None] * stride + column[None, :], mask=mask, other=0.0)


def _part(
    qkv, pad, head, n_heads, place, inside, outside,
    WHICH: constexpr, CHANNELS: constexpr, COLUMNS: constexpr,
):  # fmt: skip
    """Read q, k or v of each token, WHICH is 0, 1 or 2; outside the map what is carried there."""
    offset = (n_heads * WHICH + head) * CHANNELS
    x = _read(qkv + offset, n_heads * 3 * CHANNELS, place, inside, CHANNELS, COLUMNS)
    if WHICH > 0:  # nobody asks what a token outside the map sees
        x += _read(pad + offset, 0, place, outside, CHANNELS, COLUMNS)
    return x


def _near_one(x):
    """Bring rows near length 1 by a power of two, which rounds nothing away.

    Also returned, one for each row: the factor for the rest of the way, 1 / length, and the length.
    """
    wide = x.to(tl.float32)
    norm = tl.sqrt(tl.sum(wide * wide, 1))
    inverse = 1.0 / tl.maximum(norm, 1e-12)
    power = (inverse.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    factor = tl.where(power > 0.0, inverse / power, 0.0)
    return (wide * power[:, None]).to(x.dtype), factor, inverse, norm


def _through_length(grad, near, factor, inverse, norm):
    """Turn the gradient of rows of length 1 into that of the rows as they came."""
    x = near.to(tl.float32) * factor[:, None]
    along = tl.where(norm < 1e-12, 0.0, tl.sum(grad * x, 1))  # else it was divided by its length
    return (grad - along[:, None] * x) * inverse[:, None]


def _product(a, b):
    """(ROWS, COLUMNS) twice -> (ROWS, ROWS), in float32."""
    return tl.dot(a, tl.trans(b), input_precision="ieee")


def _weighted(weights, x):
    """(ROWS, ROWS) in float32, (ROWS, COLUMNS) -> (ROWS, COLUMNS) in float32."""
    if x.dtype == tl.float16:  # its numbers end at 65504 and at 6e-8
        largest = tl.max(tl.max(tl.abs(weights), 1), 0)
        most = tl.where((largest > 0.0) & (largest < float("inf")), largest, 1.0)
        sums = tl.dot((weights / most).to(x.dtype), x, input_precision="ieee") * most
    else:
        sums = tl.dot(weights.to(x.dtype), x, input_precision="ieee")
    return sums


def _weights(products, bias, scale, region, SHIFT: constexpr):
    """Turn products of queries and keys into exponentials and their sum, one for each row."""
    logits = products * scale + bias
    if SHIFT > 0:
        logits = tl.where(region[:, None] == region[None, :], logits, float("-inf"))
    weights = tl.exp(logits - tl.max(logits, 1)[:, None])
    return weights, tl.sum(weights, 1)


def _forward(
    qkv, bias, pad, scale, out, n_height, n_width, n_heads,
    WINDOW: constexpr, SHIFT: constexpr, CHANNELS: constexpr, COSINE: constexpr,
    ROWS: constexpr, COLUMNS: constexpr,
):  # fmt: skip
    head = tl.program_id(0) % n_heads
    number = tl.program_id(0) // n_heads
    place, inside, outside, region = _lay(number, n_height, n_width, WINDOW, SHIFT, ROWS)
    q = _part(qkv, pad, head, n_heads, place, inside, outside, 0, CHANNELS, COLUMNS)
    k = _part(qkv, pad, head, n_heads, place, inside, outside, 1, CHANNELS, COLUMNS)
    v = _part(qkv, pad, head, n_heads, place, inside, outside, 2, CHANNELS, COLUMNS)
    row = tl.arange(0, ROWS)
    added = tl.load(bias + head * ROWS * ROWS + row[:, None] * ROWS + row[None, :])
    if COSINE:
        q, q_factor, _, _ = _near_one(q)
        k, k_factor, _, _ = _near_one(k)
    products = _product(q, k)
    if COSINE:
        products *= q_factor[:, None] * k_factor[None, :]
    weights, total = _weights(products, added, tl.load(scale + head), region, SHIFT)
    sums = tl.dot(weights.to(v.dtype), v, input_precision="ieee") / total[:, None]
    column = tl.arange(0, COLUMNS)
    mask = inside[:, None] & (column < CHANNELS)[None, :]
    to = out + head * CHANNELS + place[:, None] * (n_heads * CHANNELS) + column[None, :]
    tl.store(to, sums.to(v.dtype), mask=mask)


def _backward(
    qkv, bias, pad, scale, grad, by_qkv, by_bias, by_pad, by_scale,
    n_height, n_width, n_heads, n_windows, n_each,
    WINDOW: constexpr, SHIFT: constexpr, CHANNELS: constexpr, COSINE: constexpr,
    ROWS: constexpr, COLUMNS: constexpr,
):  # fmt: skip
    head = tl.program_id(0) % n_heads
    group = tl.program_id(0) // n_heads
    part = n_heads * CHANNELS
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    added = tl.load(bias + head * ROWS * ROWS + row[:, None] * ROWS + row[None, :])
    factor = tl.load(scale + head)
    bias_sum = tl.zeros((ROWS, ROWS), tl.float32)
    scale_sum = tl.zeros((ROWS,), tl.float32)
    k_pad_sum = tl.zeros((COLUMNS,), tl.float32)
    v_pad_sum = tl.zeros((COLUMNS,), tl.float32)
    first = group * n_each
    for number in range(first, tl.minimum(first + n_each, n_windows)):
        place, inside, outside, region = _lay(number, n_height, n_width, WINDOW, SHIFT, ROWS)
        q = _part(qkv, pad, head, n_heads, place, inside, outside, 0, CHANNELS, COLUMNS)
        k = _part(qkv, pad, head, n_heads, place, inside, outside, 1, CHANNELS, COLUMNS)
        v = _part(qkv, pad, head, n_heads, place, inside, outside, 2, CHANNELS, COLUMNS)
        given = _read(grad + head * CHANNELS, part, place, inside, CHANNELS, COLUMNS)
        if COSINE:
            q, q_factor, q_inverse, q_norm = _near_one(q)
            k, k_factor, k_inverse, k_norm = _near_one(k)
        products = _product(q, k)
        if COSINE:
            products *= q_factor[:, None] * k_factor[None, :]
        weights, total = _weights(products, added, factor, region, SHIFT)
        weights = weights / total[:, None]
        by_weights = _product(given, v)
        mean = tl.sum(by_weights * weights, 1)
        by_logits = weights * (by_weights - mean[:, None])
        bias_sum += by_logits
        scale_sum += tl.sum(by_logits * products, 1)
        by_v = _weighted(tl.trans(weights), given)
        if COSINE:
            by_q = _weighted(by_logits * k_factor[None, :], k) * factor
            by_k = _weighted(tl.trans(by_logits * q_factor[:, None]), q) * factor
            by_q = _through_length(by_q, q, q_factor, q_inverse, q_norm)
            by_k = _through_length(by_k, k, k_factor, k_inverse, k_norm)
        else:
            by_q = _weighted(by_logits, k) * factor
            by_k = _weighted(tl.trans(by_logits), q) * factor
        k_pad_sum += tl.sum(tl.where(outside[:, None], by_k, 0.0), 0)
        v_pad_sum += tl.sum(tl.where(outside[:, None], by_v, 0.0), 0)
        mask = inside[:, None] & (column < CHANNELS)[None, :]
        to = by_qkv + head * CHANNELS + place[:, None] * (part * 3) + column[None, :]
        tl.store(to, by_q.to(q.dtype), mask=mask)
        tl.store(to + part, by_k.to(q.dtype), mask=mask)
        tl.store(to + part * 2, by_v.to(q.dtype), mask=mask)
    slot = group * n_heads + head
    tl.store(by_bias + slot * ROWS * ROWS + row[:, None] * ROWS + row[None, :], bias_sum)
    tl.store(by_scale + slot, tl.sum(scale_sum, 0))
    to = by_pad + (group * 2 * n_heads + head) * CHANNELS + column
    tl.store(to, k_pad_sum, mask=column < CHANNELS)
    tl.store(to + part, v_pad_sum, mask=column < CHANNELS)
