"""What is done to every row by itself, against its formulas in float64."""

import math
from typing import Any

import pytest
import torch
from devices import needs_cuda, needs_kernels
from test_window_attention import threads  # noqa: F401  a fixture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from swin_dense.ops import extension, reference

pytestmark = pytest.mark.plain

SIZES = [(1, 1), (65, 1), (65, 5), (200, 16), (3, 37), (65, 96), (2, 3072), (0, 7)]
LANES = [(9, 132), (9, 260), (10, 516), (3, 1028)]  # columns of which a lane takes 2, 4, 8, many
F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
# What runs through the network, what goes into or comes out of a product.
TYPES = [(F32, F32), (F32, BF16), (BF16, BF16)]
IDS = ["float32", "float32 to bfloat16", "bfloat16"]
EPS = 1e-3


class OnCuda:
    """The ops on a CUDA device, of tensors of the CPU, which get what is written there."""

    def __getattr__(self, name: str) -> Any:
        op = getattr(torch.ops.swin_dense, name)

        def call(*given: Any) -> Any:
            there = [x.to("cuda") if isinstance(x, Tensor) else x for x in given]
            out = op(*there)
            for x, y in zip(given, there, strict=True):
                if isinstance(x, Tensor):
                    x.copy_(y)
            return None if out is None else out.cpu()

        return call


PATHS = [
    pytest.param("ops", id="ops"),
    pytest.param("reference", id="reference"),
    pytest.param("cuda_on_cpu", id="CUDA on CPU"),
    pytest.param("cuda", id="CUDA", marks=needs_cuda),
]


@pytest.fixture
def path(request):
    if request.param == "cuda_on_cpu":
        harness = pytest.importorskip("cuda_on_cpu", reason="a wheel is tried without its sources")
        with harness.kernels("rows", "norm_rows") as ops:
            yield ops
    else:
        found = {"ops": torch.ops.swin_dense, "reference": reference, "cuda": OnCuda()}
        yield found[request.param]


over_types = pytest.mark.parametrize(("wide", "narrow"), TYPES, ids=IDS)
over_sizes = pytest.mark.parametrize("size", SIZES, ids=str)
over_paths = pytest.mark.parametrize("path", PATHS, indirect=True)
with_and_without = pytest.mark.parametrize("given", [True, False])


def draw(*shape: int, dtype: torch.dtype = F32, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=random) * 2 + 0.5).to(dtype)


def assert_right(got: Tensor, want: Tensor, terms: Tensor | None = None) -> None:
    """Rounded once, from sums in float32 of numbers like the terms."""
    assert got.shape == want.shape
    terms = want if terms is None else terms
    free = 16 * torch.finfo(F32).eps * terms.abs().max().item() if want.numel() else 0
    rounding = 4e-6 if got.dtype == F32 else 0.51 * torch.finfo(got.dtype).eps
    torch.testing.assert_close(got.double(), want, rtol=rounding, atol=free)


def assert_right_sums(got: Tensor, terms: list[Tensor], path: Any, dtype: torch.dtype) -> None:
    """Over rows; the reference adds up rounded numbers, the kernel those before rounding."""
    assert got.shape == (len(terms), terms[0].shape[1])
    assert got.dtype == F32
    plain = path is torch.ops.swin_dense and "cpu" not in extension.loaded()
    kernel = path is not reference and not plain
    rounding = 4 * torch.finfo(F32 if kernel else dtype).eps
    for ours, term in zip(got.double(), terms, strict=True):
        assert ((ours - term.sum(0)).abs() <= rounding * (term.abs().sum(0) + 4 * len(term))).all()


def normed(x: Tensor) -> tuple[Tensor, Tensor]:
    off = x.double() - x.double().mean(1, keepdim=True)
    inverse = 1 / (off.square().mean(1, keepdim=True) + EPS).sqrt()
    return off * inverse, inverse


def gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    below = torch.erfc(-x / math.sqrt(2)) / 2
    return x * below, below + x * (-x * x / 2).exp() / math.sqrt(2 * math.pi)


@over_paths
@over_types
@over_sizes
def test_norm_rows(size: tuple[int, int], wide: torch.dtype, narrow: torch.dtype, path) -> None:
    x, weight, bias = draw(*size, dtype=wide), draw(size[1], seed=1), draw(size[1], seed=2)
    out = torch.full(size, math.nan, dtype=narrow)
    path.norm_rows(x, weight, bias, EPS, out)
    assert_right(out, normed(x)[0] * weight.double() + bias.double())


