"""The CUDA kernels of multi-scale deformable attention as CPU code, see cuda_on_cpu.h."""

import ctypes
import mmap

import pytest
import scalar_loops
import torch
from cuda_on_cpu import assert_near, gradient_of, kernels
from torch import Tensor

from swin_dense.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
SIZES = [(5, 7), (3, 2), (0, 4), (1, 1)]  # one map is empty, one a single position

# (B, Q, N, D, P) and the maps.
CASES = {
    "the usual channels": (2, 37, 5, 32, 4, SIZES),
    "odd channels": (2, 19, 3, 5, 7, SIZES),
    "one channel": (2, 5, 3, 1, 6, SIZES),
    "runs of four, not of eight": (1, 6, 2, 12, 3, SIZES),
    "more channels than a warp has threads": (1, 5, 3, 33, 2, SIZES),
    "one warp for a row": (2, 3, 5, 72, 1, SIZES),
    "several parts of a row": (1, 3, 2, 264, 4, SIZES),
    "several odd parts of a row": (1, 4, 2, 259, 3, SIZES),
    "more points than threads": (1, 3, 2, 16, 70, [(3, 4)]),
    "many maps": (1, 3, 2, 8, 2, [(i % 4, i % 3 + 1) for i in range(200)]),
    "one of each": (1, 1, 1, 8, 1, [(1, 1)]),
}


@pytest.fixture
def cuda():
    with kernels("ms_deform_attn", "ms_deform_attn_backward") as ops:
        yield ops


def sample(case: tuple, dtype: torch.dtype) -> list[Tensor]:
    """Locations from well outside on one side to well outside on the other."""
    batch, queries, heads, channels, points, sizes = case
    random = torch.Generator().manual_seed(0)
    keys = sum(h * w for h, w in sizes)
    value = torch.randn(batch, keys, heads, channels, generator=random, dtype=torch.float64)
    shape = (batch, queries, heads, len(sizes), points)
    locations = torch.rand(*shape, 2, generator=random, dtype=torch.float64) * 1.8 - 0.4
    weights = torch.randn(shape, generator=random, dtype=torch.float64)
    exact = reference.sum_dtype(dtype)
    shapes = torch.tensor(sizes, dtype=torch.long).view(-1, 2)
    return [value.to(dtype), shapes, locations.to(exact), weights.to(exact)]


def both_directions(ops, arguments: list[Tensor]) -> list[Tensor]:
    out = ops.ms_deform_attn(*arguments)
    return [out, *ops.ms_deform_attn_backward(gradient_of(out), *arguments)]


def truth(arguments: list[Tensor]) -> list[Tensor]:
    exact = [x.double() if x.is_floating_point() else x for x in arguments]
    out = reference.ms_deform_attn(*exact)
    grad = gradient_of(out.to(arguments[0].dtype)).double()
    return [out, *reference.ms_deform_attn_backward(grad, *exact)]


def check(arguments: list[Tensor], expected: list[Tensor]) -> None:
    dtype = arguments[0].dtype
    exact = reference.sum_dtype(dtype)
    types = [dtype, dtype, exact, exact]
    found = both_directions(torch.ops.cuda_on_cpu, arguments)
    for ours, right, kind in zip(found, expected, types, strict=True):
        assert ours.dtype == kind
        step = torch.finfo(kind).eps
        assert_near(ours, right, step if kind in (torch.float16, torch.bfloat16) else 64 * step)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_means_the_reference(dtype, case, cuda):
    arguments = sample(case, dtype)
    check(arguments, truth(arguments))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 8])
