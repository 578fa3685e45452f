"""The CUDA kernels of the columns of deformable convolution as CPU code, see cuda_on_cpu.h."""

import itertools

import pytest
import torch
from cuda_on_cpu import assert_near, gradient_of, kernels
from scalar_loops import tent
from torch import Tensor

from swin_dense.ops import reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]

# (B, H, W, C, G), kernel, stride, padding, dilation.
CASES = {
    "one group": ((2, 7, 9, 32, 1), (3, 5), (1, 2), (2, 1), (3, 2)),
    "four groups": ((2, 11, 9, 32, 4), (2, 3), (1, 1), (1, 0), (1, 2)),
    "odd channels": ((3, 5, 4, 15, 3), (1, 2), (2, 1), (0, 1), (1, 1)),
    "one channel": ((1, 4, 9, 2, 2), (3, 1), (1, 3), (1, 0), (1, 1)),
    "runs of four, not of eight": ((2, 6, 5, 24, 2), (2, 2), (1, 1), (0, 0), (1, 1)),
    "one warp for a row": ((1, 5, 8, 136, 1), (2, 1), (1, 1), (1, 0), (2, 1)),
    "several parts of a row": ((1, 3, 5, 528, 2), (1, 2), (1, 1), (0, 0), (1, 1)),
    "several odd parts of a row": ((1, 3, 5, 519, 3), (2, 1), (1, 1), (1, 0), (1, 1)),
    "one of each": ((1, 1, 1, 8, 1), (1, 1), (1, 1), (0, 0), (1, 1)),
}


@pytest.fixture
def cuda():
    with kernels("deform_columns") as ops:
        yield ops


def sample(case: tuple, dtype: torch.dtype, masked: bool) -> list:
    (batch, height, width, channels, groups), kernel, stride, padding, dilation = case
    out = [
        (side + 2 * pad - far * (taps - 1) - 1) // step + 1
        for side, pad, far, taps, step in zip(
            (height, width), padding, dilation, kernel, stride, strict=True
        )
    ]
    random = torch.Generator().manual_seed(0)
    exact, taps = reference.sum_dtype(dtype), kernel[0] * kernel[1]
    shape = (batch, groups, taps, *out)
    images = torch.randn(batch, height, width, channels, generator=random, dtype=torch.float64)
    offset = torch.randn(*shape[:3], 2, *out, generator=random, dtype=torch.float64) * 2
    mask = torch.rand(shape, generator=random, dtype=torch.float64) if masked else None
    tensors = (images.to(dtype), offset.to(exact), mask if mask is None else mask.to(exact))
    return [*tensors, kernel[1], list(stride), list(padding), list(dilation)]


def outputs_of(arguments: list) -> int:
    offset = arguments[1]
    return offset.shape[0] * offset.shape[4] * offset.shape[5]


def both_directions(ops, arguments: list, first: int, count: int) -> list[Tensor]:
    """Columns and gradients; what is not written stays 7, what is added to begins with -2."""
    images, offset, mask = arguments[:3]
    columns = images.new_full((count, offset.shape[2], images.shape[3]), torch.nan)
    ops.deform_columns(*arguments, first, columns)
    grad = gradient_of(columns)
    by_input = torch.full_like(images, -2, dtype=offset.dtype)
    by_offset = torch.full_like(offset, 7)
    by_mask = None if mask is None else torch.full_like(mask, 7)
    ops.deform_columns_backward(grad, *arguments, first, by_input, by_offset, by_mask)
    return [columns, by_input, by_offset] + ([] if mask is None else [by_mask])


def check(arguments: list, first: int, count: int) -> None:
    images, dtype = arguments[0], arguments[0].dtype
    exact = [x.double() if isinstance(x, Tensor) else x for x in arguments]
    columns = torch.empty(count, arguments[1].shape[2], images.shape[3], dtype=torch.float64)
    reference.deform_columns(*exact, first, columns)
    grad = gradient_of(columns.to(dtype)).double()
    back = [torch.full_like(exact[0], -2)]
    back += [torch.full_like(x, 7) for x in exact[1:3] if x is not None]
    places = [*back[1:], None][:2]
    reference.deform_columns_backward(grad, *exact, first, back[0], *places)
    found = both_directions(torch.ops.cuda_on_cpu, arguments, first, count)
    for ours, right in zip(found, [columns, *back], strict=True):
        step = torch.finfo(ours.dtype).eps
        near = step if ours.dtype in (torch.float16, torch.bfloat16) else 64 * step
        assert_near(ours, right, near)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_means_the_reference(dtype, masked, case, cuda):
    arguments = sample(case, dtype, masked)
    check(arguments, 0, outputs_of(arguments))


@pytest.mark.parametrize(("first", "count"), [(5, 1), (3, 32), (29, 41), (119, 1), (8, 0)])
def test_a_run_in_the_middle(first, count, cuda):
    arguments = sample(CASES["four groups"], torch.float32, True)
    assert outputs_of(arguments) == 120  # of two images
    check(arguments, first, count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 8])
