import pytest
import scalar_loops
import torch
from devices import DEVICES, needs_kernels
from torch.utils._python_dispatch import TorchDispatchMode

from swin_dense.ops import batched_nms, nms, reference

pytestmark = pytest.mark.plain


def sample(count, device="cpu", dtype=torch.float32, seed=0):
    """Boxes in crowds, so that many overlap; no score twice."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(count // 5 + 1, 2, generator=random).repeat(5, 1)[:count] * 90
    centres = centres + torch.randn(count, 2, generator=random) * 3
    sides = torch.rand(count, 2, generator=random) * 20 + 5
    boxes = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    scores = torch.randperm(count, generator=random) / max(count, 1)
    return boxes.to(device, dtype), scores.to(device, dtype)


def by_reference(boxes, scores, labels, threshold):
    return reference.nms(boxes, scores, threshold, 0, labels)


class Counter(TorchDispatchMode):
    """Notes the ops that are called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [nms, reference.nms])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_means_the_loops(threshold, offset, path, device):
    boxes, scores = sample(67, device, torch.float64)
    assert path(boxes, scores, threshold, offset).tolist() == scalar_loops.nms(
        boxes, scores, threshold, offset
    )


@pytest.mark.parametrize("device", DEVICES)
def test_registration(device):
    boxes, scores = sample(13, device)
    torch.library.opcheck(torch.ops.swin_dense.nms, (boxes, scores, 0.5, 0))
    labels = torch.arange(13, device=device) % 3
    torch.library.opcheck(torch.ops.swin_dense.nms, (boxes, scores, 0.5, 0, labels))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 255, 256, 257, 1999])
def test_kernel_is_the_reference(count, dtype):
    boxes, scores = sample(count, dtype=dtype)
    for threshold in (0.0, 0.1, 0.5, 0.7):
        assert torch.equal(
            nms(boxes, scores, threshold), reference.nms(boxes, scores, threshold, 0)
        )


