"""The CUDA kernels of neighborhood attention as CPU code, see cuda_on_cpu.h."""

import pytest
import torch
from cuda_on_cpu import assert_near, gradient_of, kernels
from torch import Tensor

from swin_dense.ops import reference

# (B, H, W, N, D), window, dilations.
CASES = {
    "the usual channels": ((1, 7, 9, 2, 32), 7, (1, 1)),
    "dilated, odd channels": ((2, 7, 11, 3, 5), 3, (2, 3)),
    "more channels than threads": ((1, 5, 6, 1, 71), 5, (1, 1)),
    "more queries than blocks share": ((1, 19, 17, 1, 3), 3, (1, 4)),
    "one position": ((2, 1, 1, 3, 4), 1, (1, 1)),
}
# Of a minute: each of 17^4 pairs is a turn of 32 threads.
LARGE = pytest.param(((1, 17, 17, 1, 2), 17, (1, 1)), marks=pytest.mark.slow)
NAMES = ("out", "query", "key", "value", "table")


@pytest.fixture
def cuda():
    with kernels("neighborhood_attention") as ops:
        yield ops


def sample(case: tuple, dtype: torch.dtype) -> list:
    shape, window, dilation = case
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(shape, generator=random).to(dtype) for _ in range(3)]
    side = 2 * window - 1
    table = torch.randn(shape[3], side, side, generator=random)
    return [*maps, table.to(reference.sum_dtype(dtype)), window, *dilation, 0.4]


def both_directions(ops, arguments: list) -> list[Tensor]:
    out = ops.neighborhood_attention(*arguments)
    return [out, *ops.neighborhood_attention_backward(gradient_of(out), *arguments)]


@pytest.mark.parametrize("case", [*CASES.values(), LARGE], ids=[*CASES, "tables for fewer warps"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str
)
def test_means_the_reference(dtype, case, cuda):
    arguments = sample(case, dtype)
    exact = [x.double() for x in arguments[:4]] + arguments[4:]
    out = reference.neighborhood_attention(*exact)
    grad = gradient_of(out.to(dtype)).double()
    expected = [out, *reference.neighborhood_attention_backward(grad, *exact)]
    found = both_directions(cuda, arguments)
    for name, ours, right in zip(NAMES, found, expected, strict=True):
        kind = reference.sum_dtype(dtype) if name == "table" else dtype
        assert ours.dtype == kind
        step = torch.finfo(kind).eps
        assert_near(ours, right, step if kind in (torch.float16, torch.bfloat16) else 64 * step)


def test_takes_what_a_projection_leaves_and_gives_the_same_again(cuda):
    arguments = sample(((2, 5, 6, 2, 8), 3, (1, 2)), torch.float32)
    want = both_directions(cuda, arguments)
    side_by_side = torch.stack(arguments[:3], 3).unbind(3)
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in arguments[:3]]
    for maps in (side_by_side, turned):
        found = both_directions(cuda, [*maps, *arguments[3:]])
        assert all(map(torch.equal, found, want))


def test_nothing_there(cuda):
    arguments = sample(((0, 5, 6, 2, 8), 3, (1, 2)), torch.float32)
    found = both_directions(cuda, arguments)
    assert [x.shape for x in found] == [arguments[i].shape for i in (0, 0, 1, 2, 3)]
    assert not found[4].any()


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (0, torch.zeros(2, 5, 6, 16), r"\(B, H, W, N, D\)"),
        (1, torch.zeros(2, 5, 6, 2, 7), "query's shape"),
        (2, torch.zeros(2, 5, 6, 2, 8, dtype=torch.float64), "query's shape, dtype"),
        (3, torch.zeros(2, 5, 3), "table must be"),
        (4, 4, "odd and at most 27"),
        (5, 2, "at most the side of the map"),
        (6, 0, "at most the side of the map"),
    ],
)
def test_wrong_arguments_stop_before_the_kernel(place, value, text, cuda):
    arguments = sample(((2, 5, 6, 2, 8), 3, (1, 2)), torch.float32)
    arguments[place] = value
    with pytest.raises(RuntimeError, match=text):
        cuda.neighborhood_attention(*arguments)
