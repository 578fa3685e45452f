"""The linear maps of a transformer block, each with what comes before and after it.

Written out one after another, the steps of a block read and write maps far larger than any cache,
and keep most of them for the backward pass. Here rows (tokens) are treated some thousand at a
time, so that what lies between two products stays in the cache, and the backward pass makes again
what is cheap to make: norms and activations. Kept are the inputs and the hidden map of the MLP.

Under torch.compile, and where autograd is not the only transform, the steps are written out: a
compiler arranges them better than we can.

Letters: R rows, C channels, K channels after the map. A row is the last axis of a tensor of any
number of axes. Under autocast maps are of its dtype and products in it, or in float32 where that is
faster (products.py); norms and sums over rows are in float32.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable

from swin_dense.ops import products, reference, rows
from swin_dense.ops.tracing import compiling

_PIECE = 32768  # bytes of one channel of the rows that are treated at a time, on a CPU


class Norm(NamedTuple):
    """Layer norm over channels."""

    weight: Tensor  # (C,)
    bias: Tensor  # (C,)
    eps: float


class Linear(NamedTuple):
    """x -> x weight^T + bias."""

    weight: Tensor  # (K, C)
    bias: Tensor | None  # (K,)


def norm_linear(x: Tensor, norm: Norm, linear: Linear) -> Tensor:
    """(..., C) -> (..., K): a linear map of the normed rows. Keeps `x` only."""
    if _written_out(x):
        return F.linear(_normed(x, norm), *linear)
    out = _NormLinear.apply(_rows(x), *norm, *linear, _Run.of(x))
    return out.unflatten(0, x.shape[:-1])


def add_linear(to: Tensor, x: Tensor, linear: Linear, factor: Tensor | None = None) -> Tensor:
    """(..., K), (..., C) -> (..., K): `to` plus a linear map of the rows of `x`. Keeps `x` only.

    Args:
        factor: what the map is multiplied by before it is added, (B, 1, ...), one for each image;
            None for 1. It gets no gradient.
    """
    if _written_out(x):
        y = F.linear(x, *linear)
        return to + (y if factor is None else y * factor)
    out = _AddLinear.apply(_rows(to), _rows(x), *linear, _by_row(factor, x), _Run.of(to))
    return out.view(to.shape)


def add_mlp(
    x: Tensor, norm: Norm, first: Linear, second: Linear, factor: Tensor | None = None
) -> Tensor:
    """(..., C) -> (..., C): `x` plus second(GELU(first(norm(x)))). Keeps `x` and the hidden map.

    Args:
        factor: as in `add_linear`.
    """
    if _written_out(x):
        hidden = F.linear(_normed(x, norm), *first)
        y = F.linear(F.gelu(hidden), *second)
        return x + (y if factor is None else y * factor)
    out = _AddMlp.apply(_rows(x), *norm, *first, *second, _by_row(factor, x), _Run.of(x))
    return out.view(x.shape)


def _written_out(x: Tensor) -> bool:
    return (
        compiling()
        or type(x) not in (Tensor, FakeTensor)  # a fake one shows what the real one would keep
        or torch._C._are_functorch_transforms_active()
    )


def _normed(x: Tensor, norm: Norm) -> Tensor:
    return F.layer_norm(x, (int(norm.weight.shape[0]),), *norm)  # a number: a trace keeps symbols


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]).contiguous()


def _by_row(factor: Tensor | None, x: Tensor) -> Tensor | None:
    """(B, 1, ...) -> (R, 1)."""
    if factor is None:
        return None
    wide = factor.detach().to(reference.sum_dtype(factor.dtype))
    return wide.expand(*x.shape[:-1], 1).reshape(-1, 1).contiguous()


class _Run(NamedTuple):
    """How one call is computed."""

    maps: torch.dtype  # of what products return and what is kept of them
    products: torch.dtype  # in which they are computed: that of `maps`, or float32
    kernels: bool  # ours take the rows, and add what the products leave out: their bias
    grad: bool  # whether autograd records
    rows: int  # treated at a time

    @classmethod
    def of(cls, x: Tensor) -> "_Run":
        """`x` are rows of the residual stream."""
        device = x.device.type
        cast = torch.is_autocast_enabled(device)
        maps = torch.get_autocast_dtype(device) if cast else x.dtype
        wide = device == "cpu" and maps == torch.bfloat16 and products.in_float32()
        computed = torch.float32 if wide else maps
        kernels = rows.kernels_take(x, computed)
        # A GPU wants everything at once.
        count = _PIECE // computed.itemsize if device == "cpu" else max(x.shape[:-1].numel(), 1)
        return cls(maps, computed, kernels, torch.is_grad_enabled(), count)

    @property
    def ops(self) -> Any:
        return torch.ops.swin_dense if self.kernels else reference

    def pieces(self, x: Tensor) -> Iterator[slice]:
        for first in range(0, max(len(x), 1), self.rows):  # of no rows, one empty piece
            yield slice(first, min(first + self.rows, len(x)))

    def cast(self, *tensors: Tensor | None) -> list[Any]:
        """Weights as products need them."""
        return [t if t is None else t.detach().to(self.products) for t in tensors]

    def split(self, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Split a bias: what the product adds, and what our kernel adds after it."""
        if bias is None:
            return None, None
        return (None, _wide(bias)) if self.kernels else (bias.detach().to(self.products), None)

    def buffer(self, x: Tensor, channels: int) -> Tensor:
        """Memory for one piece of rows."""
        return x.new_empty(min(self.rows, len(x)), channels, dtype=self.products)

    def room(self, x: Tensor, channels: int) -> Tensor | None:
        """Make the same for what is no map, where products are not in the dtype of maps."""
        return None if self.products == self.maps else self.buffer(x, channels)


