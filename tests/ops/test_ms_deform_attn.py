"""Multi-scale deformable attention: against scalar loops, and against what it promises."""

import functools
import os
import subprocess
import sys

import pytest
import scalar_loops
import torch
from devices import DEVICES, needs_kernels, unordered
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_dense.ops import ms_deform_attn, reference

pytestmark = pytest.mark.plain

SIZES = [(5, 7), (3, 2), (0, 4), (1, 1)]  # one map is empty, one a single position
op = torch.ops.swin_dense.ms_deform_attn
# The name of the package's function hides that of its module.
front = sys.modules["swin_dense.ops.ms_deform_attn"]


def sample(
    device="cpu", dtype=torch.float64, channels=6, sizes=SIZES, queries=9, points=3, edges=True
):
    """Two images, five heads: points inside and outside; far outside and exactly on edges."""
    random = torch.Generator().manual_seed(0)
    keys = sum(h * w for h, w in sizes)
    shape = (2, queries, 5, len(sizes), points)
    value = torch.randn(2, keys, 5, channels, generator=random, dtype=torch.float64)
    locations = torch.rand(*shape, 2, generator=random, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.randn(shape, generator=random, dtype=torch.float64)
    if edges and locations.numel():
        locations[0, 0, 0, :, 0] = 0
        locations[0, 0, 1, :, 0] = 1
        locations[0, 0, 2, :, 0] = torch.tensor([-40.0, 1e30])
        # The centres of positions, and centres just beyond the borders.
        for level, (height, width) in enumerate(sizes):
            if height * width:
                at = torch.tensor([[0.5, 0.5], [width - 0.5, 0.5], [-0.5, height + 0.5]])
                locations[1, :3, :, level, 0] = (at / torch.tensor([width, height]))[:, None]
    exact = reference.sum_dtype(dtype)
    shapes = torch.tensor(sizes, dtype=torch.long).view(-1, 2)
    tensors = (value.to(dtype), shapes, locations.to(exact), weights.to(exact))
    return [x.to(device) for x in tensors]


def both_directions(path, value, sizes, locations, weights):
    """The output, and the gradients of a fixed weighting of it."""
    leaves = [x.detach().clone().requires_grad_() for x in (value, locations, weights)]
    out = path(leaves[0], sizes, *leaves[1:])
    given = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out).to(out)
    if path is reference.ms_deform_attn:
        out = out.detach()
        return out, *reference.ms_deform_attn_backward(given, value, sizes, locations, weights)
    return out.detach(), *torch.autograd.grad(out, leaves, given)


PATHS = [ms_deform_attn, reference.ms_deform_attn]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("channels", [1, 6, 17])
def test_means_the_loops(channels, path, device):
    value, sizes, locations, weights = sample(device, channels=channels)
    found = [x.cpu() for x in both_directions(path, value, sizes, locations, weights)]
    cpu = [x.cpu() for x in (value, locations, weights)]
    torch.testing.assert_close(found[0], scalar_loops.ms_deform_attn(cpu[0], SIZES, *cpu[1:]))
    given = torch.linspace(-1, 2, found[0].numel(), dtype=torch.float64).view_as(found[0])
    expected = scalar_loops.ms_deform_attn(cpu[0], SIZES, *cpu[1:], given)
    for ours, right in zip(found[1:], expected, strict=True):
        torch.testing.assert_close(ours, right)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("channels", [8, 32, 40, 64, 72, 129])
