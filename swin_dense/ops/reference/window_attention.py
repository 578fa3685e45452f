import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype

_SMALLEST_NORM = 1e-12  # a vector shorter than that is divided by it


def window_attention(
    qkv: Tensor, bias: Tensor, pad_qkv: Tensor, scale: Tensor, window: int, shift: int, cosine: bool
) -> Tensor:
    """Compute it the usual way: extend, roll, cut, mask, softmax, and all of it back."""
    with torch.autocast(qkv.device.type, enabled=False):
        q, k, v = _windows(qkv, pad_qkv, window, shift)  # each (B, I, J, N, L, D)
        if cosine:
            q, k = (F.normalize(x, dim=-1, eps=_SMALLEST_NORM) for x in (q, k))
        weights = _weights(q, k, bias, scale, qkv.shape[1:3], window, shift)
        out = _map(weights @ v, qkv.shape[1:3], window, shift)
        return out.to(qkv.dtype).contiguous()


def window_attention_backward(
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
    with torch.autocast(qkv.device.type, enabled=False):
        size, heads = qkv.shape[1:3], qkv.shape[4]
        raw_q, raw_k, v = _windows(qkv, pad_qkv, window, shift)
        q, k = raw_q, raw_k
        if cosine:
            q, k = (F.normalize(x, dim=-1, eps=_SMALLEST_NORM) for x in (q, k))
        weights = _weights(q, k, bias, scale, size, window, shift)

        nothing = grad.new_zeros(heads, grad.shape[-1] // heads)
        out = _cut(grad.unflatten(-1, nothing.shape), nothing, window, shift).to(v.dtype)
        by_weights = out @ v.mT
        by_logits = weights * (by_weights - (by_weights * weights).sum(-1, keepdim=True))
        by_q, by_k, by_v = by_logits @ k, by_logits.mT @ q, weights.mT @ out
        by_scale = (by_q * q).sum((0, 1, 2, 4, 5))
        factor = scale.to(v.dtype)[:, None, None]
        by_q, by_k = by_q * factor, by_k * factor
        if cosine:
            by_q, by_k = _normalize_backward(by_q, raw_q), _normalize_backward(by_k, raw_k)

        whole = torch.stack([by_q, by_k, by_v])  # (3, B, I, J, N, L, D)
        whole = torch.stack([_glue(x, window, shift) for x in whole], 3)  # (B, H', W', 3, N, D)
        by_map = whole[:, : size[0], : size[1]]
        by_pad = whole[:, size[0] :].sum((0, 1, 2)) + whole[:, : size[0], size[1] :].sum((0, 1, 2))
        return (
            by_map.to(qkv.dtype).contiguous(),
            by_logits.sum((0, 1, 2)).to(bias.dtype),
            by_pad.to(pad_qkv.dtype),
            by_scale.to(scale.dtype),
        )


def _weights(
    q: Tensor, k: Tensor, bias: Tensor, scale: Tensor, size: torch.Size, window: int, shift: int
) -> Tensor:
    """Return the weight each token gives to each: (B, I, J, N, L, L), rows adding up to 1."""
    logits = (q * scale.to(q.dtype)[:, None, None]) @ k.mT + bias.to(q.dtype)
    if shift:
        # Regions of the rolled map: windows that hold several may not look across.
        # Of numbers above 0: ONNX, which a trace of this becomes, divides others otherwise.
        down, across = ((n + window - 1) // window * window for n in size)
        row = (torch.arange(down, device=q.device) >= down - shift).long()
        column = (torch.arange(across, device=q.device) >= across - shift).long()
        region = (row[:, None] * 2 + column)[None, :, :, None, None]
        region = _partition(region, window)[..., 0]  # (1, I, J, 1, L)
        logits = logits.masked_fill(region[..., None] != region[..., None, :], float("-inf"))
    return logits.softmax(-1)


def _windows(qkv: Tensor, pad_qkv: Tensor, window: int, shift: int) -> tuple[Tensor, ...]:
    cut = _cut(qkv.flatten(3, 4), pad_qkv.to(qkv.dtype).flatten(0, 1), window, shift)
    return cut.to(sum_dtype(qkv.dtype)).chunk(3, 3)


def _cut(x: Tensor, outside: Tensor, window: int, shift: int) -> Tensor:
    """(B, H, W, N, D), (N, D) -> (B, I, J, N, L, D)."""
    batch, height, width = x.shape[:3]
    below, right = -height % window, -width % window
    x = torch.cat([x, outside.expand(batch, below, width, -1, -1)], 1)
    x = torch.cat([x, outside.expand(batch, height + below, right, -1, -1)], 2)
    return _partition(x.roll((-shift, -shift), (1, 2)), window)


def _partition(x: Tensor, window: int) -> Tensor:
    """(B, I * window, J * window, N, D) -> (B, I, J, N, L, D)."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5)


def _glue(x: Tensor, window: int, shift: int) -> Tensor:
    """(B, I, J, N, L, D) -> (B, I * window, J * window, N, D)."""
    x = x.unflatten(4, (window, window)).permute(0, 1, 4, 2, 5, 3, 6).flatten(3, 4).flatten(1, 2)
    return x.roll((shift, shift), (1, 2))


def _map(x: Tensor, size: torch.Size, window: int, shift: int) -> Tensor:
    """(B, I, J, N, L, D) -> (B, H, W, N * D)."""
    return _glue(x, window, shift)[:, : size[0], : size[1]].flatten(3)


def _normalize_backward(grad: Tensor, x: Tensor) -> Tensor:
    norm = x.norm(dim=-1, keepdim=True)
    length = norm.clamp(min=_SMALLEST_NORM)
    along = (grad * x).sum(-1, keepdim=True) * x / length**2
    return (grad - along * (norm >= _SMALLEST_NORM)) / length
