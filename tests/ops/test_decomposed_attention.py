"""Attention with terms for rows and columns: against scalar loops, and what it promises."""

import math

import pytest
import torch
from devices import DEVICES, needs_kernels

from swin_dense.ops import decomposed_attention, reference
from swin_dense.ops.decomposed_attention import by_more_channels

pytestmark = pytest.mark.plain

op = torch.ops.swin_dense.decomposed_attention
backward = torch.ops.swin_dense.decomposed_attention_backward

# B, N, L, H, W, D
SMALL = {"some": (2, 3, 5, 2, 4, 7), "one place": (2, 1, 1, 1, 1, 3)}
# Several blocks of queries; rows, columns and channels that end within a register or a panel.
LARGE = {
    "wide": (1, 2, 19, 3, 37, 70),
    "high": (2, 1, 67, 161, 33, 5),
    "whole registers": (1, 1, 48, 5, 64, 64),
}


def sample(case, device="cpu", dtype=torch.float64):
    images, heads, queries, height, width, channels = case
    random = torch.Generator().manual_seed(0)
    sizes = [(queries, channels), *[(height * width, channels)] * 2]
    sizes += [(queries, height), (queries, width)]
    shapes = [(images, heads, *size) for size in sizes]
    maps = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    return [x.to(device, dtype) for x in maps]


