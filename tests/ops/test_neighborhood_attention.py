"""Neighborhood attention: against scalar loops, and against what it promises."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import scalar_loops
import torch
from devices import DEVICES

from swin_dense.ops import extension, neighborhood_attention, reference

pytestmark = pytest.mark.plain

op = torch.ops.swin_dense.neighborhood_attention
backward = torch.ops.swin_dense.neighborhood_attention_backward

# (B, H, W, N, D), window and dilation.
CASES = {
    "windows of 3, dilated": ((2, 7, 8, 1, 5), 3, (2, 1)),
    "windows of 5, as many as fit": ((1, 5, 11, 2, 3), 5, (1, 2)),
    "windows of 1": ((2, 2, 3, 2, 6), 1, (2, 1)),
    "one position": ((2, 1, 1, 3, 4), 1, (1, 1)),
}


def sample(case, device="cpu", dtype=torch.float64):
    shape, window, dilation = case
    random = torch.Generator().manual_seed(0)
    maps = [torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(3)]
    side = 2 * window - 1
    table = torch.randn(shape[3], side, side, generator=random, dtype=torch.float64)
    exact = reference.sum_dtype(dtype)
    tensors = [x.to(device, dtype) for x in maps] + [table.to(device, exact)]
    return [*tensors, window, *dilation, 0.6]


def both_directions(path, *inputs):
    """The output, and the gradients of a fixed weighting of it."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs[:4]]
    given = torch.linspace(-1, 2, leaves[0].numel(), dtype=torch.float64).view_as(leaves[0])
    given = given.to(leaves[0])
    if path is reference:
        out = reference.neighborhood_attention(*inputs)
        return out, *reference.neighborhood_attention_backward(given, *inputs)
    if path is scalar_loops:
        window, down, across, scale = inputs[4:]
        out = path.neighborhood_attention(*leaves, window, (down, across), scale)
    else:
        out = op(*leaves, *inputs[4:])
    return out.detach(), *torch.autograd.grad(out, leaves, given)


