import torch
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype


def decomposed_attention(
    query: Tensor, key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, scale: float
) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        weights = _weights(query, key, rows, columns, scale)
        return (weights @ value.to(weights.dtype)).to(query.dtype)


def decomposed_attention_backward(
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
        weights = _weights(query, key, rows, columns, scale)
        grad, query, key, value = (x.to(weights.dtype) for x in (grad, query, key, value))
        by_weights = grad @ value.mT
        by_logits = weights * (by_weights - (weights * by_weights).sum(-1, keepdim=True))
        places = by_logits.unflatten(-1, (rows.shape[-1], columns.shape[-1]))
        found = (
            by_logits @ key * scale,
            by_logits.mT @ query * scale,
            weights.mT @ grad,
            places.sum(-1),
            places.sum(-2),
        )
        return tuple(x.to(y.dtype).contiguous() for x, y in zip(found, inputs, strict=True))


def _weights(query: Tensor, key: Tensor, rows: Tensor, columns: Tensor, scale: float) -> Tensor:
    """Return (B, N, L, H * W)."""
    dtype = sum_dtype(query.dtype)
    query, key, rows, columns = (x.to(dtype) for x in (query, key, rows, columns))
    terms = (rows[..., None] + columns[..., None, :]).flatten(-2)
    return (query @ key.mT * scale + terms).softmax(-1)
