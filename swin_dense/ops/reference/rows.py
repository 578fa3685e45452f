import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype


def norm_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor) -> None:
    out.copy_(F.layer_norm(_wide(x), x.shape[1:], _wide(weight), _wide(bias), eps))


def norm_rows_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, to: Tensor | None, out: Tensor
) -> Tensor:
    x, weight, shape = _wide(x), _wide(weight), x.shape[1:]
    _, mean, inverse = torch.native_layer_norm(x, shape, weight, None, eps)
    by_x, by_weight, by_bias = torch.ops.aten.native_layer_norm_backward(
        grad.to(x.dtype), x, shape, mean, inverse, weight, torch.zeros_like(weight), [True] * 3
    )
    out.copy_(by_x if to is None else by_x + to)
    return torch.stack([by_weight, by_bias])


def gelu_rows(x: Tensor, bias: Tensor | None, out: Tensor) -> None:
    out.copy_(F.gelu(x if bias is None else x + bias))


def gelu_rows_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, active: Tensor, out: Tensor
) -> Tensor:
    x = x if bias is None else x + bias
    active.copy_(F.gelu(x))
    out.copy_(torch.ops.aten.gelu_backward(grad.to(x.dtype), x))
    return out.sum(0, keepdim=True, dtype=sum_dtype(out.dtype))


def add_rows(
    to: Tensor, y: Tensor, bias: Tensor | None, factor: Tensor | None, out: Tensor
) -> None:
    y = y if bias is None else y + bias
    torch.add(to, y if factor is None else y * factor, out=out)


def scale_rows(x: Tensor, factor: Tensor | None, out: Tensor) -> Tensor:
    out.copy_(x if factor is None else x * factor)
    return out.sum(0, keepdim=True, dtype=sum_dtype(out.dtype))


def _wide(x: Tensor) -> Tensor:
    return x.to(sum_dtype(x.dtype))
