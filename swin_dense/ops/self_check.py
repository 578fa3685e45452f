"""Small seeded cases that show whether a kernel computes what it should on the device at hand.

Each case calls an op and its meaning, reference.*, on the same numbers, and the meaning in
float64. Two runs are compared bit by bit where equal bits are promised.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from swin_dense.ops import reference

# How far from the meaning a result may lie, as a share of its largest number.
ALLOWED = {
    torch.float64: 1e-11,
    torch.float32: 2e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 4e-2,
}
# How many of its last arguments an op writes, beside or instead of returning something.
_WRITTEN = {
    "deform_columns": 1, "deform_columns_backward": 3, "norm_rows": 1, "norm_rows_backward": 1,
    "gelu_rows": 1, "gelu_rows_backward": 2, "add_rows": 1, "scale_rows": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One call of one op.

    Attributes:
        family: the op it belongs to; what is switched off together.
        op: its name in torch.ops.swin_dense.
        about: what is special here.
        make: (generator, dtype) -> its arguments, on the CPU.
        equal_bits: whether two runs give the same bits.
        exact: whether it is compared in its own dtype, because it decides by comparisons.
    """

    family: str
    op: str
    about: str
    make: Callable[[torch.Generator, torch.dtype], list[Any]]
    equal_bits: bool = True
    exact: bool = False


@dataclass(frozen=True)
class Finding:
    """How one case came out.

    Attributes:
        error: the largest distance from the meaning, as a share of its largest number; inf where
            a number is missing or NaN.
        allowed: what it may be.
        equal_bits: whether two runs gave the same; None if that is not promised.
        seconds: what the case took, comparison included.
    """

    family: str
    op: str
    about: str
    dtype: str
    error: float
    allowed: float
    equal_bits: bool | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Tell whether the kernel may be used, as far as this case shows."""
        return self.error <= self.allowed and self.equal_bits is not False

    def describe(self) -> str:
        """Return it as part of a sentence: "roi_align (avg) in float32 is off by 0.3, ..."."""
        text = f"{self.op} ({self.about}) in {self.dtype}"
        if self.equal_bits is False:
            return f"{text} gave other bits in a second run"
        return (
            f"{text} is off by {self.error:.1e} of its largest number, {self.allowed:.0e} at most"
        )

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON holds it; an infinite error is a text."""
        return {**asdict(self), "error": f"{self.error:.3e}", "ok": self.ok}


def families() -> list[str]:
    """Return the names that `run` takes."""
    return list(dict.fromkeys(case.family for case in CASES))


def dtypes(family: str, device: torch.device) -> list[torch.dtype]:
    """Return those that kernels of this op and kind of device compute in."""
    floats = [torch.float32, torch.float16, torch.bfloat16]
    if family == "nms":
        return [torch.float32, torch.float64]
    if family in ("window_attention", "rows"):
        return floats if device.type == "cuda" else [torch.float32, torch.bfloat16]
    return [*floats, torch.float64]


def run(
    family: str,
    device: torch.device,
    dtype: torch.dtype,
    ops: Any = None,
    why_not: Callable[..., str | None] = lambda *_: None,
) -> list[Finding]:
    """Try every case of an op on a device in one dtype.

    Args:
        family: one of `families()`.
        ops: what holds the ops to try; torch.ops.swin_dense if None.
        why_not: arguments -> why these ops cannot take them; such cases are left out.
    """
    ops, found = torch.ops.swin_dense if ops is None else ops, []
    with torch.no_grad():
        for case in CASES:
            inputs = _inputs(case, device, dtype) if case.family == family else None
            if inputs is not None and why_not(*inputs) is None:
                found.append(_run(case, inputs, device, dtype, ops))
    return found


def _inputs(case: Case, device: torch.device, dtype: torch.dtype) -> list[Any]:
    generator = torch.Generator().manual_seed(len(case.about) + len(case.op))
    kept = dtype if dtype == torch.float64 else None  # then there is nothing wider for the sums
    return [_to(x, device, kept) for x in case.make(generator, dtype)]


def _run(
    case: Case, inputs: list[Any], device: torch.device, dtype: torch.dtype, ops: Any
) -> Finding:
    started = time.perf_counter()
    found = _call(ops, case.op, inputs)
    wide = inputs if case.exact else [_to(x, device, torch.float64) for x in inputs]
    right = _call(reference, case.op, wide)
    error = max(_distance(one, other) for one, other in zip(found, right, strict=True))
    equal = None
    if case.equal_bits:
        equal = all(map(_same_bits, found, _call(ops, case.op, inputs)))
    return Finding(
        case.family, case.op, case.about, str(dtype).removeprefix("torch."),
        error, 0.0 if case.exact else ALLOWED[dtype], equal, time.perf_counter() - started,
    )  # fmt: skip