@over_paths
@with_and_without
@over_types
@over_sizes
def test_norm_rows_backward(size, wide: torch.dtype, narrow: torch.dtype, given: bool, path):
    x, grad, weight = draw(*size, dtype=wide), draw(*size, dtype=narrow, seed=1), draw(size[1])
    to = draw(*size, dtype=wide, seed=2) if given else None
    out = torch.full(size, math.nan, dtype=wide)
    sums = path.norm_rows_backward(grad, x, weight, EPS, to, out)
    unit, inverse = normed(x)
    by_unit = grad.double() * weight.double()
    along = (by_unit * unit).mean(1, keepdim=True)
    want = (by_unit - by_unit.mean(1, keepdim=True) - unit * along) * inverse
    assert_right(out, want if to is None else want + to.double(), by_unit * inverse)
    assert_right_sums(sums, [grad.double() * unit, grad.double()], path, F32)


@pytest.mark.parametrize("path", PATHS[2:], indirect=True)
@pytest.mark.parametrize("size", LANES, ids=str)
def test_norms_of_many_columns(size: tuple[int, int], path) -> None:
    test_norm_rows(size, F32, BF16, path)
    test_norm_rows_backward(size, F32, BF16, True, path)


@pytest.mark.parametrize("path", PATHS[:2], indirect=True)
def test_products_wider_than_maps(path) -> None:
    """As processors compute them that multiply float32 faster."""
    for size in [(3, 37), (65, 96)]:
        test_norm_rows(size, BF16, F32, path)
        test_norm_rows_backward(size, BF16, F32, True, path)
        test_add_rows(size, BF16, F32, True, path)
        test_scale_rows(size, BF16, F32, True, path)


@pytest.mark.parametrize("path", PATHS[2:], indirect=True)
@pytest.mark.parametrize("wide", [F32, F16], ids=str)
def test_float16(wide: torch.dtype, path) -> None:
    for size in [(3, 37), (65, 96)]:
        test_norm_rows(size, wide, F16, path)
        test_norm_rows_backward(size, wide, F16, True, path)
        test_gelu_rows(size, F16, True, path)
        test_add_rows(size, wide, F16, True, path)
        test_scale_rows(size, wide, F16, True, path)


@over_paths
@with_and_without
@pytest.mark.parametrize("dtype", [F32, BF16])
@over_sizes
def test_gelu_rows(size: tuple[int, int], dtype: torch.dtype, given: bool, path) -> None:
    x, grad = draw(*size, dtype=dtype), draw(*size, dtype=dtype, seed=1)
    bias = draw(size[1], seed=2) if given else None
    value, slope = gelu(x.double() if bias is None else (x + bias).double())
    out, active, back = (torch.full(size, math.nan, dtype=dtype) for _ in range(3))
    path.gelu_rows(x, bias, out)
    assert_right(out, value)
    sums = path.gelu_rows_backward(grad, x, bias, active, back)
    assert_right(active, value)
    assert_right(back, grad.double() * slope)
    assert_right_sums(sums, [grad.double() * slope], path, dtype)

    before = x.clone()
    sums_in_place = path.gelu_rows_backward(grad, x, bias, active, grad)
    assert torch.equal(grad, back)
    assert torch.equal(sums_in_place, sums)
    assert torch.equal(x, before)
    path.gelu_rows(x, bias, x)
    assert torch.equal(x, out)


@over_paths
@with_and_without
@over_types
@over_sizes
def test_add_rows(size, wide: torch.dtype, narrow: torch.dtype, given: bool, path) -> None:
    to, y = draw(*size, dtype=wide), draw(*size, dtype=narrow, seed=1)
    for bias in (None, draw(size[1], seed=2)):
        factor = draw(size[0], 1, seed=3) if given else None
        out = torch.full(size, math.nan, dtype=wide)
        path.add_rows(to, y, bias, factor, out)
        scaled = y.double() if bias is None else y.double() + bias.double()
        want = to.double() + (scaled if factor is None else scaled * factor.double())
        assert_right(out, want)


@over_paths
@with_and_without
@over_types
@over_sizes
def test_scale_rows(size, wide: torch.dtype, narrow: torch.dtype, given: bool, path) -> None:
    x, factor = draw(*size, dtype=wide), draw(size[0], 1, seed=1) if given else None
    out = torch.full(size, math.nan, dtype=narrow)
    sums = path.scale_rows(x, factor, out)
    want = x.double() if factor is None else x.double() * factor.double()
    assert_right(out, want)
    assert_right_sums(sums, [want], path, narrow)


@over_paths
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_gelu_far_from_zero(dtype: torch.dtype, path) -> None:
    far = [5.0, 9.0, 13.0, 40.0, 1e4, 1e18, 1e30]
    x = torch.tensor([*far, *(-a for a in far), 0.0, -0.0, 1e-30], dtype=dtype)[None]
    out, active, back = (torch.empty_like(x) for _ in range(3))
    path.gelu_rows(x, None, out)
    path.gelu_rows_backward(torch.ones_like(x), x, None, active, back)
    value, slope = gelu(x.double())
    for got, want in ((out, value), (active, value), (back, slope)):
        torch.testing.assert_close(got, want.to(dtype), rtol=1e-2, atol=1e-6)
    assert torch.equal(out[0, 3:7], x[0, 3:7])


