import torch
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    window: int,
    down: int,
    across: int,
    scale: float,
) -> Tensor:
    """Read what each position sees one row of its window at a time, side by side."""
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = (x.to(sum_dtype(x.dtype)) for x in (query, key, value))
        rows, columns = _axes(query, window, down, across)
        weights = _weights(q * scale, k, table, rows, columns)
        out = torch.zeros_like(q, memory_format=torch.contiguous_format)
        for row in range(window):
            out += torch.einsum(
                "bhwns,bhwsnd->bhwnd", weights[..., row, :], _seen(v, rows, columns, row)
            )
        return out.to(query.dtype)


def neighborhood_attention_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    window: int,
    down: int,
    across: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key, value and table."""
    with torch.autocast(query.device.type, enabled=False):
        g, q, k, v = (x.to(sum_dtype(x.dtype)) for x in (grad, query, key, value))
        q = q * scale
        rows, columns = _axes(query, window, down, across)
        weights = _weights(q, k, table, rows, columns)
        by_weights = torch.stack(
            [
                torch.einsum("bhwnd,bhwsnd->bhwns", g, _seen(v, rows, columns, row))
                for row in range(window)
            ],
            -2,
        )
        by_logits = weights * (by_weights - (weights * by_weights).sum((-2, -1), keepdim=True))

        by_q, by_k, by_v = (torch.zeros_like(x, memory_format=torch.contiguous_format)
                            for x in (q, k, v))  # fmt: skip
        by_table = q.new_zeros(table.shape)
        for row in range(window):
            by = by_logits[..., row, :]
            by_q += torch.einsum("bhwns,bhwsnd->bhwnd", by, _seen(k, rows, columns, row))
            for to, share, x in ((by_k, by, q), (by_v, weights[..., row, :], g)):
                pairs = share.movedim(-1, 3)[..., None] * x[:, :, :, None]  # B, H, W, s, N, D
                _add_seen(to, pairs, rows, columns, row)
            places = rows.offset[:, row, None, None] * table.shape[2] + columns.offset
            by_table.flatten(1).index_add_(
                1, places.flatten(), by.sum(0).permute(2, 0, 1, 3).flatten(1)
            )
        return (
            (by_q * scale).to(query.dtype),
            by_k.to(key.dtype),
            by_v.to(value.dtype),
            by_table.to(table.dtype),
        )


class Axis:
    """What the positions along one axis see.

    Attributes:
        seen: (length, window), the positions.
        offset: (length, window), how far they lie apart, as an index of the table's axis.
    """

    def __init__(self, length: int, window: int, dilation: int, device: torch.device) -> None:
        place = torch.arange(length, device=device)
        # Of its class modulo the dilation: the number of the position, and how many there are.
        number, first = place // dilation, place % dilation
        count = (length - first + dilation - 1) // dilation
        begin = torch.minimum((number - window // 2).clamp(min=0), count - window)
        steps = begin[:, None] + torch.arange(window, device=device)
        self.seen = steps * dilation + first[:, None]
        self.offset = steps - number[:, None] + window - 1


def _axes(query: Tensor, window: int, down: int, across: int) -> tuple[Axis, Axis]:
    height, width = query.shape[1:3]
    return (
        Axis(height, window, down, query.device),
        Axis(width, window, across, query.device),
    )


def _seen(x: Tensor, rows: Axis, columns: Axis, row: int) -> Tensor:
    """(B, H, W, N, D) -> (B, H, W, window, N, D): what is seen in one row of each window."""
    lines = x.index_select(1, rows.seen[:, row])
    return lines.index_select(2, columns.seen.flatten()).unflatten(2, columns.seen.shape)


def _add_seen(to: Tensor, pairs: Tensor, rows: Axis, columns: Axis, row: int) -> None:
    """Add (B, H, W, window, N, D) to where `_seen` reads it in `to`."""
    lines = torch.zeros_like(to)
    lines.index_add_(2, columns.seen.flatten(), pairs.flatten(2, 3))
    to.index_add_(1, rows.seen[:, row], lines)


def _weights(q: Tensor, k: Tensor, table: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Return the weight each position gives to each it sees: (B, H, W, N, window, window)."""
    logits = []
    for row in range(rows.seen.shape[1]):
        products = torch.einsum("bhwnd,bhwsnd->bhwns", q, _seen(k, rows, columns, row))
        bias = table.to(q.dtype)[:, rows.offset[:, row]][:, :, columns.offset]  # N, H, W, s
        logits.append(products + bias.permute(1, 2, 0, 3))
    together = torch.stack(logits, -2)
    return together.flatten(-2).softmax(-1).view_as(together)