def _taken(x: Tensor, room: Tensor | None) -> Tensor:
    """Return rows of a map as products take them: in `room`, if there is any."""
    return x if room is None else room[: len(x)].copy_(x)


def _given(out: Tensor, room: Tensor | None) -> Tensor:
    """Return where a product writes rows of a map; `_keep` puts them there."""
    return out if room is None else room[: len(out)]


def _keep(product: Tensor, out: Tensor, room: Tensor | None) -> None:
    if room is not None:
        out.copy_(product)


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(reference.sum_dtype(x.dtype))


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> Tensor:
    if bias is None:
        return torch.mm(x, weight.t(), out=out)
    return torch.addmm(bias, x, weight.t(), out=out)


class _Sum:
    """A gradient that grows piece by piece, in float32 at least."""

    def __init__(self) -> None:
        self.value: Any = None  # a tensor from the first piece on

    def add(self, part: Tensor) -> None:
        part = part.to(reference.sum_dtype(part.dtype))
        self.value = part if self.value is None else self.value.add_(part)

    def add_product(self, a: Tensor, b: Tensor) -> None:
        if self.value is not None and self.value.dtype == a.dtype:
            self.value.addmm_(a, b)
        else:
            self.add(a @ b)


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, eps: float,
        weight: Tensor, bias: Tensor | None, run: _Run,
    ) -> Tensor:  # fmt: skip
        keep = run.grad and any(ctx.needs_input_grad)
        with torch.autocast(x.device.type, enabled=False):
            w, b = run.cast(weight, bias)
            norm = (_wide(scale), _wide(offset), eps)
            out = x.new_empty(len(x), len(weight), dtype=run.maps)
            normed, room = run.buffer(x, x.shape[1]), run.room(x, len(weight))
            for some in run.pieces(x):
                n = normed[: some.stop - some.start]
                run.ops.norm_rows(x[some], *norm, n)
                _keep(_product(n, w, b, _given(out[some], room)), out[some], room)
        if keep:
            ctx.save_for_backward(x, w, *norm[:2])
            ctx.rest = eps, run, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w, *norm = ctx.saved_tensors
        eps, run, biased = ctx.rest
        grad, by_x = grad.contiguous(), torch.empty_like(x)
        by_weight, by_bias, by_norm = _Sum(), _Sum(), _Sum()
        normed, room = run.buffer(x, x.shape[1]), run.room(x, grad.shape[1])
        for some in run.pieces(x):
            n = normed[: some.stop - some.start]
            run.ops.norm_rows(x[some], *norm, eps, n)
            g = _taken(grad[some], room)
            by_weight.add_product(g.t(), n)
            if biased:
                by_bias.add(g.sum(0))
            torch.mm(g, w, out=n)
            by_norm.add(run.ops.norm_rows_backward(n, x[some], norm[0], eps, None, by_x[some]))
        return by_x, *by_norm.value, None, by_weight.value, by_bias.value, None


