"""Attention with a term for each row and column of keys (arXiv 2112.01526, arXiv 2203.16527).

No matrix of all pairs is kept: the backward pass makes the weights anew. On the CPU a kernel
computes it, in float32, which lets the logits of a block of queries stay in the cache. Elsewhere,
and in float64, torch's attention to queries and keys with more channels, [q, terms] and [k, ones in
its row and its column], does, with twice the work and more.

Letters: B images or windows, N heads, L queries, H W rows and columns of keys, D channels of a
head.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops import extension, reference
from swin_dense.ops.checks import require_floats, require_one_device
from swin_dense.ops.derivatives import refuse_forward_mode, refuse_second
from swin_dense.ops.tracing import recording

_ARGUMENTS = "Tensor query, Tensor key, Tensor value, Tensor rows, Tensor columns, float scale"
torch.library.define("swin_dense::decomposed_attention", f"({_ARGUMENTS}) -> Tensor")
_GRADIENTS = "(Tensor, Tensor, Tensor, Tensor, Tensor)"
torch.library.define(
    "swin_dense::decomposed_attention_backward", f"(Tensor grad, {_ARGUMENTS}) -> {_GRADIENTS}"
)
# The kernel: of all heads of all images, dense float32, queries already scaled.
_HEADS = "Tensor q, Tensor k, Tensor v, Tensor rows, Tensor columns"
torch.library.define("swin_dense::decomposed_heads", f"({_HEADS}) -> Tensor")
torch.library.define(
    "swin_dense::decomposed_heads_backward", f"(Tensor grad, {_HEADS}) -> {_GRADIENTS}"
)


def decomposed_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> Tensor:
    """Let queries look at all keys of a map, which has H rows of W, row by row.

    (B, N, L, D), twice (B, N, H * W, D) -> (B, N, L, D), dtype of `query`. On the CPU sums are kept
    in float32 at least, and autocast changes nothing.

    Args:
        query: not yet scaled.
        key, value: of the dtype of `query`.
        rows: (B, N, L, H), what is added to the logits of a query with the keys of each row.
        columns: (B, N, L, W), the same of each column.
        scale: factor on the products of query and key.

    Raises:
        ValueError: an argument breaks one of these rules.
    """
    _check(query, key, value, rows, columns)
    if not _kernels_take(query):
        return by_more_channels(query, key, value, rows, columns, scale)
    refuse_forward_mode("decomposed_attention", query, key, value, rows, columns)
    return torch.ops.swin_dense.decomposed_attention(query, key, value, rows, columns, scale)


def by_more_channels(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> Tensor:
    """Compute `decomposed_attention` by torch's, which keeps no matrix of all pairs either."""
    height, width = rows.shape[-1], columns.shape[-1]
    down, across = (torch.eye(side, dtype=key.dtype, device=key.device) for side in (height, width))
    places = [down[:, None].expand(-1, width, -1), across[None].expand(height, -1, -1)]
    ones = torch.cat(places, -1).flatten(0, 1).expand(*key.shape[:2], -1, -1)
    query, key = torch.cat([query * scale, rows, columns], -1), torch.cat([key, ones], -1)
    wide = F.pad(value, (0, height + width))  # the fast kernels want one width
    out = F.scaled_dot_product_attention(query, key, wide, scale=1.0)
    return out[..., : value.shape[-1]].to(query.dtype)  # autocast has torch's return its own


def _kernels_take(query: Tensor) -> bool:
    kind = query.device.type
    if recording():
        return False
    return kind == "cpu" and kind in extension.loaded() and query.dtype != torch.float64


def _heads(*maps: Tensor) -> list[Tensor]:
    """(B, N, ...) -> (B * N, ...), as the kernel takes them."""
    return [x.reshape(-1, *x.shape[2:]).to(torch.float32).contiguous() for x in maps]


def _forward(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        if not _kernels_take(query):
            return reference.decomposed_attention(query, key, value, rows, columns, scale)
        heads = _heads(query * scale, key, value, rows, columns)
        out = torch.ops.swin_dense.decomposed_heads(*heads)
        return out.view(query.shape).to(query.dtype)


def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    columns: Tensor,
    scale: float,
) -> tuple[Tensor, ...]:
    inputs = (query, key, value, rows, columns)
    with torch.autocast(query.device.type, enabled=False):
        if not _kernels_take(query):
            return reference.decomposed_attention_backward(grad, *inputs, scale)
        heads = _heads(grad, query * scale, *inputs[1:])
        found = list(torch.ops.swin_dense.decomposed_heads_backward(*heads))
        found[0] *= scale
        return tuple(x.view(y.shape).to(y.dtype) for x, y in zip(found, inputs, strict=True))


for _name, _function in (("", _forward), ("_backward", _backward)):
    torch.library.impl(
        f"swin_dense::decomposed_attention{_name}", "CompositeExplicitAutograd", _function
    )


@torch.library.register_fake("swin_dense::decomposed_attention")
def _fake(query: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape)


@torch.library.register_fake("swin_dense::decomposed_attention_backward")
def _fake_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:5])


def _setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.scale = inputs[5]


def _derive(ctx: Any, grad: Tensor) -> tuple:
    op = torch.ops.swin_dense.decomposed_attention_backward
    return *op(grad, *ctx.saved_tensors, ctx.scale), None


torch.library.register_autograd(
    "swin_dense::decomposed_attention", _derive, setup_context=_setup_context
)
refuse_second("decomposed_attention")


def _check(query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor) -> None:
    tensors = {"query": query, "key": key, "value": value, "rows": rows, "columns": columns}
    for name, tensor in tensors.items():
        if tensor.dim() != 4 or 0 in tensor.shape[1:]:
            raise ValueError(
                f"decomposed_attention: {name} has four axes, images, heads, places and channels, "
                f"none empty but the first; it has shape {tuple(tensor.shape)}."
            )
        if tensor.shape[:2] != query.shape[:2]:
            raise ValueError(
                f"decomposed_attention: all tensors have the images and heads of query, "
                f"{tuple(query.shape[:2])}; {name} has {tuple(tensor.shape[:2])}."
            )
    places = rows.shape[3] * columns.shape[3]
    if key.shape != value.shape or key.shape[2:] != (places, query.shape[3]):
        raise ValueError(
            f"decomposed_attention: key and value have a place for each row and column, "
            f"{rows.shape[3]} x {columns.shape[3]}, and the channels of query, {query.shape[3]}; "
            f"key has {tuple(key.shape[2:])}, value {tuple(value.shape[2:])}."
        )
    for name in ("rows", "columns"):
        if tensors[name].shape[2] != query.shape[2]:
            raise ValueError(
                f"decomposed_attention: {name} has terms for each of the {query.shape[2]} queries; "
                f"it has {tensors[name].shape[2]}."
            )
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            "decomposed_attention: query, key and value have one dtype; got "
            f"{query.dtype}, {key.dtype} and {value.dtype}. Take all three from one projection."
        )
    require_floats("decomposed_attention", **tensors)
    require_one_device("decomposed_attention", **tensors)
