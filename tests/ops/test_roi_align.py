import functools
import sys

import pytest
import scalar_loops
import torch
from devices import DEVICES, needs_kernels, unordered

from swin_dense.ops import reference, roi_align, roi_align_with_argmax

pytestmark = pytest.mark.plain

SCALE = 0.4


def sample(device="cpu", dtype=torch.float64, channels=3, seed=0):
    """Two images of 5x7, six boxes: inside, over every border, outside, smaller than a bin."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(2, channels, 5, 7, generator=random, dtype=torch.float64)
    rois = torch.tensor(
        [
            [1, 2.3, 1.9, 14.2, 9.7],
            [0, -6.1, -4.7, 9.3, 8.9],
            [0, 7.7, 5.2, 26.1, 17.3],
            [1, 5.1, 4.4, 6.2, 4.9],
            [1, 40.3, 31.7, 55.9, 49.1],
            [0, -20.9, 3.3, 41.7, 5.7],
        ]
    )
    return features.to(device, dtype), rois.to(device, reference.sum_dtype(dtype))


def plain(features, rois, size, scale=1.0, ratio=0, mode="avg", aligned=True):
    return reference.roi_align(features, rois, *size, scale, ratio, mode == "max", aligned)[0]


def both_directions(path, features, rois, size, *arguments):
    """The output, and the gradient of a fixed weighting of it."""
    features = features.detach().clone().requires_grad_()
    out = path(features, rois, size, *arguments)
    weights = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out).to(out)
    if path is plain:
        rest = (*features.shape, arguments[0], arguments[1], False, arguments[3])
        empty = rois.new_empty(0)
        return out, reference.roi_align_backward(weights, rois, empty, empty, *rest)
    out.backward(weights)
    return out.detach(), features.grad


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [roi_align, plain])
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 3])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_means_the_loops(mode, ratio, aligned, path, device):
    features, rois = sample(device)
    arguments = ((3, 2), SCALE, ratio, mode, aligned)
    expected = scalar_loops.roi_align(features, rois, *arguments)
    torch.testing.assert_close(path(features, rois, *arguments).detach().cpu(), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [roi_align, plain])
@pytest.mark.parametrize("ratio", [0, 3])
def test_backward_means_the_loops(ratio, path, device):
    features, rois = sample(device)
    out, grad = both_directions(path, features, rois, (3, 2), SCALE, ratio, "avg", True)
    weights = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out)
    expected = scalar_loops.roi_align_backward(weights, rois, features.shape, SCALE, ratio)
    torch.testing.assert_close(grad.cpu(), expected)


def assert_on_the_borders(forward, backward, take_max, dtype, device="cpu"):
    """Samples on -1, on the size, and as near as their dtype can tell: in the map, or worth 0."""
    number = functools.partial(torch.tensor, dtype=dtype, device=device)
    low, far = number(-1.0), number(50.0)
    for axis, size in ((1, 5), (0, 7)):
        high = number(float(size))
        at = [low, low.nextafter(-far), low.nextafter(far)]
        at += [high, high.nextafter(far), high.nextafter(-far)]
        # A box of no size has its one sample at its corner, 0.5 before where it begins.
        rois = torch.zeros(6, 5, dtype=dtype, device=device)
        rois[:, 1:] = 2.5
        rois[:, 1 + axis] = rois[:, 3 + axis] = torch.stack(at) + 0.5
        assert torch.equal(rois[:, 1 + axis] - 0.5, torch.stack(at))
        features = torch.full((1, 2, 5, 7), 3.0, dtype=dtype, device=device)
        rest = (1, 1, 1.0, 1, take_max, True)
        out, *argmax = forward(features, rois, *rest)
        expected = number([3.0, 0, 3, 3, 0, 3])
        assert torch.equal(out, expected[:, None, None, None].expand(6, 2, 1, 1))
        grad = number([1.0, 2, 4, 8, 16, 32])[:, None, None, None].expand(6, 2, 1, 1)
        back = backward(grad, rois, *argmax, *features.shape, *rest[2:])
        edges = back[0, 0, :, 2] if axis == 1 else back[0, 0, 2]
        assert back[0, 0].sum() == back[0, 1].sum() == edges.sum() == 45
        torch.testing.assert_close(edges[[0, -1]], number([5.0, 40]))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("take_max", [False, True])
@pytest.mark.parametrize("ops", [torch.ops.swin_dense, reference])
def test_on_the_borders(ops, take_max, dtype, device):
    assert_on_the_borders(ops.roi_align, ops.roi_align_backward, take_max, dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_gradients(mode, aligned, device):
    features, rois = sample(device)
    call = functools.partial(
        roi_align, rois=rois, output_size=(3, 2), spatial_scale=SCALE, mode=mode, aligned=aligned
    )
    for view in (features, features.to(memory_format=torch.channels_last)):
        assert torch.autograd.gradcheck(
            call, view.requires_grad_(), fast_mode=True, nondet_tol=unordered(device)
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("take_max", [False, True])
def test_registration(take_max, device):
    features, rois = sample(device, torch.float32)
    arguments = (3, 2, SCALE, 0, take_max, True)
    op = torch.ops.swin_dense.roi_align
    torch.library.opcheck(op, (features, rois, *arguments))
    torch.library.opcheck(op, (features.requires_grad_(), rois, *arguments))
    out, *argmax = (x.detach() for x in op(features, rois, *arguments))
    torch.library.opcheck(
        torch.ops.swin_dense.roi_align_backward,
        (torch.ones_like(out), rois, *argmax, *features.shape, *arguments[2:]),
    )


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 17])
def test_kernel_is_as_exact_as_the_reference(channels, dtype, device):
    features, rois = sample(device, dtype, channels)
    arguments = ((3, 2), SCALE, 0, "avg", True)
    exact = features.double().cpu(), rois.double().cpu()
    truth = both_directions(roi_align, *exact, *arguments)  # tested above
    ours = both_directions(roi_align, features, rois, *arguments)
    theirs = both_directions(plain, features, rois, *arguments)
    for right, kernel, other in zip(truth, ours, theirs, strict=True):
        assert kernel.dtype == dtype
        wrong, plainly = ((x.double().cpu() - right).abs().max() for x in (kernel, other))
        assert wrong <= 2 * plainly


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_places_of_the_maxima_are_those_of_the_reference(device):
    features, rois = sample(device)
    expected = reference.roi_align(features, rois, 3, 2, SCALE, 0, True, True)
    found = roi_align_with_argmax(features, rois, (3, 2), SCALE, 0, "max")
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [roi_align, plain])
def test_one_pixel(path, device):
    features = torch.tensor([[[[2.5]], [[-1.5]]]], device=device)
    rois = torch.tensor([[0, 0.25, 0.25, 0.75, 0.75]], device=device)
    for mode in ("avg", "max"):
        out = path(features, rois, (1, 1), 1.0, 0, mode)
        assert out.flatten().tolist() == [2.5, -1.5]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_no_boxes_no_channels_no_images(mode, device):
    features, rois = sample(device, torch.float32)
    features.requires_grad_()
    out = roi_align(features, rois[:0], (3, 2), mode=mode)
    assert out.shape == (0, 3, 3, 2)
    out.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert roi_align(features[:, :0], rois, (3, 2), mode=mode).shape == (6, 0, 3, 2)
    assert roi_align(features[:0], rois[:0], (3, 2), mode=mode).shape == (0, 3, 3, 2)
    assert plain(features[:, :0], rois, (3, 2), mode=mode).shape == (6, 0, 3, 2)
    assert plain(features, rois[:0], (3, 2), mode=mode).shape == (0, 3, 3, 2)


@pytest.mark.parametrize("mode", ["avg", "max"])
def test_views(mode):
    features, rois = sample(dtype=torch.float32, channels=19)
    arguments = ((3, 2), SCALE, 0, mode)
    expected = roi_align(features, rois, *arguments)
    wide = torch.zeros(2, 38, 5, 14)
    wide[:, ::2, :, ::2] = features
    turned = features.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0)
    for view in (wide[:, ::2, :, ::2], turned, features.to(memory_format=torch.channels_last)):
        assert not view.is_contiguous()
        assert torch.equal(roi_align(view, rois.T.contiguous().T, *arguments), expected)
    leaf = features.clone().requires_grad_()
    out = roi_align(leaf, rois, *arguments)
    weights = torch.rand(out.shape[::-1], generator=torch.Generator().manual_seed(2))
    (straight,) = torch.autograd.grad(out, leaf, weights.permute(3, 2, 1, 0).contiguous())
    (strided,) = torch.autograd.grad(
        roi_align(leaf, rois, *arguments), leaf, weights.permute(3, 2, 1, 0)
    )
    assert torch.equal(straight, strided)


@needs_kernels  # plain torch's products may be added up in another order
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_threads_do_not_change_a_bit(mode):
    features, rois = sample(dtype=torch.float32, channels=67)
    rois = rois.repeat(5, 1) + torch.linspace(0, 1, 30)[:, None] * torch.tensor([0, 3, 2, 1, 4])
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaf = features.clone().requires_grad_()
            out = roi_align(leaf, rois, 5, SCALE, 0, mode)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaf)))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [roi_align, plain])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_boxes_that_are_none(mode, path, device):
    nan, inf = float("nan"), float("inf")
    features, _ = sample(device, torch.float32)
    rois = torch.tensor(
        [
            [0, 1, 1, 4, nan],
            [1, -inf, 1, 4, 4],
            [1, 3, 2, 3, 2],  # a point
            [1, 6, 4, 3, 2],  # inverted
            [0, -3e7, -2e7, 4e7, 1e7],  # far larger than the map, in bins of far over a sample each
        ],
        device=device,
    )
    out = path(features, rois, (3, 2), mode=mode)
    assert out[:2].isnan().all()
    assert torch.equal(out[2:4], torch.zeros_like(out[2:4]))
    assert out[4].isfinite().all()
    corner = path(features, rois[2:4], (3, 2), 1.0, 2, mode)
    expected = scalar_loops.roi_align(features, rois[2:4], (3, 2), 1.0, 2, mode)
    torch.testing.assert_close(corner.double().cpu(), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_a_box_that_is_none_has_no_gradient(device):
    features, rois = sample(device, torch.float32)
    broken = torch.cat([rois, rois[:1].masked_fill(rois[:1] > 9, float("nan"))])
    for mode in ("avg", "max"):
        grads = []
        for boxes in (rois, broken):
            leaf = features.clone().requires_grad_()
            roi_align(leaf, boxes, (3, 2), SCALE, 0, mode).nan_to_num().sum().backward()
            grads.append(leaf.grad)
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_a_nan_reaches_the_bins_that_read_it(mode, device):
    features, rois = sample(device, torch.float32)
    features[1, 0, 2, 3] = float("nan")
    features[0, 2, 0, 0] = float("inf")
    arguments = ((4, 3), SCALE, 0, mode)
    ours, theirs = roi_align(features, rois, *arguments), plain(features, rois, *arguments)
    if mode == "avg":
        assert torch.equal(ours.isfinite(), theirs.isfinite())
    else:
        assert torch.equal(ours.isnan(), theirs.isnan())
    assert not ours.isfinite().all()
    assert ours[:, 1].isfinite().all()


def test_an_image_that_is_not_there():
    features, rois = sample(dtype=torch.float32)
    for stray in (2.0, -1.0, float("nan")):
        rois[3, 0] = stray
        with pytest.raises(ValueError, match=r"0 to 1; row 3 has .* another batch"):
            roi_align(features, rois, 2)
        # Behind the front, and on devices where nobody looks: no memory is touched.
        for op in (torch.ops.swin_dense.roi_align, reference.roi_align):
            out = op(features, rois, 3, 2, SCALE, 0, False, True)[0]
            assert out[3].isnan().all()
            assert out[[0, 1, 2, 4, 5]].isfinite().all()


def test_autocast_changes_nothing():
    features, rois = sample(dtype=torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        given = features.to(dtype)
        expected = both_directions(roi_align, given, rois, (3, 2), SCALE, 0, "avg", True)
        with torch.autocast("cpu", torch.bfloat16):
            found = both_directions(roi_align, given, rois, (3, 2), SCALE, 0, "avg", True)
            theirs = both_directions(plain, given, rois, (3, 2), SCALE, 0, "avg", True)
        assert all(map(torch.equal, found, expected))
        for other, right in zip(theirs, expected, strict=True):
            assert other.dtype == dtype
            torch.testing.assert_close(other, right)


def test_reference_keeps_its_temporaries_small(monkeypatch):
    features, rois = sample(dtype=torch.float32, channels=11)
    rois = rois.repeat(4, 1)
    expected = [plain(features, rois, (3, 2), SCALE, 0, mode) for mode in ("avg", "max")]
    # The package's function hides its module.
    module = sys.modules["swin_dense.ops.reference.roi_align"]
    monkeypatch.setattr(module, "_CHUNK", 1)  # one box at a time
    for mode, right in zip(("avg", "max"), expected, strict=True):
        torch.testing.assert_close(plain(features, rois, (3, 2), SCALE, 0, mode), right)


def test_compiles_without_a_break():
    features, rois = sample(dtype=torch.float32)
    arguments = (rois, (3, 2), SCALE)
    compiled = torch.compile(roi_align, fullgraph=True, backend="aot_eager")
    leaves = [features.clone().requires_grad_() for _ in range(2)]
    results = [compiled(leaves[0], *arguments), roi_align(leaves[1], *arguments)]
    assert torch.equal(*results)
    for result in results:
        result.square().sum().backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


FEATURES, ROIS = sample(dtype=torch.float32)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"features": FEATURES[0]}, r"map \(B, C, H, W\).* \(3, 5, 7\)\. .*features\[None\]"),
        ({"features": FEATURES[..., :0]}, r"at least one position; got shape \(2, 3, 5, 0\)"),
        ({"features": FEATURES.int()}, r"features holds .*; it has torch\.int32\. Convert"),
        ({"rois": ROIS[:, 1:]}, r"\(K, 5\).* got shape \(6, 4\)\. Put the index in front"),
        ({"rois": ROIS.long()}, r"rois holds .*; it has torch\.int64\. Convert"),
        ({"rois": ROIS.to("meta")}, "one device; features is on cpu, rois on meta. Move"),
        ({"output_size": (0, 3)}, r"at least \(1, 1\), rows and columns; got \(0, 3\)\. 7"),
        ({"spatial_scale": 0.0}, r"above 0, 1 / stride of the map; got 0\.0\. Pass"),
        ({"sampling_ratio": -1}, "counts samples; got -1. Pass 0"),
        ({"mode": "min"}, "'avg' or 'max'; got 'min'. 'avg' is usual"),
    ],
)
def test_errors_say_what_to_do(changes, text):
    with pytest.raises(ValueError, match=text):
        roi_align(**{"features": FEATURES, "rois": ROIS, "output_size": (3, 2), **changes})
