"""Deformable convolution: against scalar loops, against convolution, and what it promises."""

import functools
import sys

import pytest
import scalar_loops
import torch
import torch.nn.functional as F
from devices import DEVICES, needs_kernels, unordered

from swin_dense.ops import deform_conv2d, extension, reference

pytestmark = pytest.mark.plain

front = sys.modules["swin_dense.ops.deform_conv2d"]

# (B, C, H, W, Co, kernel, groups, deformable groups, stride, padding, dilation)
CASES = {
    "plain": (2, 4, 5, 7, 3, (3, 3), 1, 1, (1, 1), (1, 1), (1, 1)),
    "all different": (2, 12, 9, 8, 10, (3, 2), 2, 3, (2, 3), (2, 1), (1, 2)),
    "one tap, strided": (3, 2, 6, 5, 4, (1, 1), 1, 2, (2, 2), (0, 0), (1, 1)),
    "depthwise": (1, 6, 4, 5, 6, (2, 3), 6, 1, (1, 1), (0, 1), (2, 1)),
    "one position": (2, 3, 1, 1, 5, (3, 3), 1, 1, (1, 1), (1, 1), (1, 1)),
    "wide": (2, 40, 6, 11, 8, (3, 3), 1, 2, (1, 1), (1, 1), (1, 1)),
    "very wide": (1, 150, 5, 4, 6, (3, 3), 2, 2, (1, 1), (1, 1), (1, 1)),
}


@pytest.fixture(params=["in one piece", "piece by piece"])
def pieces(request, monkeypatch):
    """Both ways: everything in one product, and a few positions at a time, across images."""
    if request.param == "piece by piece":
        monkeypatch.setattr(front, "_PIECE", {"cpu": 300, "cuda": 300})


def sample(case, device="cpu", dtype=torch.float64):
    """input, offset, weight, bias, mask; offsets small, and some far outside of the map."""
    batch, channels, height, width, outputs, kernel, groups, parts, *geometry = CASES[case]
    size = F.conv2d(
        torch.zeros(1, 1, height, width), torch.zeros(1, 1, *kernel), None, *geometry
    ).shape[2:]
    taps = parts * kernel[0] * kernel[1]
    random = torch.Generator().manual_seed(0)
    shapes = [
        (batch, channels, height, width),
        (batch, 2 * taps, *size),
        (outputs, channels // groups, *kernel),
        (outputs,),
        (batch, taps, *size),
    ]
    tensors = [torch.randn(s, generator=random, dtype=torch.float64) for s in shapes]
    tensors[1] *= 1.5
    tensors[1].view(-1)[:: 2 * taps + 1] = -40
    exact = reference.sum_dtype(dtype)
    dtypes = (dtype, exact, dtype, dtype, exact)
    return [x.to(device, d) for x, d in zip(tensors, dtypes, strict=True)]


def call(case, input, offset, weight, bias=None, mask=None):
    return deform_conv2d(input, offset, weight, bias, *CASES[case][8:], mask=mask)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivative_on_a_position_is_the_one_to_the_right(dtype, device):
    input = torch.tensor([1.0, 4, 9, 25, 49, 121, 7]).to(device, dtype).view(1, 1, 1, 7)
    offset = torch.zeros(1, 2, 1, 7, device=device, dtype=dtype, requires_grad=True)
    deform_conv2d(input, offset, torch.ones(1, 1, 1, 1).to(input)).sum().backward()
    assert offset.grad[0, 0, 0].tolist() == [-1, -4, -9, -25, -49, -121, -7]  # 0 lies below
    assert offset.grad[0, 1, 0].tolist() == [3, 5, 16, 24, 72, -114, -7]


def both_directions(case, tensors):
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = call(case, *leaves)
    given = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape).to(out)
    return out.detach(), *torch.autograd.grad(out, leaves, given)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("case", list(CASES)[:5])