@over_paths
@over_types
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_number_stays_in_its_place(number: float, wide, narrow, path) -> None:
    clean = draw(70, 19, dtype=wide)
    dirty = clean.clone()
    dirty[66, 17] = number
    weight, factor = draw(19), draw(70, 1)
    found = []
    for x in (clean, dirty):
        y = x.to(narrow)
        outs = [torch.empty_like(y) for _ in range(4)] + [torch.empty_like(x) for _ in range(2)]
        path.norm_rows(x, weight, weight, EPS, outs[0])
        path.gelu_rows(y, weight, outs[1])
        path.gelu_rows_backward(torch.ones_like(y), y, weight, outs[2], outs[3])
        path.add_rows(x, y, weight, factor, outs[4])
        path.norm_rows_backward(torch.ones_like(y), x, weight, EPS, None, outs[5])
        found.append(outs)
    whole_row = [[66, c] for c in range(19)]
    for i, (before, after) in enumerate(zip(*found, strict=True)):
        odd = (before != after).nonzero().tolist()
        assert odd == (whole_row if i in (0, 5) else [[66, 17]]), i
        assert not after[66, 17].isfinite(), i


def test_no_map_lies_between_in_plain_torch() -> None:
    """But for layer norm, which torch cannot write where it should be, and for other dtypes."""
    x, to, out, active, factor = (draw(64, 37, seed=i) for i in range(5))
    factor = factor[:, :1]
    calls: dict[str, tuple] = {
        "gelu_rows": (x, None, out),
        "gelu_rows_backward": (to, x, None, active, out),
        "add_rows": (to, x, None, factor, out),
        "scale_rows": (x, factor, out),
    }
    for name, arguments in calls.items():
        with Maps(x, to, out, active) as maps:
            getattr(reference, name)(*arguments)
        assert maps.made == 0, name
    with Maps(x, to, out) as maps:
        reference.norm_rows_backward(x, x, draw(37), EPS, to, out)
    assert maps.made == 2  # the norm, for its mean and deviation, and the gradient before `to`


class Maps(TorchDispatchMode):
    """Counts what torch makes of the size of a map beside those that are there."""

    def __init__(self, *there: Tensor) -> None:
        super().__init__()
        self.size, self.there = there[0].shape, {x.data_ptr() for x in there}
        self.made = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        for x in results if isinstance(results, tuple) else [results]:
            if isinstance(x, Tensor) and x.shape == self.size:
                self.made += x.data_ptr() not in self.there
        return results


@needs_kernels
@over_types
def test_same_bits_for_any_number_of_threads(wide, narrow, threads) -> None:  # noqa: F811
    x, grad = draw(200, 37, dtype=wide), draw(200, 37, dtype=narrow, seed=1)
    weight, factor, ops = draw(37), draw(200, 1), torch.ops.swin_dense
    found = []
    for count in (1, 2, 2):
        threads(count)
        outs = [torch.empty_like(y) for y in (x, x, grad, grad, grad, grad)]
        sums = [
            ops.norm_rows_backward(grad, x, weight, EPS, x, outs[0]),
            ops.gelu_rows_backward(grad, x.to(narrow), weight, outs[2], outs[3]),
            ops.scale_rows(x, factor, outs[4]),
        ]
        ops.norm_rows(x, weight, weight, EPS, outs[5])
        ops.add_rows(x, grad, weight, factor, outs[1])
        found.append([*outs, *sums])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_registration() -> None:
    x, out, active, weight, factor = draw(5, 6), draw(5, 6), draw(5, 6), draw(6), draw(5, 1)
    calls: dict[str, tuple] = {
        "norm_rows": (x, weight, weight, EPS, out),
        "norm_rows_backward": (x, x, weight, EPS, None, out),
        "gelu_rows": (x, weight, out),
        "gelu_rows_backward": (x, x, None, active, out),
        "add_rows": (x, x, weight, factor, out),
        "scale_rows": (x, factor, out),
    }
    for name, arguments in calls.items():
        op = getattr(torch.ops.swin_dense, name).default
        torch.library.opcheck(op, arguments, test_utils="test_schema")


@needs_kernels
def test_kernels_refuse_what_they_cannot_read() -> None:
    x, weight = draw(5, 6), draw(6)
    for wrong in (draw(5, 7), draw(6, 5).t(), draw(5, 6).half(), draw(5, 6).double()):
        with pytest.raises(RuntimeError, match="rows: "):
            torch.ops.swin_dense.gelu_rows(x, weight, wrong)
    with pytest.raises(RuntimeError, match="rows: weight and bias"):
        torch.ops.swin_dense.gelu_rows(x, draw(7), draw(5, 6))
