"""Attention of each position of a map to the positions around it (arXiv 2204.07143, 2209.15001).

Letters: B images, H W positions in a column and a row, N heads, D channels of a head.
"""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import extension, reference, trust
from swin_dense.ops.checks import require_floats, require_one_device
from swin_dense.ops.derivatives import refuse_forward_mode, refuse_second
from swin_dense.ops.tracing import recording

# Window of the CUDA kernel, whose tables have to fit a block's memory (kLargest there).
LARGEST = 27

_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor table, int window, int down, int across, "
    "float scale"
)
torch.library.define("swin_dense::neighborhood_attention", f"({_ARGUMENTS}) -> Tensor")
torch.library.define(
    "swin_dense::neighborhood_attention_backward",
    f"(Tensor grad, {_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
torch.library.impl(
    "swin_dense::neighborhood_attention",
    "CompositeExplicitAutograd",
    reference.neighborhood_attention,
)
torch.library.impl(
    "swin_dense::neighborhood_attention_backward",
    "CompositeExplicitAutograd",
    reference.neighborhood_attention_backward,
)


@torch.library.register_fake("swin_dense::neighborhood_attention")
def _fake(query: Tensor, key: Tensor, value: Tensor, table: Tensor, *_: Any) -> Tensor:
    trust.look("neighborhood_attention", query)
    return query.new_empty(query.shape)


@torch.library.register_fake("swin_dense::neighborhood_attention_backward")
def _fake_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, table: Tensor, *_: Any
) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in (query, key, value, table))


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:]


def _backward(ctx: Any, grad: Tensor) -> tuple:
    back = torch.ops.swin_dense.neighborhood_attention_backward(grad, *ctx.saved_tensors, *ctx.rest)
    return *back, None, None, None, None


torch.library.register_autograd(
    "swin_dense::neighborhood_attention", _backward, setup_context=_setup_context
)
refuse_second("neighborhood_attention")


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    window: int,
    dilation: int | Sequence[int] = 1,
    scale: float | None = None,
) -> Tensor:
    """Let each position of a map look at the window x window positions nearest to it.

    (B, H, W, N, D) -> (B, H, W, N, D), dtype of `query`. With a dilation of d a position sees
    every d-th of its row and column only, those whose places leave the same rest by d. Near a
    border the window is moved inward, so that every position sees equally many (arXiv 2204.07143,
    section 3; dilated: arXiv 2209.15001, section 3). Logits, softmax and sums are kept in float32
    at least. Autocast changes nothing here. Gradients reach all four tensors, and are the same in
    every run and for any number of threads.

    Args:
        query, key, value: maps of one shape and dtype, in heads; `query` is not yet scaled.
        table: (N, 2 * window - 1, 2 * window - 1), added to the logits by how many steps of the
            dilation a key lies below and right of its query, both counted from -(window - 1);
            None adds nothing.
        window: side of a window, in positions; odd.
        dilation: distance between two positions of a window, one for both axes or (down, across);
            window x dilation is at most the side of the map.
        scale: factor on the products of query and key; None for D ** -0.5.

    Raises:
        ValueError: an argument breaks one of these rules.
    """
    down, across = _pair(dilation)
    _check(query, key, value, table, window, (down, across))
    refuse_forward_mode("neighborhood_attention", query, key, value, table)
    trust.look("neighborhood_attention", query)
    if reason := why_not(query, window):
        raise ValueError(reason)
    dtype = reference.sum_dtype(query.dtype)
    if table is None:
        side = 2 * window - 1
        table = query.new_zeros((query.shape[3], side, side), dtype=dtype)
    scale = query.shape[4] ** -0.5 if scale is None else float(scale)
    op = reference if recording() else torch.ops.swin_dense
    return op.neighborhood_attention(
        query, key, value, table.to(dtype), window, down, across, scale
    )


def why_not(query: Tensor, window: int) -> str | None:
    """Say why the kernel of the device of `query` cannot take this window, if it cannot."""
    kind = query.device.type
    if kind != "cuda" or trust.instead("neighborhood_attention", query) is not None:
        return None
    return too_large(kind, window)


def too_large(kind: str, window: int) -> str | None:
    """Say of a kind of device and a window what is wrong, None if nothing is."""
    if kind != "cuda" or kind not in extension.loaded() or window <= LARGEST:
        return None
    return (
        f"neighborhood_attention: the kernel for CUDA takes windows of up to {LARGEST}; got "
        f"{window}. Take a smaller one, or {extension.SWITCH}=off, which computes all ops in plain "
        "torch."
    )


def _pair(dilation: int | Sequence[int]) -> tuple[int, int]:
    try:
        both = (dilation, dilation) if isinstance(dilation, int) else tuple(dilation)
        down, across = (operator.index(step) for step in both)
        if min(down, across) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            "neighborhood_attention: a dilation is a whole number of positions from 1, or two, "
            f"down and across; got {dilation!r}. Pass 1 for neighbours side by side."
        ) from None
    return down, across


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    window: int,
    dilation: tuple[int, int],
) -> None:
    if query.dim() != 5 or 0 in query.shape[1:]:
        raise ValueError(
            "neighborhood_attention: query is a map (B, H, W, heads, head_dim) with nothing empty "
            f"but B; it has shape {tuple(query.shape)}. Unflatten its channels into heads."
        )
    for name, other in (("key", key), ("value", value)):
        if other.shape != query.shape or other.dtype != query.dtype:
            raise ValueError(
                f"neighborhood_attention: query, key and value have one shape and dtype; query is "
                f"{tuple(query.shape)}, {query.dtype}, {name} is {tuple(other.shape)}, "
                f"{other.dtype}. Take all three from one projection."
            )
    if window < 1 or window % 2 == 0:
        raise ValueError(
            f"neighborhood_attention: a window is an odd number of positions, so that it has a "
            f"middle; got {window}. Take {max(window - 1, 1)} or {max(window, 0) + 1}."
        )
    for side, step, axis in zip(query.shape[1:3], dilation, ("rows", "columns"), strict=True):
        if window * step > side:
            raise ValueError(
                f"neighborhood_attention: window x dilation is at most the side of the map; a "
                f"window of {window} with dilation {step} spans {window * step} of the map's "
                f"{side} {axis}. Pad the map to {window * step}, or lower the dilation."
            )
    wanted = (query.shape[3], 2 * window - 1, 2 * window - 1)
    if table is not None and table.shape != wanted:
        raise ValueError(
            f"neighborhood_attention: table has shape {tuple(table.shape)}, windows of {window} "
            f"with {wanted[0]} heads need {wanted}. Resize the table to this window first."
        )
    tensors = {"query": query, "key": key, "value": value, "table": table}
    require_floats("neighborhood_attention", **tensors)
    require_one_device("neighborhood_attention", **tensors)
