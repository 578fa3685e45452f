"""Window attention by torch's own attention functions, between a copy into windows and one back.

Letters: B images, H W tokens in a column and a row, N heads, D channels of a head, L tokens of a
window, I J windows in a column and a row.

The map is first extended at the bottom and the right to whole windows, then turned by `shift`
tokens towards the top left, then cut. Here that is one table of addresses, kept for the last few
map sizes: every token is copied once into its place in its window and once back out.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from swin_dense.ops.derivatives import refuse_atomics

# (q, k, v, bias, addresses) -> out; q is scaled, and as sums are kept.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, "Addresses"], Tensor]


class Addresses(NamedTuple):
    """Where tokens go for one size of map."""

    into: Tensor  # (3 * I * J * N * L,): which vector of D numbers of the map stands there
    back: Tensor  # (H * W,): which window token belongs there
    rows: Tensor  # (I, 1, L, L): 0, or -inf between tokens from two sides of the border
    columns: Tensor  # (J, 1, L, L): the same for the left and right border


def by_sdpa(
    qkv: Tensor, bias: Tensor, pad_qkv: Tensor, scale: Tensor, window: int, shift: int, cosine: bool
) -> Tensor:
    """With one mask tensor for all windows, bias included, in float32 at least.

    CUDA's kernels want a mask of the dtype of q. Rounded to 16 bits with q, a bias costs more
    accuracy than all else: three times the error of plain torch at a standard deviation of 3.
    """

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, at: Addresses) -> Tensor:
        k, v, bias = k.to(q.dtype), v.to(q.dtype), bias.to(q.dtype)[None]  # bias: (1, N, L, L)
        if shift:
            # The two regions tables are added together here because each of them is tiny.
            regions = (bias + at.rows.to(q.dtype)[:, None]) + at.columns.to(q.dtype)
            bias = regions.expand(len(qkv), *regions.shape).flatten(0, 2)  # (B * I * J, N, L, L)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)

    return _gathered(attend, qkv, bias, pad_qkv, scale, window, shift, cosine)


def by_flex(
    qkv: Tensor, bias: Tensor, pad_qkv: Tensor, scale: Tensor, window: int, shift: int, cosine: bool
) -> Tensor:
    """With the bias looked up, in float32, inside a kernel that torch generates; nothing of size
    L * L is kept for the windows."""
    refuse_atomics("window_attention by flex", qkv)  # warns, where choose() did not refuse

    def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, at: Addresses) -> Tensor:
        down, across = at.rows.shape[0], at.columns.shape[0]

        def add(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            score = score + bias[head, i, j]
            if not shift:
                return score
            row, column = batch // across % down, batch % across
            return score + at.rows[row, 0, i, j] + at.columns[column, 0, i, j]

        flex: Any = flex_attention if torch.compiler.is_compiling() else _compiled_flex()
        return flex(q.to(v.dtype), k, v, score_mod=add, scale=1.0)

    return _gathered(attend, qkv, bias, pad_qkv, scale, window, shift, cosine)


@lru_cache(maxsize=1)
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=True)


def _gathered(
    attend: Attend,
    qkv: Tensor,
    bias: Tensor,
    pad_qkv: Tensor,
    scale: Tensor,
    window: int,
    shift: int,
    cosine: bool,
) -> Tensor:
    batch, height, width, _, heads, head_dim = qkv.shape
    if batch == 0:  # as empty as the answer, and differentiable
        return qkv[:, :, :, 2].flatten(-2) + 0 * (bias.sum() + pad_qkv.sum() + scale.sum())

    # A tensor that only stands for one (tracing, fake mode, torch.func) must not be kept.
    traced = (
        torch.compiler.is_compiling()
        or type(qkv) is not Tensor
        or torch._C._are_functorch_transforms_active()
    )
    lookup = _addresses.__wrapped__ if traced else _addresses
    at = lookup(height, width, heads, window, shift, qkv.device)

    # Copy every token to its place in its window; slot H * W holds the one from outside the map.
    tokens = qkv.flatten(1, 2)
    traced_or_ragged = torch.compiler.is_compiling() or height % window or width % window
    if traced_or_ragged:  # a traced program serves many sizes: it may not ask about this one
        outside = pad_qkv.to(qkv.dtype).expand(batch, 1, *pad_qkv.shape)
        tokens = torch.cat([tokens, outside], dim=1)
    windows, length = at.rows.shape[0] * at.columns.shape[0], window * window
    vectors = tokens.flatten(1, 3).index_select(1, at.into)
    vectors = vectors.view(batch, 3, windows, heads, length, head_dim).transpose(0, 1)
    q, k, v = vectors.flatten(1, 2)  # each (B * I * J, N, L, D)

    with torch.autocast(qkv.device.type, enabled=False):
        if cosine:
            q, k = (F.normalize(x.to(scale.dtype), dim=-1, eps=1e-12) for x in (q, k))
            v = v.to(scale.dtype)
        out = attend(q * scale[:, None, None], k, v, bias, at).to(qkv.dtype)

    # Copy back those that lie on the map.
    out = out.transpose(1, 2).reshape(batch, windows * length, heads * head_dim)
    return out.index_select(1, at.back).view(batch, height, width, heads * head_dim)


# Four sizes of image fill 32 entries for a backbone of four stages, shifted and not. The largest,
# the first stage of an 800x1216 image, is 3.2 MB.
@lru_cache(maxsize=32)
@torch.inference_mode(False)  # else an evaluation first would make tables no training can use
def _addresses(
    height: int, width: int, heads: int, window: int, shift: int, device: torch.device
) -> Addresses:
    def steps(end: int) -> Tensor:
        return torch.arange(end, device=device)

    across, down = (width + window - 1) // window, (height + window - 1) // window
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
    return Addresses(into.flatten().int(), back.flatten().int(), rows, columns)
