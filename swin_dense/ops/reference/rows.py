import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.ops.reference.precision import sum_dtype

# Written where they have to be, without a map between, where torch can: layer norm it cannot.


def norm_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float, out: Tensor) -> None:
    out.copy_(F.layer_norm(_wide(x), x.shape[1:], _wide(weight), _wide(bias), eps))


def norm_rows_backward(
    grad: Tensor, x: Tensor, weight: Tensor, eps: float, to: Tensor | None, out: Tensor
) -> Tensor:
    x, weight, shape = _wide(x), _wide(weight), x.shape[1:]
    mean, inverse = torch.native_layer_norm(x, shape, weight, None, eps)[1:]  # not the map
    by_x, by_weight, by_bias = torch.ops.aten.native_layer_norm_backward(
        grad.to(x.dtype), x, shape, mean, inverse, weight, torch.zeros_like(weight), [True] * 3
    )
    if to is None:
        out.copy_(by_x)
    else:
        torch.add(by_x, to, out=out)
    return torch.stack([by_weight, by_bias])


def gelu_rows(x: Tensor, bias: Tensor | None, out: Tensor) -> None:
    x = x if bias is None else x + bias
    if x.dtype == out.dtype:
        torch.ops.aten.gelu.out(x, out=out)
    else:
        out.copy_(F.gelu(x))


def gelu_rows_backward(
    grad: Tensor, x: Tensor, bias: Tensor | None, active: Tensor, out: Tensor
) -> Tensor:
    x = x if bias is None else x + bias
    gelu_rows(x, None, active)
    grad = grad.to(x.dtype)
    if x.dtype == out.dtype:
        torch.ops.aten.gelu_backward.grad_input(grad, x, grad_input=out)
    else:
        out.copy_(torch.ops.aten.gelu_backward(grad, x))
    return out.sum(0, keepdim=True, dtype=sum_dtype(out.dtype))


def add_rows(
    to: Tensor, y: Tensor, bias: Tensor | None, factor: Tensor | None, out: Tensor
) -> None:
    y = y if bias is None else y + bias
    if factor is not None:
        room = out if torch.result_type(y, factor) == out.dtype else None
        y = torch.mul(y, factor, out=room)
    torch.add(to, y, out=out)


def scale_rows(x: Tensor, factor: Tensor | None, out: Tensor) -> Tensor:
    if factor is None:
        out.copy_(x)
    else:
        torch.mul(x, factor, out=out)
    return out.sum(0, keepdim=True, dtype=sum_dtype(out.dtype))


def _wide(x: Tensor) -> Tensor:
    return x.to(sum_dtype(x.dtype))