@pytest.mark.parametrize("path", [nms, reference.nms])
def test_an_overlap_equal_to_the_threshold_is_kept(path):
    # 0.6 is 0.60000002 in float32: both sides must be rounded alike. Overlap 6 of 10.
    boxes = torch.tensor([[0.0, 0, 10, 1], [0, 0, 6, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert path(boxes, scores, 0.6, 0).tolist() == [0, 1]
    assert path(boxes, scores, 0.59, 0).tolist() == [0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [nms, reference.nms])
def test_equal_scores_keep_their_order(path, device):
    boxes, scores = sample(41, device)
    scores = (scores * 4).round()
    assert path(boxes, scores, 0.4, 0).tolist() == scalar_loops.nms(boxes, scores, 0.4, 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [nms, reference.nms])
def test_what_is_no_number_or_no_box(path, device):
    nan, inf = float("nan"), float("inf")
    boxes = [
        [0, 0, 10, 10],
        [1, 0, 10, 10],  # dropped by the first
        [nan, 0, 10, 10],
        [5, 5, 5, 5],  # a point inside the first
        [10, 10, 0, 0],  # the first, inverted
        [-inf, 0, inf, 10],
        [30, 30, 40, 40],  # a NaN score: last, so that the next one drops it
        [30, 30, 40, 41],
    ]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, nan, 0.3]
    boxes, scores = (torch.tensor(x, device=device) for x in (boxes, scores))
    assert path(boxes, scores, 0.5, 0).tolist() == [0, 2, 3, 4, 5, 7]


@pytest.mark.parametrize("device", DEVICES)
def test_no_boxes(device):
    boxes, scores = torch.zeros(0, 4, device=device), torch.zeros(0, device=device)
    labels = torch.zeros(0, dtype=torch.long, device=device)
    for kept in (nms(boxes, scores, 0.5), batched_nms(boxes, scores, labels, 0.5)):
        assert kept.shape == (0,)
        assert kept.dtype == torch.long
        assert kept.device.type == device


def test_views_and_threads():
    boxes, scores = sample(3001)
    expected = nms(boxes, scores, 0.6)
    wide = torch.zeros(4, 3001 * 2)
    wide[:, ::2] = boxes.T
    assert torch.equal(nms(wide.T[::2], scores.repeat_interleave(3)[::3], 0.6), expected)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(nms(boxes, scores, 0.6), expected)
    finally:
        torch.set_num_threads(before)


def test_mixed_dtypes_gradients_and_autocast_change_nothing():
    boxes, scores = sample(97)
    expected = nms(boxes, scores, 0.5)
    assert torch.equal(nms(boxes.double().requires_grad_(), scores, 0.5), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nms(boxes, scores.requires_grad_(), 0.5), expected)
        assert torch.equal(reference.nms(boxes, scores, 0.5, 0), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("path", [batched_nms, by_reference])
def test_batched_is_one_call_per_label(path, device):
    boxes, scores = sample(211, device)
    boxes -= 50  # a trick with shifted boxes would mix the labels up here
    scores = (scores * 8).round()  # with equal ones in every label
    boxes[17, 2], scores[[5, 6, 40]] = torch.nan, torch.nan
    labels = torch.randint(-2, 5, (211,), generator=torch.Generator().manual_seed(1)).to(device)
    kept = path(boxes, scores, labels, 0.3)
    expected = []
    for label in range(-2, 5):
        here = (labels == label).nonzero()[:, 0]
        expected += [int(here[i]) for i in scalar_loops.nms(boxes[here], scores[here], 0.3, 0)]
    rank = scores.nan_to_num(-torch.inf).tolist()
    assert kept.tolist() == sorted(expected, key=lambda i: (-rank[i], i))
    assert len(kept) > len(nms(boxes, scores, 0.3))


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 33, 513, 1999])
def test_kernel_is_the_reference_with_labels(count, dtype):
    """Labels of one box, of whole blocks, of more than one."""
    boxes, scores = sample(count, dtype=dtype)
    random = torch.Generator().manual_seed(2)
    labels = torch.rand(count, generator=random).mul(4).exp().long() * 7 - 50
    labels[: count // 2] = 3
    strided = labels.repeat_interleave(2)[::2]
    for threshold in (0.0, 0.5):
        kept = by_reference(boxes, scores, labels, threshold)
        assert torch.equal(batched_nms(boxes, scores, strided, threshold), kept)
        assert torch.equal(batched_nms(boxes, scores, labels.short(), threshold), kept)


def test_batched_is_one_call(monkeypatch):
    boxes, scores = sample(7)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda _: pytest.fail("waits for a device"))
    with Counter() as counter:
        batched_nms(boxes, scores, torch.arange(7), 0.5)
    assert counter.calls.count("swin_dense.nms.default") == 1
    assert not {"aten._local_scalar_dense.default", "aten.nonzero.default"} & set(counter.calls)


BOXES, SCORES = sample(6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((BOXES[:, :3], SCORES, 0.5), r"boxes are \(N, 4\).* got boxes \(6, 3\)"),
        ((BOXES, SCORES[:5], 0.5), r"scores \(5,\)\. Flatten the images"),
        ((BOXES.long(), SCORES, 0.5), r"boxes holds .*; it has torch\.int64\. .*\.float\(\)"),
        ((BOXES, SCORES.bool(), 0.5), r"scores holds .*; it has torch\.bool\. .*\.float\(\)"),
        ((BOXES, SCORES.to("meta"), 0.5), "one device; boxes is on cpu, scores on meta. Move"),
        ((BOXES, SCORES, 0.5, 2), "offset is 0, or 1 .* got 2. Leave it out"),
        ((BOXES, SCORES, 1.5), r"between 0 and 1; got 1\.5\. 0\.5 to 0\.7"),
        ((BOXES, SCORES, float("nan")), "between 0 and 1; got nan"),
    ],
)
def test_errors_say_what_to_do(arguments, text):
    with pytest.raises(ValueError, match=text):
        nms(*arguments)


def test_labels_are_whole_numbers():
    with pytest.raises(
        ValueError, match=r"one integer label per box; got .*float32.* labels\.long"
    ):
        batched_nms(BOXES, SCORES, SCORES, 0.5)