@pytest.mark.parametrize("points", [1, 4, 70])
def test_kernel_for_any_number_of_channels_and_points(points, channels, device):
    """Registers of channels, tables of 64 samples: below, at and above their sizes."""
    inputs = sample(device, channels=channels, points=points, queries=4, edges=False)
    for dtype in (torch.float64, torch.float32):
        cast = [x.to(dtype) if x.is_floating_point() else x for x in inputs]
        exact = [x.double() if x.is_floating_point() else x for x in cast]
        expected = both_directions(reference.ms_deform_attn, *exact)
        for ours, right in zip(both_directions(ms_deform_attn, *cast), expected, strict=True):
            torch.testing.assert_close(ours.double(), right, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_is_mmcvs_published_function(dtype, device):
    """In float32 the same to 1e-5; in 16 bits at most twice as far off as that, in fact nearer."""
    peers = pytest.importorskip("swin_dense.openmmlab.peers")
    plain = peers.published_ms_deform_attn()
    value, sizes, locations, weights = sample(device, dtype, 32, [(9, 13), (5, 7), (3, 4), (1, 2)])
    locations = torch.rand(locations.shape, generator=torch.Generator().manual_seed(1)).to(device)
    truth = both_directions(plain, value.double(), sizes, locations.double(), weights.double())
    ours = both_directions(ms_deform_attn, value, sizes, locations, weights)
    theirs = both_directions(plain, value, sizes, locations.to(dtype), weights.to(dtype))
    for right, kernel, other in zip(truth, ours, theirs, strict=True):
        size = right.abs().max()
        wrong, plainly = ((x.double() - right).abs().max() / size for x in (kernel, other))
        if dtype == torch.float32:
            assert wrong <= 1e-5
        else:
            assert wrong <= 2 * plainly


@pytest.mark.parametrize("device", DEVICES)
def test_gradients(device):
    value, sizes, locations, weights = sample(device)
    # Away from the places where a sample passes from one position to the next.
    inside = torch.rand(locations.shape, generator=torch.Generator().manual_seed(2)).to(locations)
    leaves = [x.requires_grad_() for x in (value, inside, weights)]
    call = functools.partial(_in_order, sizes)
    assert torch.autograd.gradcheck(call, leaves, fast_mode=True, nondet_tol=unordered(device))


def _in_order(sizes, value, locations, weights):
    return ms_deform_attn(value, sizes, locations, weights)


@pytest.mark.parametrize("device", DEVICES)
def test_registration(device):
    inputs = sample(device, torch.float32)
    torch.library.opcheck(op, inputs)
    torch.library.opcheck(op, [x.requires_grad_() if x.is_floating_point() else x for x in inputs])
    grad = torch.ones_like(op(*inputs)).detach()
    detached = [x.detach() for x in inputs]
    torch.library.opcheck(torch.ops.swin_dense.ms_deform_attn_backward, (grad, *detached))
    turned = [x.mT.contiguous().mT if x.dim() > 2 else x for x in detached]
    torch.library.opcheck(torch.ops.swin_dense.ms_deform_attn_backward, (grad, *turned))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", PATHS)
def test_nothing_to_do(path, device):
    for sizes, queries, points in ([], 4, 2), ([(0, 3)], 4, 2), (SIZES, 0, 2), (SIZES, 4, 0):
        value, shapes, locations, weights = sample(
            device, torch.float32, sizes=sizes, queries=queries, points=points
        )
        out, *grads = both_directions(path, value, shapes, locations, weights)
        assert out.shape == (2, queries, 30)
        assert not out.any()
        assert not any(x.any() for x in grads)
        if queries:  # no image
            none = [x[:0] for x in (value, locations, weights)]
            assert path(none[0], shapes, *none[1:]).shape == (0, queries, 30)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_location_that_is_no_number_spoils_its_query_and_no_other(dtype, device):
    value, sizes, locations, weights = sample(device, dtype, 32)
    clean = ms_deform_attn(value, sizes, locations, weights)
    for level, axis in ((0, 0), (1, 1), (2, 0)):
        spoilt = locations.clone()
        spoilt[1, 4, 2, level, 1, axis] = torch.nan
        out = ms_deform_attn(value, sizes, spoilt, weights).unflatten(-1, (5, 32))
        expected = clean.unflatten(-1, (5, 32)).clone()
        if level != 2:  # that map is empty
            expected[1, 4, 2] = torch.nan
        assert torch.equal(out.isnan(), expected.isnan())
        torch.testing.assert_close(out, expected, equal_nan=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", PATHS)
def test_infinitely_far_is_outside(path, device):
    value, sizes, locations, weights = sample(device, torch.float32)
    far, out = locations.clone(), locations.clone()
    far[0, 3, 2, :, 1], out[0, 3, 2, :, 1] = torch.tensor([torch.inf, -torch.inf]), -9
    for infinite, outside in zip(
        both_directions(path, value, sizes, far, weights),
        both_directions(path, value, sizes, out, weights),
        strict=True,
    ):
        torch.testing.assert_close(infinite, outside)


@pytest.mark.parametrize("device", DEVICES)
def test_what_a_value_spoils(device):
    """A NaN reaches those who read its position, and nobody through a weight outside the map."""
    value, sizes, locations, weights = sample(device, torch.float32, 8)
    value[0, 0] = torch.nan
    locations[...] = 0.5
    locations[0, 0, :, 0, 0] = 0.01
    locations[0, 1, :, 0, 0] = -3
    out = ms_deform_attn(value, sizes, locations, weights)
    assert out[0, 0].isnan().all()
    assert not out[0, 1:].isnan().any()
    assert not out[1].isnan().any()


def test_same_bits_for_any_number_of_threads_and_close_on_any_level():
    program = (
        "import math, sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from test_ms_deform_attn import both_directions, sample\n"
        "from swin_dense.ops import ms_deform_attn\n"
        "torch.set_num_threads(int(sys.argv[2]))\n"
        "for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):\n"
        "    inputs = sample('cpu', dtype, 37, [(11, 13), (6, 7)], 101)\n"
        "    found = [x.double() for x in both_directions(ms_deform_attn, *inputs)]\n"
        "    print([math.fsum(x.flatten().tolist()) for x in found])\n"
        "    print([x.numpy().tobytes().__hash__() for x in found])\n"
    )

    def lines(threads, level="avx512"):
        environment = {**os.environ, "PYTHONHASHSEED": "0", "SWIN_DENSE_CPU_LEVEL": level}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        command = [sys.executable, "-c", program, os.path.dirname(__file__), str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    one = lines(1)
    assert one == lines(3)
    for level in ("avx2", "portable"):
        other = lines(2, level)
        for ours, theirs in zip(one[::2], other[::2], strict=True):
            pairs = zip(*(x.strip("[]").split(", ") for x in (ours, theirs)), strict=True)
            for a, b in pairs:
                assert float(a) == pytest.approx(float(b), rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("device", DEVICES)
def test_views_and_plain_sizes(device):
    value, sizes, locations, weights = sample(device, torch.float32)
    out = ms_deform_attn(value, sizes, locations, weights)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (value, locations, weights)]
    assert not turned[0].is_contiguous()
    assert torch.equal(ms_deform_attn(turned[0], SIZES, *turned[1:]), out)
    assert torch.equal(ms_deform_attn(value, sizes.int(), locations, weights), out)
    wide = (locations.double(), weights.double())
    assert torch.equal(ms_deform_attn(value, sizes, *wide), out)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(ms_deform_attn(value, sizes, locations, weights), out)


@pytest.fixture
def table():
    front._table.cache_clear()
    yield front._table
    front._table.cache_clear()


def test_sizes_are_copied_to_a_device_once(table, monkeypatch):
    value, sizes, locations, weights = sample(dtype=torch.float32)
    out = ms_deform_attn(value, sizes, locations, weights)
    with torch.inference_mode():
        assert torch.equal(ms_deform_attn(value, SIZES, locations, weights), out)
    assert table.cache_info().currsize == 1
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("another copy"))
    leaf = value.clone().requires_grad_()  # what an evaluation has kept can be saved for it
    ms_deform_attn(leaf, [list(size) for size in SIZES], locations, weights).sum().backward()
    assert table.cache_info().hits == 1


def test_a_traced_call_keeps_no_sizes(table):
    value, _, locations, weights = sample(dtype=torch.float32)
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in (value, locations, weights)]
        assert ms_deform_attn(fake[0], SIZES, *fake[1:]).shape == (2, 9, 30)
    assert table.cache_info().currsize == 0
    with pytest.raises(RuntimeError, match="functorch"):
        torch.func.grad(lambda x: ms_deform_attn(x, SIZES, locations, weights).sum())(value)
    assert table.cache_info().currsize == 0
    torch._dynamo.reset()
    compiled = torch.compile(ms_deform_attn, fullgraph=True, backend="aot_eager")
    out = compiled(value, SIZES, locations, weights)
    assert table.cache_info().currsize == 0
    assert torch.equal(ms_deform_attn(value, SIZES, locations, weights), out)


def test_compiles_whole():
    value, sizes, locations, weights = sample(dtype=torch.float32, sizes=[(5, 7), (3, 2)])

    def call(value, locations, weights):
        return ms_deform_attn(value * 2, sizes, locations, weights).relu()

    compiled = torch.compile(call, fullgraph=True, dynamic=True)
    for path in (call, compiled):
        leaves = [x.detach().requires_grad_() for x in (value, locations, weights)]
        found = torch.autograd.grad(path(*leaves).square().sum(), leaves)
        if path is call:
            expected = found
    for ours, right in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, right)


