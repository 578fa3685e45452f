"""The CUDA kernels as CPU code: cuda_on_cpu.h says how, and what that shows."""

import ctypes
import re

import pytest
import torch
from cuda_on_cpu import gradient_of, kernels, library
from test_roi_align import assert_on_the_borders
from torch import Tensor

from swin_dense.ops import reference

FAULTS = """
#include "tensor_core_on_cpu.h"
__global__ void fine() { __syncthreads(); }
__global__ void some_meet() { if (threadIdx.x < 7) __syncthreads(); }
__global__ void one_stays_away() { if (threadIdx.x != 5) __syncwarp(); }
__global__ void two_meetings() { threadIdx.x < 5 ? __syncthreads() : __syncwarp(); }
__global__ void beside() {
  alignas(16) float numbers[4] = {};
  numbers[0] = reinterpret_cast<float2*>(numbers + 1)->x = 0;
  const float2 two = *reinterpret_cast<float2*>(numbers + 1);
}
__global__ void past_the_end() {
  extern __shared__ float memory[];
  memory[threadIdx.x + 1] = 0.f;
}
__global__ void nobody_waits() {
  extern __shared__ uint4 memory[];
  const uint4 from{};
  swin_dense::start_copy(memory, &from, true);
}
void run(int fault) {
  switch (fault) {
    case 0: fine<<<dim3(2, 3), dim3(5, 7, 2)>>>(); break;
    case 1: some_meet<<<1, 33>>>(); break;
    case 2: one_stays_away<<<1, 64>>>(); break;
    case 3: two_meetings<<<1, 20>>>(); break;
    case 4: beside<<<1, 1>>>(); break;
    case 5: past_the_end<<<1, 9, 9 * sizeof(float)>>>(); break;
    case 6: fine<<<1, 1025>>>(); break;
    case 7: fine<<<dim3(1, 65536), 1>>>(); break;
    case 8: fine<<<0, 1>>>(); break;
    case 9: fine<<<1, 1, 49 * 1024>>>(); break;
    case 10: fine<<<1, 1, 100 * 1024>>>(); break;
    case 11: nobody_waits<<<1, 1, 16>>>(); break;
  }
}
extern "C" __attribute__((visibility("default"))) const char* report(int fault) {
  static std::string said;
  said = "nothing";
  try { run(fault); } catch (const std::exception& error) { said = error.what(); }
  return said.c_str();
}
"""


@pytest.fixture
def cuda():
    with kernels("window_attention", "window_attention_backward", "roi_align", "nms") as ops:
        yield ops


