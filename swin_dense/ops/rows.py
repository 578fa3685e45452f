"""What a transformer block does to every row by itself, between its products.

The building blocks of branches.py, which says when they are used; they write where they are told,
so that one small piece of memory serves many rows. Letters: R rows, C columns. `x`, `to` and
what they become run through the network, `y` and its like go into or come out of a product, and
may be narrower. Weights, bias and factor are float32 (float64 for float64 rows).
"""

import torch
from torch import Tensor

from swin_dense.ops import extension, reference, trust

_SCHEMAS = {
    # out: layer norm of x.
    "norm_rows": "(Tensor x, Tensor weight, Tensor bias, float eps, Tensor(a!) out) -> ()",
    # out: the gradient of x, plus `to`. Returns (2, C): the gradients of weight and bias.
    "norm_rows_backward": (
        "(Tensor grad, Tensor x, Tensor weight, float eps, Tensor? to, Tensor(a!) out) -> Tensor"
    ),
    # out: GELU of x + bias.
    "gelu_rows": "(Tensor x, Tensor? bias, Tensor(a!) out) -> ()",
    # active: GELU of x + bias; out: the gradient of x. Returns (1, C): that of bias.
    "gelu_rows_backward": (
        "(Tensor grad, Tensor x, Tensor? bias, Tensor(a!) active, Tensor(b!) out) -> Tensor"
    ),
    # out: to + (y + bias) * factor, factor (R, 1).
    "add_rows": "(Tensor to, Tensor y, Tensor? bias, Tensor? factor, Tensor(a!) out) -> ()",
    # out: x * factor. Returns (1, C): its sum over rows.
    "scale_rows": "(Tensor x, Tensor? factor, Tensor(a!) out) -> Tensor",
}
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"swin_dense::{_name}", _schema)
    torch.library.impl(
        f"swin_dense::{_name}", "CompositeExplicitAutograd", getattr(reference, _name)
    )

_F32, _BF16, _F16 = torch.float32, torch.bfloat16, torch.float16
# Of rows and of products, by kind of device; on a CPU these may be wider than those (products.py).
_TYPES = {
    "cpu": {(_F32, _F32), (_F32, _BF16), (_BF16, _BF16), (_BF16, _F32)},
    "cuda": {(_F32, _F32), (_F32, _BF16), (_BF16, _BF16), (_F32, _F16), (_F16, _F16)},
}


def kernels_take(x: Tensor, products: torch.dtype) -> bool:
    """Tell whether torch.ops.swin_dense has kernels for these; if not, call `reference`."""
    kind, dtypes = x.device.type, (x.dtype, products)
    if kind not in extension.loaded() or dtypes not in _TYPES[kind]:
        return False
    return all(trust.instead("rows", x, dtype) is None for dtype in dtypes)
