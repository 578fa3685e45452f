import pytest
import scalar_loops
import torch
from devices import needs_kernels
from test_nms import sample

from swin_dense.ops import reference, soft_nms

pytestmark = pytest.mark.plain

METHODS = ["naive", "linear", "gaussian"]


def plain(boxes, scores, threshold, sigma, min_score, method, offset):
    number = METHODS.index(method)
    return reference.soft_nms(boxes, scores, threshold, sigma, min_score, number, offset)


@pytest.mark.parametrize("path", [soft_nms, plain])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("threshold", "min_score"), [(0.0, 0.05), (0.3, 1e-3), (0.3, 0.4)])
def test_means_the_loops(threshold, min_score, method, offset, path):
    boxes, scores = sample(43, dtype=torch.float64)
    arguments = (boxes, scores, threshold, 0.5, min_score, method, offset)
    dets, index = path(*arguments)
    taken, lowered = scalar_loops.soft_nms(*arguments)
    assert index.tolist() == taken
    torch.testing.assert_close(dets[:, 4], torch.tensor(lowered, dtype=torch.float64))
    assert torch.equal(dets[:, :4], boxes[index])


def test_registration():
    boxes, scores = sample(13)
    torch.library.opcheck(torch.ops.swin_dense.soft_nms, (boxes, scores, 0.3, 0.5, 1e-3, 1, 0))


@needs_kernels
@pytest.mark.parametrize("method", METHODS)
def test_kernel_is_as_exact_as_the_reference(method):
    boxes, scores = sample(211)
    truth = soft_nms(boxes.double(), scores.double(), method=method)
    ours, theirs = (
        soft_nms(boxes, scores, method=method),
        plain(boxes, scores, 0.3, 0.5, 1e-3, method, 0),
    )
    assert torch.equal(ours[1], truth[1])
    assert torch.equal(theirs[1], truth[1])
    wrong, plainly = ((x[0][:, 4].double() - truth[0][:, 4]).abs().max() for x in (ours, theirs))
    assert wrong <= 2 * plainly


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_dtypes_are_computed_in_float32(dtype):
    boxes, scores = sample(59, dtype=dtype)
    dets, index = soft_nms(boxes, scores)
    exact, expected = soft_nms(boxes.float(), scores.float())
    assert dets.dtype == dtype
    assert torch.equal(index, expected)
    assert torch.equal(dets, exact.to(dtype))


@pytest.mark.parametrize("path", [soft_nms, plain])
def test_what_is_no_number_or_no_box(path):
    nan = float("nan")
    boxes = torch.tensor(
        [
            [0, 0, 10, 10],
            [nan, 0, 10, 10],
            [5, 5, 5, 5],
            [10, 10, 0, 0],
            [0, 0, 10, 10],
            [0, 0, 9, 9],
        ]
    )
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, nan, 0.5])
    for method in METHODS:
        dets, index = path(boxes, scores, 0.3, 0.5, 0.1, method, 0)
        assert index.tolist()[:4] == [0, 1, 2, 3]
        assert torch.equal(dets[:4, 4], scores[:4])
        assert 4 not in index


@pytest.mark.parametrize("path", [soft_nms, plain])
def test_equal_scores_are_taken_in_order(path):
    boxes, scores = sample(29, dtype=torch.float64)
    scores = (scores * 3).round() / 3
    _, index = path(boxes, scores, 0.3, 0.5, 0.01, "linear", 0)
    taken, _ = scalar_loops.soft_nms(boxes, scores, 0.3, 0.5, 0.01, "linear", 0)
    assert index.tolist() == taken


def test_no_boxes_views_and_gradients():
    dets, index = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5)
    assert index.shape == (0,)
    boxes, scores = sample(37)
    expected = soft_nms(boxes, scores)
    again = soft_nms(boxes.T.contiguous().T.requires_grad_(), scores.repeat_interleave(2)[::2])
    assert all(map(torch.equal, again, expected))
    assert not again[0].requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, soft_nms(boxes, scores), expected))


BOXES, SCORES = sample(6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"boxes": BOXES[0]}, r"boxes are \(N, 4\)"),
        ({"scores": SCORES.int()}, r"^soft_nms: scores holds .*; it has torch\.int32\. Convert"),
        ({"method": "hard"}, "one of 'naive', 'linear', 'gaussian'; got 'hard'. 'linear' is usual"),
        ({"sigma": 0.0}, r"sigma is above 0; got 0\.0\. 0\.5 is usual"),
        ({"iou_threshold": -1}, "between 0 and 1; got -1"),
    ],
)
def test_errors_say_what_to_do(changes, text):
    with pytest.raises(ValueError, match=text):
        soft_nms(**{"boxes": BOXES, "scores": SCORES, **changes})