# (B, H, W, N, D, window, shift): no two letters equal within a row where that can be.
CASES = {
    "whole windows, several for a block": (2, 6, 9, 4, 5, 3, 0),
    "whole windows, shifted": (2, 6, 9, 4, 5, 3, 1),
    "ragged": (2, 5, 7, 3, 6, 4, 0),
    "ragged, shifted": (2, 5, 7, 3, 6, 4, 2),
    "the usual size": (1, 15, 9, 2, 32, 7, 0),
    "the usual size, shifted": (1, 9, 15, 2, 32, 7, 3),
    "a whole tile, in a lone window": (1, 3, 2, 5, 48, 8, 4),
    "three tiles": (1, 13, 5, 3, 64, 12, 0),
    "three tiles, shifted": (1, 5, 13, 2, 32, 12, 5),
    "four tiles": (1, 9, 6, 2, 24, 16, 7),
    "too many wide queries for a block": (1, 15, 13, 2, 56, 16, 0),
    "too many queries for a block, in two rounds": (1, 19, 18, 2, 32, 18, 5),
    "lower than a window": (2, 1, 8, 3, 40, 5, 2),
    "smaller than the shift": (2, 1, 2, 3, 33, 7, 3),
    "one token": (2, 1, 1, 3, 32, 7, 3),
    "windows of two": (1, 3, 5, 9, 4, 2, 1),
    "windows of one": (2, 3, 4, 5, 1, 1, 0),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def sample(case: tuple[int, ...], dtype: torch.dtype, cosine: bool = False) -> list:
    batch, height, width, heads, head_dim, window, shift = case
    random = torch.Generator().manual_seed(0)
    qkv = torch.randn(batch, height, width, 3, heads, head_dim, generator=random)
    bias = torch.randn(heads, window**2, window**2, generator=random)
    pad = torch.randn(3, heads, head_dim, generator=random)
    scale = torch.rand(heads, generator=random) + 0.5
    scale = scale * (10 if cosine else head_dim**-0.5)
    return [qkv.to(dtype), bias, pad.to(dtype), scale, window, shift, cosine]


def both_directions(ops, arguments: list) -> list[Tensor]:
    out = ops.window_attention(*arguments)
    return [out, *ops.window_attention_backward(gradient_of(out), *arguments)]


def truth(arguments: list) -> list[Tensor]:
    exact = [x.double() if isinstance(x, Tensor) else x for x in arguments]
    out = reference.window_attention(*exact)
    grad = gradient_of(out.to(arguments[0].dtype)).double()
    return [out, *reference.window_attention_backward(grad, *exact)]


def check(arguments: list) -> None:
    """At most so many steps of the dtype away from the truth, seen from the largest number."""
    dtype = arguments[0].dtype
    step, exact_step = torch.finfo(dtype).eps, torch.finfo(torch.float32).eps
    near = 16 * step if dtype == torch.float32 else step
    # Those of the bias and the scale are sums of float32 products of the inputs, never rounded.
    bounds = [near, near, 16 * exact_step, near, 64 * exact_step]
    found = both_directions(torch.ops.cuda_on_cpu, arguments)
    types = [dtype, dtype, torch.float32, dtype, torch.float32]
    for ours, right, kind, bound in zip(found, truth(arguments), types, bounds, strict=True):
        assert ours.dtype == kind
        assert ours.shape == right.shape
        assert (ours.double() - right).abs().max() <= bound * right.abs().max()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_window_attention_means_the_reference(dtype, cosine, case, cuda):
    check(sample(case, dtype, cosine))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", range(2, 25))
def test_every_window(window, dtype, cuda):
    # Fourths of the sizes are not shifted; odd ones have rows that are read number by number. The
    # gradient of one head's scale may cancel out in a cosine, that of several hardly.
    cosine, height = window % 3 == 0, window + 1 if window < 9 else window - 1
    head_dim, shift = 8 + 16 * (window % 4) - window % 2, (window + 1) // 2 if window % 4 else 0
    sizes = (1, height, window - 1, 1 + cosine, head_dim, window, shift)
    check(sample(sizes, dtype, cosine))


TWICE = [(2, 6, 9, 4, 5, 3, 1), (1, 13, 5, 2, 32, 12, 5), (1, 18, 5, 1, 32, 18, 0)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TWICE)
def test_two_runs_give_the_same_bits(case, dtype, cuda):
    once, again = (both_directions(cuda, sample(case, dtype)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_image(dtype, cuda):
    out, by_qkv, *rest = both_directions(cuda, sample((0, 5, 7, 3, 6, 4, 2), dtype))
    assert out.shape == (0, 5, 7, 18)
    assert by_qkv.shape == (0, 5, 7, 3, 3, 6)
    assert [tuple(x.shape) for x in rest] == [(3, 16, 16), (3, 3, 6), (3,)]
    assert not any(x.any() for x in rest)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [(1, 6, 9, 2, 5, 3, 0), (1, 12, 25, 1, 24, 12, 0)])
def test_nan_stays_in_its_window(case, dtype, cuda):
    arguments, window = sample(case, dtype), case[5]
    before = both_directions(cuda, arguments)
    arguments[0][0, 1, 2] = float("nan")
    after = both_directions(cuda, arguments)
    assert after[0][:, :window, :window].isnan().all()
    for new, old in zip(after[:2], before[:2], strict=True):  # out, gradient of qkv
        assert torch.equal(new[:, window:], old[:, window:])
        assert torch.equal(new[:, :window, window:], old[:, :window, window:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [(1, 5, 7, 2, 6, 4, 2), (1, 13, 5, 1, 32, 12, 5)])
def test_nobody_sees_across_the_border(case, dtype, cuda):
    arguments = sample(case, dtype)
    moved = [arguments[0].clone(), *arguments[1:]]
    moved[0][0, 0, 0] += 100
    seen = (truth(arguments)[0] != truth(moved)[0]).any(-1)
    ours = (cuda.window_attention(*arguments) != cuda.window_attention(*moved)).any(-1)
    assert torch.equal(ours, seen)
    assert not seen.all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [(1, 5, 7, 2, 6, 4, 2), (1, 13, 5, 1, 32, 12, 5)])
def test_large_bias(case, dtype, cuda):
    arguments = sample(case, dtype)
    arguments[1] = arguments[1].sign() * 1e4  # numbers that far from 0 lie 1e-3 apart
    arguments[1][:, :, 1] = -torch.inf
    for ours, right in zip(both_directions(cuda, arguments), truth(arguments), strict=True):
        torch.testing.assert_close(ours.double(), right, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_of_tiny_and_large_tokens(dtype, cuda):
    arguments = sample((1, 5, 7, 3, 6, 4, 2), dtype, cosine=True)
    arguments[0][0, 1, 2] *= 1e-3
    arguments[0][0, 2, 4] *= 1e3
    check(arguments)
    arguments[0][0, 3, 3] = 0
    arguments[2].zero_()
    out, right = cuda.window_attention(*arguments), truth(arguments)[0]
    torch.testing.assert_close(out.double(), right, atol=0.01, rtol=0.02)


@pytest.mark.parametrize("dtype", DTYPES)
def test_takes_views(dtype, cuda):
    arguments = sample((2, 5, 7, 3, 32, 4, 2), dtype)
    want = both_directions(cuda, arguments)
    arguments[0] = arguments[0].transpose(1, 2).contiguous().transpose(1, 2)
    arguments[2] = torch.cat([arguments[2].new_zeros(1), arguments[2].flatten()])[1:].view(3, 3, 32)
    arguments[3] = arguments[3].repeat_interleave(2)[::2]
    for ours, right in zip(both_directions(cuda, arguments), want, strict=True):
        assert torch.equal(ours, right)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: (2, 5, 7, 3, 3, 65)}, "1 to 64 channels"),
        ({0: (2, 5, 7, 54)}, r"\(B, H, W, 3, N, D\)"),
        ({1: (3, 9, 9)}, r"bias must be \(N, L, L\)"),
        ({2: (3, 18)}, r"pad_qkv must be \(3, N, D\)"),
        ({3: (4,)}, r"scale must be \(N,\)"),
        ({4: 33}, "1 to 32 tokens"),
        ({5: 4}, "less than a window"),
    ],
)
def test_wrong_sizes_stop_before_the_kernel(change, text, cuda):
    arguments = sample((2, 5, 7, 3, 6, 4, 2), torch.float32)
    for place, value in change.items():
        arguments[place] = torch.zeros(value) if isinstance(value, tuple) else value
    with pytest.raises(RuntimeError, match=text):
        cuda.window_attention(*arguments)


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
@pytest.mark.parametrize("take_max", [False, True])
def test_roi_align_means_the_reference(take_max, dtype, cuda):
    random = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 5, 7, generator=random, dtype=torch.float64).to(dtype)
    rois = torch.tensor([[1, 2.3, 1.9, 14.2, 9.7], [0, -6.1, -4.7, 9.3, 8.9], [1, 40, 31, 55, 49]])
    arguments = (rois.to(reference.sum_dtype(dtype)), 3, 2, 0.4, 0, take_max, True)
    found = cuda.roi_align(features, *arguments)
    right = reference.roi_align(features, *arguments)
    for ours, theirs in zip(found, right, strict=True):
        torch.testing.assert_close(ours, theirs)
    rest = (arguments[0], *right[1:], *features.shape, *arguments[3:])
    grad = gradient_of(right[0])
    torch.testing.assert_close(
        cuda.roi_align_backward(grad, *rest), reference.roi_align_backward(grad, *rest)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("take_max", [False, True])
def test_roi_align_on_the_borders(take_max, dtype, cuda):
    assert_on_the_borders(cuda.roi_align, cuda.roi_align_backward, take_max, dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("count", [1, 131])
def test_nms_means_the_reference(count, dtype, cuda):
    random = torch.Generator().manual_seed(0)
    corners = torch.rand(count, 2, generator=random) * 40
    boxes = torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=random) * 20], 1)
    scores = torch.randperm(count, generator=random).to(dtype)
    for threshold in (0.0, 0.3, 0.7):
        for labels in (None, torch.arange(2 * count)[::2] % 3 - 1, torch.arange(count)):
            arguments = (boxes.to(dtype), scores, threshold, 1, labels)
            assert cuda.nms(*arguments).tolist() == reference.nms(*arguments).tolist()


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (0, "^nothing$"),
        (1, "some threads wait in __syncthreads for others that do not come"),
        (2, "some threads wait in __syncwarp for others that do not come"),
        (3, "some threads wait in __sync"),
        (4, r"8 bytes at an address .*, thread \(0, 0, 0\) of block \(0, 0, 0\)"),
        (5, "past the dynamic shared memory"),
        (6, "more than 1024 threads"),
        (7, "65535 along y"),
        (8, "launch of nothing"),
        (9, "more shared memory than cudaFuncSetAttribute has allowed"),
        (10, "more than 99 KB"),
        (11, "nobody waits for"),
    ],
)
def test_what_a_gpu_would_not_forgive_is_found(fault, text, faults):
    assert re.search(text, faults(fault).decode())


@pytest.fixture(scope="session")
def faults():
    report = ctypes.CDLL(str(library("faults", FAULTS))).report
    report.restype = ctypes.c_char_p
    return report
