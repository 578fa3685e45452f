"""What only a CUDA device can show: streams, graphs, several cards, compilers, odd addresses.

What the ops mean there is asked by the tests of each op, which run on every device.
"""

import functools

import pytest
import torch
from devices import CUDA_COUNT, needs_cuda

from swin_dense import ops

pytestmark = needs_cuda
DEVICE = "cuda"
SIZES = [(7, 11), (4, 6), (2, 3)]


def window_attention(qkv, bias, pad, scale):
    return ops.window_attention(qkv, bias, pad, 7, 3, scale)


def large_windows(qkv, bias, pad, scale):
    return ops.window_attention(qkv, bias, pad, 12, 5, scale, cosine=True)


def neighborhood_attention(query, key, value, table):
    return ops.neighborhood_attention(query, key, value, table, 5, (1, 3))


def ms_deform_attn(value, locations, weights):
    return ops.ms_deform_attn(value, SIZES, locations, weights)


@functools.cache
def rois(device):
    """Made outside a graph that is being captured, which cannot wait for memory of the host."""
    return torch.tensor([[1, 0.5, 2.5, 9, 7], [0, -3, 1, 5, 4.5]], device=device)


def roi_align(features):
    return ops.roi_align(features, rois(features.device), (3, 2))


def deform_conv2d(input, offset, weight, bias, mask):
    return ops.deform_conv2d(input, offset, weight, bias, 2, 1, 1, mask)


def drawn(*shapes, generator):
    return [torch.randn(shape, generator=generator) for shape in shapes]


def windows(side, generator):
    return drawn((2, 9, 15, 3, 2, 32), (2, side**2, side**2), (3, 2, 32), (2,), generator=generator)


def inputs(call, dtype, device=DEVICE, seed=0):
    """Those of the call whose gradients are asked for; what decides where to look stays wide."""
    generator = torch.Generator().manual_seed(seed)
    if call in (window_attention, large_windows):
        tensors, narrow = windows(7 if call is window_attention else 12, generator), (0, 2)
    elif call is neighborhood_attention:
        shapes = (2, 9, 17, 3, 32), (2, 9, 17, 3, 32), (2, 9, 17, 3, 32), (3, 9, 9)
        tensors, narrow = drawn(*shapes, generator=generator), (0, 1, 2)
    elif call is ms_deform_attn:
        count = sum(h * w for h, w in SIZES)
        shapes = (2, count, 3, 32), (2, 13, 3, 3, 4, 2), (2, 13, 3, 3, 4)
        tensors, narrow = drawn(*shapes, generator=generator), (0,)
        tensors[1].sigmoid_()
    elif call is roi_align:
        tensors, narrow = drawn((2, 19, 11, 13), generator=generator), (0,)
    else:
        shapes = (2, 6, 9, 13), (2, 36, 5, 7), (4, 6, 3, 3), (4,), (2, 18, 5, 7)
        tensors, narrow = drawn(*shapes, generator=generator), (0, 2, 3)
    tensors = [x.to(dtype) if i in narrow else x for i, x in enumerate(tensors)]
    return [x.to(device).requires_grad_() for x in tensors]


def answers(call, tensors):
    out = call(*tensors)
    weight = torch.arange(out.numel(), device=out.device).cos().view(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, weight)]


def assert_close(ours, right, dtype):
    share = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}[dtype]
    for one, other in zip(ours, right, strict=True):
        other = other.to(one.device).double()
        assert (one.double() - other).abs().max() <= share * other.abs().max()


CALLS = [
    window_attention,
    large_windows,
    neighborhood_attention,
    ms_deform_attn,
    roi_align,
    deform_conv2d,
]
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@every_call
@pytest.mark.parametrize("dtype", DTYPES)
def test_is_what_the_cpu_computes_in_float64(call, dtype):
    tensors = inputs(call, dtype)
    wide = [x.detach().cpu().double().requires_grad_() for x in tensors]
    assert_close(answers(call, tensors), answers(call, wide), dtype)