@needs_kernels
def test_wrong_sizes_do_not_reach_memory():
    """Below the front, where a compiled program calls."""
    value, _, locations, weights = sample(dtype=torch.float32)
    for wrong in ([(50, 7), (3, 2), (0, 4), (1, 1)], [(-5, -7), (3, 2), (0, 4), (1, 1)]):
        with pytest.raises(RuntimeError, match=r"sizes of maps|add up"):
            op(value, torch.tensor(wrong), locations, weights)


def wrong(change):
    value, sizes, locations, weights = sample(dtype=torch.float32)
    return change(value, sizes, locations, weights)


MISTAKES = {
    r"value is \(B, K, heads, .*\); it has shape \(2, 42, 30\)": lambda v, s, x, w: (
        v.flatten(2), s, x, w
    ),
    r"have shape \(2, 9, 5, 12\)\. Unflatten": lambda v, s, x, w: (v, s, x, w.flatten(3)),
    r"has 2 images and 5 heads; .* \(2, 5, 9, 4, 3\)\. Are two axes": lambda v, s, x, w: (
        v, s, x.transpose(1, 2), w.transpose(1, 2)
    ),
    r"x and y for each weight, \(2, 9, 5, 4, 3, 2\); .* \(2, 9, 1, 4, 3, 2\)": lambda v, s, x, w: (
        v, s, x[:, :, :1], w
    ),
    r"each of 4 maps, integers of shape \(4, 2\); got shape \(3, 2\)": lambda v, s, x, w: (
        v, s[:3], x, w
    ),
    r"got shape \(4, 2\) and torch.float32": lambda v, s, x, w: (v, s.float(), x, w),
    r"whole numbers; got \[\(5,\), \(7,\)\]": lambda v, s, x, w: (v, [(5,), (7,)], x, w),
    r"whole numbers; got \[\(5\.0, 7\)\]": lambda v, s, x, w: (v, [(5.0, 7)], x, w),
    r"whole numbers; got \[5, 7\]": lambda v, s, x, w: (v, [5, 7], x, w),
    r"whole numbers; got None": lambda v, s, x, w: (v, None, x, w),
    r"value holds .*; it has torch\.int64\. Convert": lambda v, s, x, w: (v.long(), s, x, w),
    r"sampling_locations holds .* torch\.int32\. Con": lambda v, s, x, w: (v, s, x.int(), w),
    r"attention_weights holds .* torch\.bool\. Con": lambda v, s, x, w: (v, s, x, w.bool()),
    r"value is on cpu, sampling_locations on meta\. M": lambda v, s, x, w: (v, s, x.to("meta"), w),
    r"value is on cpu, attention_weights on meta\. Mo": lambda v, s, x, w: (v, s, x, w.to("meta")),
    r"value is on cpu, spatial_shapes on meta\. Move": lambda v, s, x, w: (v, s.to("meta"), x, w),
    r"\[\[5, 7\], \[3, 2\], \[1, 4\], \[1, 1\]\] have 46 positions, .* has 42": lambda v, s, x, w: (
        v, s + torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0]]), x, w
    ),
    r"have 42 positions, .* row after row": lambda v, s, x, w: (v, -s, x, w),
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(text):
    with pytest.raises(ValueError, match=f"^ms_deform_attn: .*{text}"):
        ms_deform_attn(*wrong(MISTAKES[text]))
