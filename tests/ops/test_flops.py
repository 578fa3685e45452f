"""FLOPs of our ops against torch's count of their meaning in plain torch, or by hand."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from swin_dense import ops
from swin_dense.ops import reference

pytestmark = pytest.mark.plain


def counted(function, *inputs):
    with FlopCounterMode(display=False) as counter:
        out = function(*inputs)
    return counter.get_total_flops(), out


def attention_inputs(height, width, window, grad=False):
    qkv = torch.randn(2, height, width, 3, 4, 6, requires_grad=grad)
    bias = torch.randn(4, window**2, window**2, requires_grad=grad)
    return qkv, bias, torch.randn(3, 4, 6, requires_grad=grad)


@pytest.mark.parametrize(("height", "width", "window"), [(8, 12, 4), (9, 5, 4), (1, 1, 3)])
@pytest.mark.parametrize("shift", [0, 1])
def test_window_attention(height, width, window, shift):
    inputs = attention_inputs(height, width, window)
    ours, _ = counted(ops.window_attention, *inputs, window, shift)
    windows = 2 * math.ceil(height / window) * math.ceil(width / window)
    logits = windows * 4 * window**2 * window**2
    assert ours == 2 * logits * 6 * 2
    scale = torch.full((4,), 0.5)
    plain, _ = counted(reference.window_attention, *inputs, scale, window, shift, False)
    assert ours == plain


def test_window_attention_backward():
    """Of the op itself; another back end is counted by what it is made of."""
    inputs = (*attention_inputs(8, 12, 4, grad=True), torch.full((4,), 0.5))
    forward, out = counted(torch.ops.swin_dense.window_attention, *inputs, 4, 2, False)
    back, _ = counted(out.sum().backward)
    assert back == 5 * forward / 2


def test_neighborhood_attention():
    """By hand: 2 products of 2 x 8 x 9 queries with 3 x 3 keys, in 4 heads of 6 channels."""
    maps = [torch.randn(2, 8, 9, 4, 6, requires_grad=True) for _ in range(3)]
    forward, out = counted(ops.neighborhood_attention, *maps, None, 3, 2)
    assert forward == 2 * 2 * (2 * 8 * 9) * 9 * 4 * 6
    back, _ = counted(out.sum().backward)
    assert back == 5 * forward / 2


def test_decomposed_attention():
    """By hand: two products of 5 queries with 2 x 4 keys, in 3 heads of 6 channels."""
    sizes = ((5, 6), (8, 6), (8, 6), (5, 2), (5, 4))
    inputs = [torch.randn(2, 3, *size, requires_grad=True) for size in sizes]
    forward, out = counted(torch.ops.swin_dense.decomposed_attention, *inputs, 0.4)
    assert forward == 2 * 2 * (2 * 3 * 5 * 8 * 6)
    back, _ = counted(out.sum().backward)
    assert back == 5 * forward / 2


def test_torch_s_own_attention():
    """By hand: two products forward, five backward."""
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    forward, out = counted(torch.nn.functional.scaled_dot_product_attention, q, k, v)
    assert forward == 2 * 2 * (2 * 3 * 5 * 7 * 8)
    back, _ = counted(out.sum().backward)
    assert back == 5 * forward / 2


def test_ms_deform_attn():
    """By hand: 5 multiply-adds for each of 2 x 7 x 3 x 2 x 4 points and 5 channels."""
    value = torch.randn(2, 3 * 4 + 2 * 2, 3, 5, requires_grad=True)
    locations = torch.rand(2, 7, 3, 2, 4, 2, requires_grad=True)
    weights = torch.rand(2, 7, 3, 2, 4, requires_grad=True)
    shapes = [(3, 4), (2, 2)]
    forward, out = counted(ops.ms_deform_attn, value, shapes, locations, weights)
    assert forward == 2 * 5 * (2 * 7 * 3 * 2 * 4) * 5
    back, _ = counted(out.sum().backward)
    assert back == 3 * forward


@pytest.mark.parametrize("groups", [1, 2])
def test_deform_conv2d(groups):
    """The product is that of a convolution, whose zero offsets it has here."""
    x = torch.randn(2, 4, 9, 11, requires_grad=True)
    weight = torch.randn(6, 4 // groups, 3, 2, requires_grad=True)
    offset = torch.zeros(2, 2 * 3 * 2, 7, 10)
    forward, out = counted(ops.deform_conv2d, x, offset, weight)
    convolution, expected = counted(lambda: torch.nn.functional.conv2d(x, weight, groups=groups))
    torch.testing.assert_close(out, expected)
    samples = 2 * (2 * 7 * 10) * (3 * 2) * 4 * 4
    assert forward == convolution + samples
    back, _ = counted(out.sum().backward)
    assert back == 2 * convolution + 4 * samples


def test_a_compiled_model_counts_the_same():
    """What a tracer sees of an op has its formula, too."""
    inputs = attention_inputs(9, 5, 4)
    graph = torch.fx.experimental.proxy_tensor.make_fx(
        lambda *tensors: ops.window_attention(*tensors, 4, 1), tracing_mode="fake"
    )(*inputs)
    assert counted(graph, *inputs)[0] == counted(ops.window_attention, *inputs, 4, 1)[0]