def _call(ops: Any, name: str, inputs: Sequence[Any]) -> list[Tensor]:
    """Return what an op computed: what it writes, then what it returns."""
    count = len(inputs) - _WRITTEN.get(name, 0)
    written = [x.clone() for x in inputs[count:]]
    out = getattr(ops, name)(*inputs[:count], *written)
    returned = [out] if isinstance(out, Tensor) else list(out or ())
    return [*written, *returned]


def _to(x: Any, device: torch.device, dtype: torch.dtype | None = None) -> Any:
    if not isinstance(x, Tensor):
        return x
    return x.to(device, dtype if x.is_floating_point() else None)


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _distance(ours: Tensor, right: Tensor) -> float:
    if ours.shape != right.shape:
        return float("inf")
    if not right.numel():
        return 0.0
    apart = (ours.double() - right.double()).abs().max()
    largest = right.double().abs().max().clamp(min=1e-30)
    share = float(apart / largest)
    return share if share == share else float("inf")


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator)


def _between(generator: torch.Generator, *shape: int, size: int) -> Tensor:
    """Return coordinates from -1 to `size` that lie well between two positions.

    At a position the gradient of a bilinear sample jumps, and rounding decides to which side.
    """
    whole = torch.randint(-1, size, shape, generator=generator)
    return whole + 0.1 + 0.8 * torch.rand(shape, generator=generator)


def _windows(shape: tuple[int, ...], cosine: bool, backward: bool) -> Callable[..., list[Any]]:
    batch, height, width, heads, dim, window, shift = shape

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        length = window * window
        qkv = _normal(generator, batch, height, width, 3, heads, dim).to(dtype)
        bias, pad = _normal(generator, heads, length, length), _normal(generator, 3, heads, dim)
        scale = (torch.rand(heads, generator=generator) + 0.5) * (10 if cosine else dim**-0.5)
        inputs = [qkv, bias, pad.to(dtype), scale, window, shift, cosine]
        if not backward:
            return inputs
        return [_normal(generator, batch, height, width, heads * dim).to(dtype), *inputs]

    return make


def _neighborhoods(shape: tuple[int, ...], backward: bool) -> Callable[..., list[Any]]:
    *sizes, window, down, across = shape

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        maps = [_normal(generator, *sizes).to(dtype) for _ in range(4)]
        side = 2 * window - 1
        table = _normal(generator, sizes[3], side, side).to(reference.sum_dtype(dtype))
        inputs = [*maps[:3], table, window, down, across, 0.3]
        return [maps[3], *inputs] if backward else inputs

    return make


def _deformable(backward: bool) -> Callable[..., list[Any]]:
    sizes = [(7, 11), (4, 6), (2, 3)]
    batch, heads, dim, queries, points = 2, 3, 32, 13, 4

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        value = _normal(generator, batch, sum(h * w for h, w in sizes), heads, dim).to(dtype)
        shape = (batch, queries, heads, points)
        places = [
            torch.stack(
                [(_between(generator, *shape, size=side) + 0.5) / side for side in (w, h)], -1
            )
            for h, w in sizes
        ]
        weights = torch.rand(batch, queries, heads, len(sizes), points, generator=generator)
        inputs = [value, torch.tensor(sizes), torch.stack(places, 3), weights]
        grad = _normal(generator, batch, queries, heads * dim).to(dtype)
        return [grad, *inputs] if backward else inputs

    return make