def test_exactly_on_positions_and_borders(channels, dtype, cuda):
    case = ((2, 4, 6, channels, 1), (2, 3), (1, 1), (1, 2), (1, 1))
    arguments = sample(case, dtype, False)
    images, offset = arguments[:2]
    offset.copy_(torch.randint(-4, 5, offset.shape, generator=torch.Generator().manual_seed(2)))
    batch, height, width = images.shape[:3]
    rows, columns = offset.shape[4:]
    out = torch.zeros(outputs_of(arguments), 6, channels, dtype=torch.float64)
    grad = gradient_of(out.to(dtype)).double()
    by_input = torch.full_like(images, -2, dtype=torch.float64)
    by_offset = torch.zeros_like(offset, dtype=torch.float64)
    everything = itertools.product(range(batch), range(6), range(rows), range(columns))
    for image, tap, i, j in everything:
        y = i - 1 + tap // 3 + offset[image, 0, tap, 0, i, j].item()
        x = j - 2 + tap % 3 + offset[image, 0, tap, 1, i, j].item()
        row = (image * rows + i) * columns + j
        for h, w in itertools.product(range(height), range(width)):
            (down, by_y), (right, by_x) = tent(y, h), tent(x, w)
            out[row, tap] += down * right * images[image, h, w].double()
            by_input[image, h, w] += down * right * grad[row, tap]
            product = float(grad[row, tap] @ images[image, h, w].double())
            by_offset[image, 0, tap, 0, i, j] += by_y * right * product
            by_offset[image, 0, tap, 1, i, j] += down * by_x * product
    found = both_directions(cuda, arguments, 0, len(out))
    for ours, right in zip(found, [out, by_input, by_offset], strict=True):
        assert_near(ours, right, 64 * torch.finfo(ours.dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_reaches_what_reads_it(dtype, cuda):
    arguments = sample(CASES["four groups"], dtype, True)
    count = outputs_of(arguments)
    before = both_directions(cuda, arguments, 0, count)
    height, width = arguments[1].shape[4:]
    arguments[1][1, 2, 3, 0, 1, 2] = float("nan")
    arguments[1][0, 1, 4, 1, 0, 0] = float("-inf")
    after = both_directions(cuda, arguments, 0, count)
    output = (height + 1) * width + 2
    columns, by_input, by_offset, by_mask = (x.isnan() for x in after)
    assert columns.nonzero().tolist() == [[output, 3, c] for c in range(16, 24)]
    assert by_input.nonzero().tolist() == [[1, 0, 0, c] for c in range(16, 24)]
    assert by_offset.nonzero().tolist() == [[1, 2, 3, axis, 1, 2] for axis in (0, 1)]
    assert by_mask.nonzero().tolist() == [[1, 2, 3, 1, 2]]
    assert not after[0][0, 4, 8:16].any()
    assert not after[2][0, 1, 4, :, 0, 0].any()
    same = ~columns
    same[0, 4] = False
    assert torch.equal(after[0][same], before[0][same])


def test_far_away_is_nothing(cuda):
    arguments = sample(CASES["one group"], torch.float32, True)
    arguments[1] += 1e30
    columns, by_input, *others = both_directions(cuda, arguments, 0, outputs_of(arguments))
    assert not columns.any()
    assert (by_input == -2).all()
    assert not any(x.any() for x in others)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_begin_anywhere(dtype, cuda):
    arguments = sample(CASES["one group"], dtype, True)
    want = both_directions(cuda, arguments, 0, outputs_of(arguments))
    images = arguments[0]
    arguments[0] = torch.cat([images.new_zeros(1), images.flatten()])[1:].view(images.shape)
    found = both_directions(cuda, arguments, 0, outputs_of(arguments))
    for ours, right in zip(found, want, strict=True):
        torch.testing.assert_close(ours, right)


@pytest.mark.parametrize(
    ("place", "value", "text"),
    [
        (0, torch.zeros(2, 11, 9, 33), "a divisor of C"),
        (0, torch.zeros(2, 9, 11, 32).transpose(1, 2), "dense"),
        (0, torch.zeros(2, 11, 9, 32, dtype=torch.int32), "right dtype"),
        (1, torch.zeros(2, 4, 6, 3, 12, 5), "offset"),
        (1, torch.zeros(2, 4, 6, 2, 12, 5, dtype=torch.float64), "right dtype"),
        (2, torch.zeros(2, 4, 6, 12, 7), "right dtype and size"),
        (4, [1], "two numbers each"),
        (7, 1000, "no such positions"),
        (7, -1, "no such positions"),
    ],
)
def test_wrong_arguments_stop_before_the_kernel(place, value, text, cuda):
    arguments = [*sample(CASES["four groups"], torch.float32, True), 0]
    columns = torch.zeros(outputs_of(arguments), 6, 32)
    arguments[place] = value
    with pytest.raises(RuntimeError, match=text):
        cuda.deform_columns(*arguments, columns)