def test_exactly_on_positions_and_borders(channels, dtype, cuda):
    """Sides are powers of two, so that no location is rounded."""
    sizes = [(4, 8), (2, 1), (1, 16)]
    arguments = sample((2, 7, 3, channels, 5, sizes), dtype)
    random = torch.Generator().manual_seed(2)
    for level, (height, width) in enumerate(sizes):
        for axis, side in enumerate((width, height)):
            shape = arguments[2].shape[:3] + arguments[2].shape[4:5]
            at = torch.randint(-2, side + 2, shape, generator=random)
            at = torch.cat([at[..., 1:], at[..., :1].clamp(-1, -1) + side + 1], -1)
            arguments[2][..., level, :, axis] = (at + 0.5) / side
    value, _, locations, weights = arguments
    rest = (value.double(), sizes, locations, weights)
    out = scalar_loops.ms_deform_attn(*rest)
    grad = gradient_of(out.to(dtype)).double()
    check(arguments, [out, *scalar_loops.ms_deform_attn(*rest, grad)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [5, 32])
def test_nan_reaches_what_reads_it(channels, dtype, cuda):
    arguments = sample((2, 6, 3, channels, 5, SIZES), dtype)
    before = both_directions(cuda, arguments)
    arguments[2][1, 4, 2, 1, 3, 0] = float("nan")  # on the second map, which begins at 35
    arguments[2][0, 1, 1, 2, 0] = float("nan")  # on the empty one
    arguments[2][0, 2, 0, 0, 0] = torch.tensor([float("inf"), 0.5])
    arguments[2][0, 2, 0, 0, 1] = torch.tensor([0.5, -1e30])
    after = both_directions(cuda, arguments)
    out, by_value, by_locations, by_weights = (x.isnan() for x in after)
    assert out.unflatten(2, (3, channels)).any(-1).nonzero().tolist() == [[1, 4, 2]]
    assert out.sum() == channels
    assert by_value.any(-1).nonzero().tolist() == [[1, 35, 2]]
    assert by_value.sum() == channels
    assert by_locations.nonzero().tolist() == [[1, 4, 2, 1, 3, 0], [1, 4, 2, 1, 3, 1]]
    assert by_weights.nonzero().tolist() == [[1, 4, 2, 1, 3]]
    assert not after[2][0, 2, 0, 0, :2].any()
    assert not after[3][0, 2, 0, 0, :2].any()
    rest = ~out.unflatten(2, (3, channels)).any(-1)
    rest[0, 2, 0] = False
    old, new = (x[0].unflatten(2, (3, channels))[rest] for x in (before, after))
    assert torch.equal(new, old)


WRONG = [
    [(5, 7), (3, 3)],  # 44 positions
    [(5, 7), (2, 2)],  # 39
    [(-5, -7), (3, 2)],
    [(41, 1), (-1, 0)],
    [(41, 1), (0, -3)],
    [(82, 1), (-41, 1)],
    [(2**32, 2**32), (41, 1)],  # as 64-bit numbers they multiply to 0
    [(2**62, 4), (41, 1)],
    [(2**32 + 41, 1), (0, 0)],
    [(41, 2**32 + 1), (0, 0)],
    [(0, 0), (0, 0)],
]


@pytest.mark.parametrize("sizes", WRONG)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries", [0, 3])
def test_sizes_that_do_not_add_up_give_nan(queries, dtype, sizes, cuda):
    arguments = sample((2, queries, 3, 8, 5, [(5, 7), (3, 2)]), dtype)
    arguments[1] = torch.tensor(sizes)
    for found in both_directions(cuda, arguments):
        assert found.isnan().all()


def test_empty_maps_may_have_long_sides(cuda):
    arguments = sample((2, 3, 5, 8, 4, [(3, 4), (0, 2), (2, 1)]), torch.float32)
    want = both_directions(cuda, arguments)
    arguments[1][1] = torch.tensor([2**40, 0])
    for ours, right in zip(both_directions(cuda, arguments), want, strict=True):
        torch.testing.assert_close(ours, right)


@pytest.mark.parametrize(
    "case",
    [
        (0, 3, 5, 8, 4, SIZES),
        (2, 0, 5, 8, 4, SIZES),
        (2, 3, 0, 8, 4, SIZES),
        (2, 3, 5, 0, 4, SIZES),
        (2, 3, 5, 8, 0, SIZES),
        (2, 3, 5, 8, 4, []),
        (2, 3, 5, 8, 4, [(0, 3), (2, 0)]),
    ],
)
def test_nothing_there(case, cuda):
    arguments = sample(case, torch.float32)
    found = both_directions(cuda, arguments)
    shapes = [(case[0], case[1], case[2] * case[3]), *(arguments[i].shape for i in (0, 2, 3))]
    assert [x.shape for x in found] == shapes
    assert not any(x.any() for x in found)


@pytest.mark.parametrize("dtype", DTYPES)
def test_takes_views(dtype, cuda):
    arguments = sample((2, 6, 3, 32, 5, SIZES), dtype)
    want = both_directions(cuda, arguments)
    arguments[1] = arguments[1].repeat_interleave(2, 1)[:, ::2]
    arguments[2] = arguments[2].transpose(1, 2).contiguous().transpose(1, 2)
    value = arguments[0]  # rows that begin at no multiple of 16 bytes
    arguments[0] = torch.cat([value.new_zeros(1), value.flatten()])[1:].view(value.shape)
    arguments[3] = arguments[3].double().to(arguments[3].dtype).flip(0).flip(0)
    for ours, right in zip(both_directions(cuda, arguments), want, strict=True):
        torch.testing.assert_close(ours, right)


def guarded(tensor: Tensor) -> Tensor:
    """A copy that ends where the process may read no further; a byte beyond it ends the run."""
    page, size = mmap.PAGESIZE, tensor.numel() * tensor.element_size()
    memory = mmap.mmap(-1, (size + page - 1) // page * page + 2 * page)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    end = len(memory) - page
    for begin in (0, end):
        assert protect(first + begin, page, 0) == 0
    copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=end - size)
    return copy.view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [8, 11])
@pytest.mark.parametrize("sizes", [SIZES, [(2**31, 7), (3, 2), (0, 4), (1, 1)]])
def test_reads_nothing_beside_its_inputs(sizes, channels, dtype, cuda):
    arguments = sample((1, 7, 3, channels, 5, SIZES), dtype)
    arguments[1] = torch.tensor(sizes)
    arguments[2][0, 0, 0, 0, 0] = float("nan")
    arguments[2][0, 0, 0, 3, 0] = 1e38
    want = both_directions(cuda, arguments)
    found = both_directions(cuda, [guarded(x) for x in arguments])
    for ours, right in zip(found, want, strict=True):
        torch.testing.assert_close(ours, right, equal_nan=True)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (0, torch.zeros(2, 42, 3), r"\(B, K, N, D\)"),
        (0, torch.zeros(2, 42, 3, 8, dtype=torch.int32), "float32"),
        (1, torch.zeros(3, 2, dtype=torch.long), r"\(L, 2\), int64"),
        (1, torch.zeros(4, 2, dtype=torch.int32), r"\(L, 2\), int64"),
        (2, torch.zeros(2, 6, 3, 4, 4, 2), "one location for each weight"),
        (2, torch.zeros(2, 6, 3, 4, 5, 2, dtype=torch.float64), "float64 where value is"),
        (3, torch.zeros(2, 6, 5, 4, 5), r"\(B, Q, N, L, P\)"),
    ],
)
def test_wrong_arguments_stop_before_the_kernel(place, value, text, cuda):
    arguments = sample((2, 6, 3, 8, 5, SIZES), torch.float32)
    arguments[place] = value
    with pytest.raises(RuntimeError, match=text):
        cuda.ms_deform_attn(*arguments)