@functools.cache
def by_loops(name):
    return both_directions(scalar_loops, *sample(CASES[name]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [op, reference], ids=["op", "meaning"])
@pytest.mark.parametrize("name", CASES)
def test_means_the_loops(name, path, device):
    found = both_directions(path, *sample(CASES[name], device))
    for ours, right in zip(found, by_loops(name), strict=True):
        torch.testing.assert_close(ours.cpu(), right)


# Beyond what loops reach: several registers of columns, and of channels; shapes that end within.
LARGER = {
    "undilated": ((1, 9, 53, 2, 32), 7, (1, 1)),
    "classes narrower than a register": ((2, 15, 41, 2, 17), 5, (3, 7)),
    "classes as wide as registers": ((1, 8, 131, 1, 8), 3, (2, 33)),
    "many channels": ((1, 6, 18, 2, 71), 3, (1, 4)),
    "many rows": ((1, 67, 5, 1, 4), 5, (2, 1)),
    "large windows": ((1, 13, 30, 1, 6), 13, (1, 2)),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", LARGER.values(), ids=LARGER)
def test_as_exact_as_the_meaning(case, dtype, device):
    """At most twice as far from float64 as plain torch is in the same dtype."""
    inputs = sample(case, device, dtype)
    truth = both_directions(reference, *[x.double() for x in inputs[:4]], *inputs[4:])
    plain = both_directions(reference, *inputs)
    for ours, other, right in zip(both_directions(op, *inputs), plain, truth, strict=True):
        assert ours.dtype == other.dtype
        wrong, plainly = ((x.double() - right).abs().max() for x in (ours, other))
        step = torch.finfo(ours.dtype).eps * right.abs().max()
        # Of float64 there is no nearer truth.
        assert wrong <= 2 * plainly + (4 if dtype != torch.float64 else 64) * step


@pytest.mark.parametrize("device", DEVICES)
def test_gradients(device):
    inputs = sample(CASES["windows of 3, dilated"], device)
    leaves = [x.requires_grad_() for x in inputs[:4]]
    assert torch.autograd.gradcheck(lambda *x: op(*x, *inputs[4:]), leaves, fast_mode=True)
    out = neighborhood_attention(*leaves, 3)
    grad = torch.autograd.grad(out.sum(), leaves[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
def test_registration(device):
    inputs = sample(CASES["windows of 5, as many as fit"], device, torch.float32)
    torch.library.opcheck(op, inputs)
    torch.library.opcheck(op, [x.requires_grad_() for x in inputs[:4]] + inputs[4:])
    detached = [x.detach() for x in inputs[:4]]
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in detached]
    for tensors in (detached, turned):
        torch.library.opcheck(backward, (torch.ones_like(tensors[0]), *tensors, *inputs[4:]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_takes_what_a_projection_leaves(dtype, device):
    """q, k and v side by side in memory; a scale, a table and dilations that are left out."""
    qkv = torch.randn(2, 9, 11, 3, 2, 8, generator=torch.Generator().manual_seed(1))
    qkv = qkv.to(device, dtype)
    apart = [x.contiguous() for x in qkv.unbind(3)]
    table = torch.zeros(2, 9, 9, device=device)
    expected = neighborhood_attention(*apart, table, 5, (1, 1), 8**-0.5)
    assert torch.equal(neighborhood_attention(*qkv.unbind(3), None, 5), expected)
    turned = [x.transpose(0, 2).contiguous().transpose(0, 2) for x in apart]
    assert torch.equal(neighborhood_attention(*turned, table.double(), 5), expected)
    with torch.autocast(device, torch.bfloat16):
        assert torch.equal(neighborhood_attention(*apart, table, 5), expected)
    none = [x[:0] for x in apart]
    assert neighborhood_attention(*none, table, 5).shape == (0, 9, 11, 2, 8)
    empty = [x.detach().requires_grad_() for x in (*none, table)]
    neighborhood_attention(*empty, 5).sum().backward()
    assert not empty[3].grad.any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_no_number_spoils_those_who_see_it(dtype, device):
    case = ((1, 6, 23, 2, 5), 3, (1, 2))
    for which, at in ((1, (2, 7)), (2, (0, 0)), (1, (5, 22))):
        inputs = sample(case, device, dtype)
        clean = both_directions(op, *inputs)
        inputs[which][0, at[0], at[1], 1, 3] = torch.nan
        found = both_directions(op, *inputs)
        seers = [
            {i for i in range(side) if place in scalar_loops.nearest(i, side, 3, step)}
            for place, side, step in zip(at, case[0][1:3], case[2], strict=True)
        ]
        for index in (0, 1):  # the output, and the gradient of the query
            spoilt = torch.zeros(case[0], dtype=torch.bool)
            for y in seers[0]:
                for x in seers[1]:
                    spoilt[0, y, x, 1] = True
            rest = ~spoilt.to(device)
            assert torch.equal(found[index][rest], clean[index][rest])
            assert found[index].isnan().any(-1).cpu().equal(spoilt.any(-1))


def test_same_bits_for_any_number_of_threads_and_close_on_any_level():
    program = (
        "import math, sys, torch; sys.path.insert(0, sys.argv[1])\n"
        "from test_neighborhood_attention import both_directions, op, sample\n"
        "torch.set_num_threads(int(sys.argv[2]))\n"
        "for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):\n"
        "    inputs = sample(((2, 37, 29, 2, 19), 5, (1, 3)), 'cpu', dtype)\n"
        "    found = [x.double() for x in both_directions(op, *inputs)]\n"
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
                assert float(a) == pytest.approx(float(b), rel=2e-2, abs=2e-1)


def test_compiles_whole():
    inputs = sample(((2, 8, 9, 2, 4), 3, (2, 1)), dtype=torch.float32)

    def call(*tensors):
        return neighborhood_attention(*tensors, 3, (2, 1)).relu()

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for path in (call, compiled):
        leaves = [x.detach().requires_grad_() for x in inputs[:4]]
        found = torch.autograd.grad(path(*leaves).square().sum(), leaves)
        if path is call:
            expected = found
    for ours, right in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, right)


def test_a_window_too_large_for_the_kernel_is_named(monkeypatch):
    """As on a machine with CUDA kernels; the number is that of their source."""
    module = sys.modules["swin_dense.ops.neighborhood_attention"]
    source = (Path(module.__file__).parent / "csrc/cuda/neighborhood_attention.cu").read_text()
    assert f"kLargest = {module.LARGEST};" in source
    assert module.too_large("cuda", 29) is None  # plain torch takes any
    monkeypatch.setitem(extension._loaded, "cuda", "as if")
    assert module.too_large("cuda", 27) is None
    assert module.too_large("cpu", 29) is None
    text = module.too_large("cuda", 29)
    assert text.startswith("neighborhood_attention: the kernel for CUDA takes windows of up to 27;")
    assert "got 29. Take a smaller one, or SWIN_DENSE_KERNELS=off" in text


MISTAKES = {
    r"\(B, H, W, heads, head_dim\).* shape \(2, 9, 10, 12\)\. Unfl": lambda q, k, v, t: (
        q.flatten(3), k, v, t, 3
    ),
    r"nothing empty but B; .*\(2, 9, 0, 3, 4\)": lambda q, k, v, t: (q[:, :, :0], k, v, t, 3),
    r"key is \(2, 9, 10, 3, 3\), .*one projection": lambda q, k, v, t: (q, k[..., :3], v, t, 3),
    r"value is \(2, 9, 10, 2, 4\)": lambda q, k, v, t: (q, k, v[:, :, :, :2], t, 3),
    r"value is .*torch\.float64\. Take": lambda q, k, v, t: (q, k, v.double(), t, 3),
    r"odd number .* middle; got 6\. Take 5 or 7": lambda q, k, v, t: (q, k, v, t, 6),
    r"odd number .* got 0\. Take 1 or 1": lambda q, k, v, t: (q, k, v, t, 0),
    r"of 3 with dilation 4 spans 12 of the map's 9 rows\. Pad the map to 12": lambda q, k, v, t: (
        q, k, v, t, 3, 4
    ),
    r"of 3 with dilation 5 spans 15 of the map's 10 columns": lambda q, k, v, t: (
        q, k, v, t, 3, (1, 5)
    ),
    r"table has shape \(3, 5, 5\), windows of 5 with 3 heads need \(3, 9, 9\)": lambda *x: (*x, 5),
    r"from 1, or two, .* got 0\. Pass": lambda *x: (*x, 3, 0),
    r"got \(1, 2, 3\)": lambda *x: (*x, 3, (1, 2, 3)),
    r"got 1\.5": lambda *x: (*x, 3, 1.5),
    r"table holds .* torch\.int64\. Conv": lambda q, k, v, t: (q, k, v, t.long(), 3),
    r"query is on cpu, table on meta\. Move": lambda q, k, v, t: (q, k, v, t.to("meta"), 3),
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(text):
    tensors = sample(((2, 9, 10, 3, 4), 3, (1, 1)), dtype=torch.float32)[:4]
    with pytest.raises(ValueError, match=f"^neighborhood_attention: .*{text}"):
        neighborhood_attention(*MISTAKES[text](*tensors))