def test_means_the_loops(case, version, device):
    input, offset, weight, bias, mask = sample(case, device)
    if version == 1:
        bias = mask = None
    cpu = [None if x is None else x.cpu() for x in (input, offset, weight, bias)]
    geometry = CASES[case][8:]
    expected = scalar_loops.deform_conv2d(*cpu, *geometry, None if mask is None else mask.cpu())
    found = call(case, input, offset, weight, bias, mask)
    torch.testing.assert_close(found.cpu(), expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_without_offsets_it_is_convolution(case, device):
    input, offset, weight, bias, _ = sample(case, device)
    found = call(case, input, offset * 0, weight, bias)
    groups = CASES[case][6]
    torch.testing.assert_close(found, F.conv2d(input, weight, bias, *CASES[case][8:], groups))


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_gradients(case, device):
    tensors = [x.requires_grad_() for x in sample(case, device)]
    check = functools.partial(
        torch.autograd.gradcheck,
        functools.partial(call, case),
        fast_mode=True,
        nondet_tol=unordered(device),
    )
    assert check(tensors)
    assert check(tensors[:3])


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_some(device):
    """Frozen weights, or frozen maps and offsets: the others' gradients are as ever."""
    tensors = sample("all different", device)
    whole = both_directions("all different", tensors)[1:]
    for wanted in ([0], [1], [2], [3], [4], [1, 2]):
        leaves = [x.detach().clone() for x in tensors]
        for number in wanted:
            leaves[number].requires_grad_()
        out = call("all different", *leaves)
        given = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view(out.shape).to(out)
        found = torch.autograd.grad(out, [leaves[n] for n in wanted], given)
        for number, grad in zip(wanted, found, strict=True):
            torch.testing.assert_close(grad, whole[number])


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", ["all different", "wide", "very wide"])
def test_kernel_is_as_exact_as_the_reference(case, dtype, device, monkeypatch):
    tensors = sample(case, device, dtype)
    truth = both_directions(case, [x.double() for x in tensors])  # tested above
    ours = both_directions(case, tensors)
    for name in ("deform_columns", "deform_columns_backward"):
        monkeypatch.setattr(front, f"_{name}", getattr(reference, name))
    theirs = both_directions(case, tensors)
    for right, kernel, plain in zip(truth, ours, theirs, strict=True):
        wrong, plainly = ((x.double() - right).abs().max() for x in (kernel, plain))
        assert wrong <= 2 * plainly + 1e-6 * right.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", ["plain", "all different", "depthwise"])
def test_registration(case, device):
    input, offset, weight, bias, mask = sample(case, device, torch.float32)
    kernel = weight.shape[2] * weight.shape[3]
    offset, mask = offset.unflatten(1, (-1, kernel, 2)), mask.unflatten(1, (-1, kernel))
    geometry = CASES[case][8:]
    op = torch.ops.swin_dense.deform_conv2d
    out = op(input, offset, mask, weight, bias, *geometry)
    grad = torch.ones_like(out)
    for factor, term in ((mask, bias), (None, None)):
        torch.library.opcheck(op, (input, offset, factor, weight, term, *geometry))
        leaves = [x.clone().requires_grad_() for x in (input, offset, weight)]
        torch.library.opcheck(op, (leaves[0], leaves[1], factor, leaves[2], term, *geometry))
        torch.library.opcheck(
            torch.ops.swin_dense.deform_conv2d_backward,
            (grad, input, offset, factor, weight, *geometry, True, True),
        )


@pytest.mark.parametrize("device", DEVICES)
def test_no_image(device):
    tensors = sample("plain", device, torch.float32)
    none = [tensors[0][:0], tensors[1][:0], tensors[2], tensors[3], tensors[4][:0]]
    out, *grads = both_directions("plain", none)
    assert out.shape == (0, 3, 5, 7)
    assert [x.shape for x in grads] == [x.shape for x in none]
    assert not grads[2].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_an_offset_that_is_no_number_spoils_its_output_and_no_other(dtype, device):
    tensors = sample("wide", device, dtype)
    clean = call("wide", *tensors)
    tensors[1][1, 7, 2, 3] = torch.nan
    out = call("wide", *tensors)
    expected = clean.clone()
    expected[1, :, 2, 3] = torch.nan
    torch.testing.assert_close(out, expected, equal_nan=True)
    tensors[1][1, 7, 2, 3] = torch.inf
    assert call("wide", *tensors).isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_views_and_autocast(device):
    tensors = sample("wide", device, torch.float32)
    out = call("wide", *tensors)
    last = [x.to(memory_format=torch.channels_last) if x.dim() == 4 else x for x in tensors]
    assert torch.equal(call("wide", *last[:2], tensors[2], *last[3:]), out)
    # A BLAS may add up the products of another layout of the weights in another order.
    torch.testing.assert_close(call("wide", *last), out, rtol=1e-5, atol=1e-4)
    with torch.autocast(device, torch.bfloat16):
        half = call("wide", *tensors)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, rtol=0.03, atol=0.3)