@every_call
def test_autocast_changes_nothing_but_convolutions(call):
    tensors = inputs(call, torch.float32)
    want = answers(call, tensors)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = answers(call, tensors)
    cast = call is deform_conv2d
    assert found[0].dtype == (torch.bfloat16 if cast else torch.float32)
    assert_close(found, want, torch.bfloat16 if cast else torch.float32)


@every_call
@pytest.mark.parametrize("dtype", DTYPES)
def test_addresses_and_strides_do_not_matter(call, dtype):
    tensors = inputs(call, dtype)
    want = answers(call, tensors)
    moved = []
    for x in tensors:
        flat = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
        moved.append(flat[1:].view(x.shape).copy_(x.detach()).requires_grad_())
    turned = [
        x.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_() for x in tensors
    ]
    for other in (moved, turned):
        assert_close(answers(call, other), want, torch.float32)


@every_call
def test_a_captured_graph_computes_the_same(call):
    tensors = inputs(call, torch.float32)
    with torch.no_grad():
        other = torch.cuda.Stream()
        with torch.cuda.stream(other):  # as torch asks for: warm up beside the usual stream
            for _ in range(3):
                call(*tensors)
        torch.cuda.current_stream().wait_stream(other)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = call(*tensors)
        for x, new in zip(tensors, inputs(call, torch.float32, seed=1), strict=True):
            x.copy_(new)
        graph.replay()
        torch.cuda.synchronize()
        assert_close([out], [call(*tensors)], torch.float32)


@every_call
def test_two_streams_do_not_mix(call):
    both = [inputs(call, torch.float32, seed=seed) for seed in (1, 2)]
    want = [answers(call, tensors) for tensors in both]
    streams = [torch.cuda.Stream() for _ in both]
    torch.cuda.synchronize()
    found = [[], []]
    for _ in range(5):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[i].append(answers(call, both[i]))
    torch.cuda.synchronize()
    for right, turns in zip(want, found, strict=True):
        for turn in turns:
            assert_close(turn, right, torch.float32)


@pytest.mark.skipif(CUDA_COUNT < 2, reason="needs two CUDA devices")
@every_call
def test_a_device_that_is_not_the_current_one(call):
    tensors = inputs(call, torch.float32, "cuda:1")
    want = answers(call, inputs(call, torch.float32, "cuda:0"))
    found = answers(call, tensors)
    assert all(x.device == torch.device("cuda:1") for x in found)
    assert torch.cuda.current_device() == 0
    assert_close([x.to("cuda:0") for x in found], want, torch.float32)


@every_call
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_is_eager(call, dtype):
    tensors = inputs(call, dtype)
    compiled = torch.compile(call, fullgraph=True)
    assert_close(answers(compiled, tensors), answers(call, tensors), dtype)


@pytest.mark.parametrize("call", [window_attention, large_windows], ids=lambda call: call.__name__)
@pytest.mark.parametrize("dtype", DTYPES)
def test_window_attention_gives_equal_bits(call, dtype):
    tensors = inputs(call, dtype)
    once = answers(call, tensors)
    for _ in range(3):
        assert all(map(torch.equal, answers(call, tensors), once))


def test_suppression_of_many_boxes():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(9001, 2, generator=generator) * 400
    boxes = torch.cat([corner, corner + torch.rand(9001, 2, generator=generator) * 60], 1)
    scores, labels = torch.rand(9001, generator=generator), torch.arange(9001) % 7
    on_device = [x.to(DEVICE) for x in (boxes, scores, labels)]
    assert torch.equal(ops.nms(*on_device[:2], 0.5).cpu(), ops.nms(boxes, scores, 0.5))
    found = ops.batched_nms(*on_device, 0.5)
    assert torch.equal(found.cpu(), ops.batched_nms(boxes, scores, labels, 0.5))