def _suppression(labels: int | None) -> Callable[..., list[Any]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        corner = torch.randint(0, 40, (301, 2), generator=generator)
        side = torch.randint(1, 30, (301, 2), generator=generator)
        scores = torch.randint(0, 50, (301,), generator=generator)  # many are equal
        of = None if labels is None else torch.randint(labels, (301,), generator=generator)
        return [torch.cat([corner, corner + side], 1).to(dtype), scores.to(dtype), 0.5, 0, of]

    return make


def _pooling(backward: bool, take_max: bool = False) -> Callable[..., list[Any]]:
    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        wide = reference.sum_dtype(dtype)
        corner = torch.rand(7, 2, generator=generator) * 20 - 3
        side = torch.rand(7, 2, generator=generator) * 17 + 0.5
        image = torch.arange(7)[:, None] % 2
        rois = torch.cat([image, corner, corner + side], 1).to(wide)
        rest = [0.5, 2, take_max, True]
        if not backward:
            return [_normal(generator, 2, 5, 9, 13).to(dtype), rois, 3, 4, *rest]
        none = torch.empty(0, dtype=wide)
        return [_normal(generator, 7, 5, 3, 4).to(dtype), rois, none, none, 2, 5, 9, 13, *rest]

    return make


def _columns(backward: bool) -> Callable[..., list[Any]]:
    batch, height, width, channels, groups = 2, 6, 9, 12, 2
    rows, columns = 3, 4  # of the output, with strides of 2

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        wide = reference.sum_dtype(dtype)
        image = _normal(generator, batch, height, width, channels).to(dtype)
        offset = _between(generator, batch, groups, 6, 2, rows, columns, size=3).to(wide)
        mask = torch.rand(batch, groups, 6, rows, columns, generator=generator).to(wide)
        geometry = [3, [2, 2], [1, 0], [1, 1], 5]
        positions = 17  # of 24, from the sixth on
        shape = (positions, 6, channels)
        if not backward:
            return [image, offset, mask, *geometry, torch.zeros(shape, dtype=dtype)]
        outs = [torch.zeros(x.shape, dtype=wide) for x in (image, offset, mask)]
        return [_normal(generator, *shape).to(dtype), image, offset, mask, *geometry, *outs]

    return make


def _rows(op: str, shape: tuple[int, int], wide: bool) -> Callable[..., list[Any]]:
    """`wide`: whether the rows that run through the network are of float32, and products not."""

    def make(generator: torch.Generator, dtype: torch.dtype) -> list[Any]:
        exact = reference.sum_dtype(dtype)
        stream = exact if wide else dtype
        a, b = (_normal(generator, *shape) for _ in range(2))
        weight, bias = (_normal(generator, shape[1]).to(exact) for _ in range(2))
        factor = torch.rand(shape[0], 1, generator=generator).to(exact)
        x, y = a.to(stream), b.to(dtype)
        to_x, to_y = torch.zeros_like(x), torch.zeros_like(y)
        arguments: dict[str, list[Any]] = {
            "norm_rows": [x, weight, bias, 1e-5, to_y],
            "norm_rows_backward": [y, x, weight, 1e-5, b.to(stream), to_x],
            "gelu_rows": [y, bias, to_y],
            "gelu_rows_backward": [a.to(dtype), y, bias, to_y, to_y],
            "add_rows": [x, y, bias, factor, to_x],
            "scale_rows": [x, factor, to_y],
        }
        return arguments[op]

    return make


# (B, H, W, N, D, window, shift), and whether cosine.
_WINDOWS = {
    "windows of 7, shifted, ragged": ((2, 9, 15, 2, 32, 7, 3), False),
    "windows of 7, heads of 64": ((1, 14, 7, 3, 64, 7, 0), False),
    "windows of 12, shifted, ragged": ((1, 13, 17, 2, 32, 12, 5), False),
    "windows of 8, cosine, shifted": ((1, 11, 8, 3, 32, 8, 4), True),
    "windows of 16, cosine": ((1, 16, 19, 1, 32, 16, 0), True),
}
# (B, H, W, N, D, window, dilations).
_NEIGHBORHOODS = {
    "windows of 7": (2, 9, 13, 2, 32, 7, 1, 1),
    "windows of 3, dilated": (1, 11, 23, 3, 20, 3, 3, 7),
}
CASES = (
    *(
        Case("window_attention", op, about, _windows(shape, cosine, op.endswith("backward")))
        for about, (shape, cosine) in _WINDOWS.items()
        for op in ("window_attention", "window_attention_backward")
    ),
    *(
        Case(
            "neighborhood_attention", op, about, _neighborhoods(shape, op.endswith("backward"))
        )
        for about, shape in _NEIGHBORHOODS.items()
        for op in ("neighborhood_attention", "neighborhood_attention_backward")
    ),
    Case("ms_deform_attn", "ms_deform_attn", "three levels", _deformable(False)),
    Case(
        "ms_deform_attn", "ms_deform_attn_backward", "three levels", _deformable(True),
        equal_bits=False,
    ),
    Case("nms", "nms", "301 boxes, equal scores", _suppression(None), exact=True),
    Case("nms", "nms", "301 boxes of 3 labels", _suppression(3), exact=True),
    Case("roi_align", "roi_align", "means", _pooling(False)),
    Case("roi_align", "roi_align", "maxima", _pooling(False, take_max=True)),
    Case("roi_align", "roi_align_backward", "means", _pooling(True), equal_bits=False),
    Case("deform_conv2d", "deform_columns", "two groups, strides", _columns(False)),
    Case(
        "deform_conv2d", "deform_columns_backward", "two groups, strides", _columns(True),
        equal_bits=False,
    ),
    *(
        Case("rows", op, about, _rows(op, shape, wide))
        for about, shape, wide in (
            ("96 channels, kept in float32", (45, 96), True),
            ("33 channels", (5, 33), False),
        )
        for op in (
            "norm_rows", "norm_rows_backward", "gelu_rows", "gelu_rows_backward", "add_rows",
            "scale_rows",
        )
    ),
)  # fmt: skip
