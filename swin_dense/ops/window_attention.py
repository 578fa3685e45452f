"""Attention inside the windows of a token map, shifted or not, for maps of any size.

Letters: B images, H W tokens in a column and a row, N heads, D channels of a head, L tokens of a
window, I J windows in a column and a row.

The map is first extended at the bottom and the right to whole windows, then turned by `shift`
tokens towards the top left, then cut. Here that is one table of addresses, kept for the last few
map sizes: every token is copied once into its place in its window and once back out.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def window_attention(
    qkv: Tensor,
    bias: Tensor,
    pad_qkv: Tensor,
    window: int,
    shift: int,
    scale: float | None = None,
) -> Tensor:
    """Let the tokens of each window look at one another.

    (B, H, W, 3, N, D) -> (B, H, W, N * D), dtype of `qkv`.

    Args:
        qkv: the map as the projection leaves it: not extended, not turned, not cut, not scaled.
        bias: (N, L, L), added to the logits of every window.
        pad_qkv: (3, N, D), what positions outside the map carry. They are looked at like any
            other token; pass the bias of the projection, since it is given zeros there.
        window: side of a window, in tokens.
        shift: how far the windows are moved to the bottom right, in tokens. Those that then
            reach around the border see only tokens from their own side of it.
        scale: factor on q; None for D ** -0.5.
    """
    _check(qkv, bias, pad_qkv, window, shift)
    batch, height, width, _, heads, head_dim = qkv.shape
    if batch == 0:
        return qkv[:, :, :, 2].flatten(-2)  # as empty as the answer, and differentiable

    # A tensor that only stands for one (tracing, fake mode) must not be kept for the next call.
    traced = torch.compiler.is_compiling() or type(qkv) is not Tensor
    lookup = _addresses.__wrapped__ if traced else _addresses
    into, back, rows, columns = lookup(height, width, heads, window, shift, qkv.device)

    # Copy every token to its place in its window; slot H * W holds the one from outside the map.
    tokens = qkv.flatten(1, 2)
    if len(rows) * len(columns) * window * window != height * width:
        outside = pad_qkv.to(qkv.dtype).expand(batch, 1, *pad_qkv.shape)
        tokens = torch.cat([tokens, outside], dim=1)
    vectors = tokens.reshape(batch, -1, head_dim).index_select(1, into)
    q, k, v = vectors.view(batch, 3, -1, heads, window * window, head_dim).transpose(0, 1)

    # Attend. The two regions tables are added together here because each of them is tiny.
    logits_bias = bias.to(qkv.dtype)[None]  # (1, N, L, L)
    if shift:
        regions = (logits_bias + rows.to(qkv.dtype)[:, None]) + columns.to(qkv.dtype)
        logits_bias = regions.expand(batch, *regions.shape).flatten(0, 2)  # (B * I * J, N, L, L)
    out = F.scaled_dot_product_attention(
        q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1), attn_mask=logits_bias, scale=scale
    )

    # Copy back those that lie on the map.
    out = out.transpose(1, 2).reshape(batch, -1, heads * head_dim)
    return out.index_select(1, back).view(batch, height, width, heads * head_dim)


class _Addresses(NamedTuple):
    """Where tokens go for one size of map."""

    into: Tensor  # (3 * I * J * N * L,): which vector of D numbers of the map stands there
    back: Tensor  # (H * W,): which window token belongs there
    rows: Tensor  # (I, 1, L, L): 0, or -inf between tokens from two sides of the border
    columns: Tensor  # (J, 1, L, L): the same for the left and right border


# Four sizes of image fill 32 entries for a backbone of four stages, shifted and not. The largest,
# the first stage of an 800x1216 image, is 3.2 MB.
@lru_cache(maxsize=32)
@torch.inference_mode(False)  # else an evaluation first would make tables no training can use
def _addresses(
    height: int, width: int, heads: int, window: int, shift: int, device: torch.device
) -> _Addresses:
    def steps(end: int) -> Tensor:
        return torch.arange(end, device=device)

    across, down = -(-width // window), -(-height // window)
    length = window * window

    # Which token of the map stands at each position of the turned map: H * W means none.
    row = (steps(down * window) + shift) % (down * window)
    column = (steps(across * window) + shift) % (across * window)
    inside = (row[:, None] < height) & (column < width)
    token = (row[:, None] * width + column).masked_fill(~inside, height * width)
    token = token.view(down, window, across, window).transpose(1, 2)
    token = token.reshape(1, -1, 1, length)
    part, head = steps(3).view(3, 1, 1, 1), steps(heads).view(1, 1, heads, 1)
    into = (token * 3 + part) * heads + head

    # The same read the other way. The sum never goes below 0, for torch.compile.
    row = (steps(height) + down * window - shift) % (down * window)
    column = (steps(width) + across * window - shift) % (across * window)
    box = (row // window)[:, None] * across + column // window
    back = box * length + (row % window)[:, None] * window + column % window

    # Only the last window of a line holds tokens from two sides of the border.
    wrapped = (steps(window) + shift) // window  # 0 on the near side, 1 beyond the border
    rows = torch.zeros(down, 1, length, length, device=device)
    columns = torch.zeros(across, 1, length, length, device=device)
    for table, side in (
        (rows, wrapped.repeat_interleave(window)),
        (columns, wrapped.repeat(window)),
    ):
        table[-1].masked_fill_(side[:, None] != side, float("-inf"))
    return _Addresses(into.flatten().int(), back.flatten().int(), rows, columns)


def _check(qkv: Tensor, bias: Tensor, pad_qkv: Tensor, window: int, shift: int) -> None:
    if qkv.dim() != 6 or qkv.shape[3] != 3 or 0 in qkv.shape[1:]:
        raise ValueError(
            "window_attention: qkv is a map (B, H, W, 3, heads, head_dim) with nothing empty but "
            f"B; it has shape {tuple(qkv.shape)}. Unflatten the output of the projection, last "
            "axis to (3, heads, head_dim)."
        )
    if window < 1 or not 0 <= shift < window:
        raise ValueError(
            f"window_attention: a window of at least 1 token is shifted by 0 to window - 1; got "
            f"window {window}, shift {shift}. Shift by window // 2 or by 0."
        )
    heads, head_dim = qkv.shape[4:]
    length = window * window
    if bias.shape != (heads, length, length):
        raise ValueError(
            f"window_attention: bias has shape {tuple(bias.shape)}, windows of {window}x{window} "
            f"with {heads} heads need {(heads, length, length)}. Resize the bias table to this "
            "window first."
        )
    if pad_qkv.shape != (3, heads, head_dim):
        raise ValueError(
            f"window_attention: pad_qkv has shape {tuple(pad_qkv.shape)}, a qkv of shape "
            f"{tuple(qkv.shape)} needs {(3, heads, head_dim)}. Pass the bias of the projection, "
            "or zeros if it has none."
        )