def test_gradients_of_columns_have_the_same_bits_for_any_number_of_threads():
    tensors = sample("wide", dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        given = torch.ones(54, 360).view(-1, 9, 40)[:66]
        offset, mask = tensors[1].unflatten(1, (2, 9, 2)), tensors[4].unflatten(1, (2, 9))
        images = tensors[0].permute(0, 2, 3, 1).contiguous()
        by = [torch.zeros_like(x) for x in (images, offset, mask)]
        torch.ops.swin_dense.deform_columns_backward(
            given, images, offset, mask, 3, (1, 1), (1, 1), (1, 1), 5, *by
        )
        found.append(by)
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("case", ["plain", "depthwise"])
def test_compiles_whole_both_ways(case):
    """By inductor, which relies on the strides that the registration promises."""
    tensors = sample(case, dtype=torch.float32)
    compiled = torch.compile(functools.partial(call, case), fullgraph=True, dynamic=True)
    found = []
    for path in (functools.partial(call, case), compiled):
        leaves = [x.clone().requires_grad_() for x in tensors]
        out = path(*leaves)
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for plain, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


MISTAKES = {
    r"input is \(B, C, H, W\) .* shape \(4, 5, 7\)": lambda x, o, w, b, m: (x[0], o, w, b, m),
    r"weight is \(Co, C / groups, .* shape \(3, 4, 9\)\. Give it four": lambda x, o, w, b, m: (
        x, o, w.flatten(2), b, m
    ),
    r"takes 4 channels .* the 3 channels of input": lambda x, o, w, b, m: (x[:, :3], o, w, b, m),
    r"input of \(1, 7\) is smaller than the kernel": lambda x, o, w, b, m: (
        x[:, :, :1], o, torch.ones(3, 4, 5, 3), b, m
    ),
    r"each of the 9 positions .* \(2, 18, 5, 7\) .* \(2, 17, 5, 7\)\. Give .* 18 outputs": (
        lambda x, o, w, b, m: (x, o[:, 1:], w, b, m)
    ),
    r"for 3 deformable groups, into which 4 channels .*\. Give .* 18": lambda x, o, w, b, m: (
        x, o.repeat(1, 3, 1, 1), w, b, m
    ),
    r"offset has shape \(2, 18, 5, 6\); .* it is \(2, 18, 5, 7\)": lambda x, o, w, b, m: (
        x, o[..., 1:], w, b, m
    ),
    r"mask has shape \(2, 8, 5, 7\); .* \(2, 9, 5, 7\)": lambda x, o, w, b, m: (
        x, o, w, b, m[:, 1:]
    ),
    r"bias has shape \(2,\); .* \(3,\)": lambda x, o, w, b, m: (x, o, w, b[1:], m),
    r"input holds .*; it has torch\.bool\. Convert": lambda x, o, w, b, m: (x.bool(), o, w, b, m),
    r"offset holds .*; it has torch\.int32\. Convert": lambda x, o, w, b, m: (x, o.int(), w, b, m),
    r"weight holds .*; it has torch\.int8\. Convert": lambda x, o, w, b, m: (x, o, w.char(), b, m),
    r"bias holds .*; it has torch\.complex64\. Con": lambda x, o, w, b, m: (x, o, w, b.cfloat(), m),
    r"mask holds .*; it has torch\.int64\. Convert": lambda x, o, w, b, m: (x, o, w, b, m.long()),
    r"input is on cpu, offset on meta\. Move": lambda x, o, w, b, m: (x, o.to("meta"), w, b, m),
    r"input is on cpu, weight on meta\. Move": lambda x, o, w, b, m: (x, o, w.to("meta"), b, m),
    r"input is on cpu, bias on meta\. Move": lambda x, o, w, b, m: (x, o, w, b.to("meta"), m),
    r"input is on cpu, mask on meta\. Move": lambda x, o, w, b, m: (x, o, w, b, m.to("meta")),
}  # fmt: skip


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_named(text):
    wrong = MISTAKES[text](*sample("plain", dtype=torch.float32))
    with pytest.raises(ValueError, match=f"^deform_conv2d: .*{text}"):
        call("plain", *wrong)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("stride", 0, r"at least 1.*got \(0, 0\)\. Leave it out for 1"),
        ("padding", (-1, 0), r"at least 0.*got \(-1, 0\)\. Leave it out for 0"),
        ("dilation", (1, 1, 1), r"at least 1.*got \(1, 1, 1\)\. Leave"),
        ("stride", 1.0, r"a whole number.*got 1\.0\. Leave"),
        ("padding", (1.5, 1), r"a whole number.*got \(1\.5, 1\)\. Leave"),
        ("dilation", None, r"a whole number.*got None\. Leave"),
    ],
)
def test_wrong_geometry_is_named(name, value, text):
    input, offset, weight, _, _ = sample("plain", dtype=torch.float32)
    with pytest.raises(ValueError, match=f"^deform_conv2d: {name} is {text}"):
        deform_conv2d(input, offset, weight, **{name: value})


def test_the_kernels_are_in_use():
    """What is built is called: its absence would otherwise show in the speed only."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key("swin_dense::deform_columns", "CPU")
    assert has == (extension.MISSING is None)