def both_directions(path, inputs, scale=0.6):
    """The output, and the gradients of a fixed weighting of it."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = path(*leaves, scale)
    given = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out).to(out)
    return out.detach(), *torch.autograd.grad(out, leaves, given)


def loops(query, key, value, rows, columns, scale):
    """One query at a time."""
    height, width = rows.shape[-1], columns.shape[-1]
    found = []
    for b, n, i in ((*at, i) for at in heads(query) for i in range(query.shape[2])):
        shares = []
        for y in range(height):
            for x in range(width):
                product = (query[b, n, i] * key[b, n, y * width + x]).sum() * scale
                shares.append((product + rows[b, n, i, y] + columns[b, n, i, x]).exp())
        mixed = sum(share * v for share, v in zip(shares, value[b, n], strict=True))
        found.append(mixed / sum(shares))
    return torch.stack(found).view(query.shape)


def heads(query):
    return [(b, n) for b in range(query.shape[0]) for n in range(query.shape[1])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_means_the_loops(case, device):
    expected = both_directions(loops, sample(case))
    for path in (decomposed_attention, op, by_more_channels):
        for dtype, near in ((torch.float64, 1e-7), (torch.float32, 1e-5)):
            found = both_directions(path, sample(case, device, dtype))
            for ours, right in zip(found, expected, strict=True):
                torch.testing.assert_close(ours.cpu().double(), right, atol=near, rtol=near)


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
def test_as_exact_as_the_meaning(case, dtype, device):
    """At most twice as far from float64 as plain torch is in the same dtype."""
    inputs = sample(case, device, dtype)
    truth = both_directions(reference.decomposed_attention, [x.double() for x in inputs])
    plain = both_directions(reference.decomposed_attention, inputs)
    found = both_directions(decomposed_attention, inputs)
    for ours, other, right in zip(found, plain, truth, strict=True):
        assert ours.dtype == other.dtype == dtype
        wrong, plainly = ((x.double() - right).abs().max() for x in (ours, other))
        assert wrong <= 2 * plainly + 4 * torch.finfo(dtype).eps * right.abs().max()


@needs_kernels
def test_same_bits_for_any_number_of_threads():
    inputs = sample(LARGE["high"], dtype=torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = both_directions(decomposed_attention, inputs)
        torch.set_num_threads(3)
        three = both_directions(decomposed_attention, inputs)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_gradients(device):
    leaves = [x.requires_grad_() for x in sample(SMALL["some"], device)]
    assert torch.autograd.gradcheck(lambda *x: op(*x, 0.4), leaves, fast_mode=True)
    single = [x.detach().float().requires_grad_() for x in leaves]
    grad = torch.autograd.grad(op(*single, 0.4).sum(), single[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("device", DEVICES)
def test_registration(device):
    inputs = sample(SMALL["some"], device, torch.float32)
    torch.library.opcheck(op, [*inputs, 0.4])
    torch.library.opcheck(op, [*(x.clone().requires_grad_() for x in inputs), 0.4])
    turned = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs]
    for tensors in (inputs, turned):
        torch.library.opcheck(backward, (torch.ones_like(inputs[0]), *tensors, 0.4))


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_takes_what_a_projection_leaves(dtype, device):
    """q, k and v side by side in memory, autocast, no images at all."""
    query, key, value, rows, columns = sample((2, 3, 8, 2, 4, 6), device, dtype)
    together = torch.stack([query, key, value], 3).permute(3, 0, 1, 2, 4)
    expected = decomposed_attention(query, key, value, rows, columns, 0.4)
    assert torch.equal(decomposed_attention(*together, rows, columns, 0.4), expected)
    with torch.autocast(device, torch.bfloat16):
        found = decomposed_attention(*together, rows, columns, 0.4)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
    none = [x[:0].requires_grad_() for x in (query, key, value, rows, columns)]
    out = decomposed_attention(*none, 0.4)
    out.sum().backward()
    assert out.shape == (0, 3, 8, 6)
    assert none[4].grad.shape == (0, 3, 8, 4)


def test_a_query_that_is_no_number_spoils_its_own_row():
    inputs = sample(LARGE["wide"], dtype=torch.float32)
    clean = decomposed_attention(*inputs, 0.4)
    inputs[0][0, 1, 7, 3] = math.nan
    found = decomposed_attention(*inputs, 0.4)
    assert found[0, 1, 7].isnan().all()
    found[0, 1, 7] = clean[0, 1, 7]
    assert torch.equal(found, clean)


def test_compiles_whole():
    inputs = sample((2, 3, 8, 2, 4, 6), dtype=torch.float32)

    def call(*tensors):
        return decomposed_attention(*tensors, 0.4).relu()

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for ours, right in zip(
        both_directions(lambda *x: compiled(*x[:5]), inputs),
        both_directions(lambda *x: call(*x[:5]), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, right)


MISTAKES = {
    r"key has four axes.*shape \(2, 3, 56\)": lambda q, k, v, r, c: (q, k.flatten(2), v, r, c),
    r"none empty but the first.*\(2, 3, 0, 7\)": lambda q, k, v, r, c: (q[:, :, :0], k, v, r, c),
    r"heads of query, \(2, 3\); rows has \(2, 2\)": lambda q, k, v, r, c: (q, k, v, r[:, :2], c),
    r"2 x 4, and the channels of query, 7; key has \(8, 7\), value \(8, 6\)": (
        lambda q, k, v, r, c: (q, k, v[..., :6], r, c)
    ),
    r"3 x 4, .*key has \(8, 7\)": lambda q, k, v, r, c: (q, k, v, r.repeat(1, 1, 1, 2)[..., :3], c),
    r"columns has terms for each of the 5 queries; it has 4": (
        lambda q, k, v, r, c: (q, k, v, r, c[:, :, :4])
    ),
    r"one dtype; got torch\.float32, torch\.float64": (
        lambda q, k, v, r, c: (q, k.double(), v, r, c)
    ),
    r"rows holds .* torch\.int64\. Conv": lambda q, k, v, r, c: (q, k, v, r.long(), c),
    r"query is on cpu, columns on meta": lambda q, k, v, r, c: (q, k, v, r, c.to("meta")),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(text):
    tensors = sample(SMALL["some"], dtype=torch.float32)
    with pytest.raises(ValueError, match=f"^decomposed_attention: .*{text}"):
        decomposed_attention(*MISTAKES[text](*tensors), 0.4)