class _AddLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, to: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None,
        factor: Tensor | None, run: _Run,
    ) -> Tensor:  # fmt: skip
        keep = run.grad and any(ctx.needs_input_grad)
        with torch.autocast(x.device.type, enabled=False):
            (w,), (first, then) = run.cast(weight), run.split(bias)
            x, out = x.detach().to(run.maps), torch.empty_like(to)
            product, room = run.buffer(x, len(weight)), run.room(x, x.shape[1])
            for some in run.pieces(x):
                taken = _taken(x[some], room)
                y = _product(taken, w, first, product[: some.stop - some.start])
                run.ops.add_rows(to[some], y, then, _some(factor, some), out[some])
        if keep:
            ctx.save_for_backward(x, w, factor)
            ctx.rest = run, bias is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, w, factor = ctx.saved_tensors
        run, biased = ctx.rest
        grad, by_x = grad.contiguous(), torch.empty_like(x)
        by_weight, by_bias = _Sum(), _Sum()
        scaled, room = run.buffer(x, grad.shape[1]), run.room(x, x.shape[1])
        for some in run.pieces(x):
            given = scaled[: some.stop - some.start]
            by_bias.add(run.ops.scale_rows(grad[some], _some(factor, some), given)[0])
            by_weight.add_product(given.t(), _taken(x[some], room))
            _keep(torch.mm(given, w, out=_given(by_x[some], room)), by_x[some], room)
        return grad, by_x, by_weight.value, by_bias.value if biased else None, None, None


class _AddMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, offset: Tensor, eps: float, weight1: Tensor,
        bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None, factor: Tensor | None,
        run: _Run,
    ) -> Tensor:  # fmt: skip
        keep = run.grad and any(ctx.needs_input_grad)
        with torch.autocast(x.device.type, enabled=False):
            w1, w2 = run.cast(weight1, weight2)
            (first1, then1), (first2, then2) = run.split(bias1), run.split(bias2)
            norm = (_wide(scale), _wide(offset), eps)
            out = torch.empty_like(x)
            normed, active = run.buffer(x, x.shape[1]), run.buffer(x, len(weight1))
            hidden = x.new_empty(len(x), len(weight1), dtype=run.maps) if keep else None
            apart = run.products != run.maps
            for some in run.pieces(x):
                n, a = (buffer[: some.stop - some.start] for buffer in (normed, active))
                run.ops.norm_rows(x[some], *norm, n)
                h = _product(n, w1, first1, a if hidden is None or apart else hidden[some])
                if hidden is not None and apart:
                    hidden[some].copy_(h)
                run.ops.gelu_rows(h, then1, a)
                y = _product(a, w2, first2, n)
                run.ops.add_rows(x[some], y, then2, _some(factor, some), out[some])
        if keep:
            ctx.save_for_backward(x, hidden, w1, w2, *norm[:2], then1, factor)
            ctx.rest = eps, run, bias1 is not None, bias2 is not None
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, w1, w2, *norm, then1, factor = ctx.saved_tensors
        eps, run, biased1, biased2 = ctx.rest
        grad, by_x = grad.contiguous(), torch.empty_like(x)
        by_weight1, by_bias1, by_weight2, by_bias2, by_norm = (_Sum() for _ in range(5))
        normed, active, other = (run.buffer(x, n) for n in (x.shape[1], len(w1), len(w1)))
        room = run.room(x, len(w1))
        for some in run.pieces(x):
            n, a, by_h = (buffer[: some.stop - some.start] for buffer in (normed, active, other))
            by_bias2.add(run.ops.scale_rows(grad[some], _some(factor, some), n)[0])
            torch.mm(n, w2, out=by_h)
            h = _taken(hidden[some], room)
            by_bias1.add(run.ops.gelu_rows_backward(by_h, h, then1, a, by_h)[0])
            by_weight2.add_product(n.t(), a)
            run.ops.norm_rows(x[some], *norm, eps, n)
            by_weight1.add_product(by_h.t(), n)
            torch.mm(by_h, w1, out=n)
            back = run.ops.norm_rows_backward(n, x[some], norm[0], eps, grad[some], by_x[some])
            by_norm.add(back)
        return (
            by_x, *by_norm.value, None, by_weight1.value,
            by_bias1.value if biased1 else None, by_weight2.value,
            by_bias2.value if biased2 else None, None, None,
        )  # fmt: skip


def _some(factor: Tensor | None, some: slice) -> Tensor | None:
    return None if factor is None else factor[some]
