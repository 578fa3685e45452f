"""The best rows and those that nothing covers, against loops over numbers."""

import pytest
import torch

from swin_dense.export.graphs.fixed_rows import NOTHING, best, uncovered


def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def greedy(boxes, scores, labels, threshold):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        covered = any(labels[i] == labels[j] and iou(boxes[i], boxes[j]) > threshold for j in kept)
        if scores[i] >= 0 and not covered:
            kept.append(i)
    return kept


def test_rows_that_no_better_one_covers():
    random = torch.Generator().manual_seed(3)
    corners = torch.rand(2, 31, 2, generator=random) * 20
    boxes = torch.cat([corners, corners + 3 + 9 * torch.rand(2, 31, 2, generator=random)], 2)
    scores = torch.rand(2, 31, generator=random)
    scores[:, ::5] = NOTHING
    labels = torch.randint(3, (2, 31), generator=random)
    found, sure, label = uncovered(boxes, scores, labels, 3, 0.3, 29)
    for image in range(2):
        want = greedy(boxes[image].tolist(), scores[image].tolist(), labels[image].tolist(), 0.3)
        assert 5 < len(want) < 25
        assert (sure[image] >= 0).sum() == len(want)
        torch.testing.assert_close(found[image, : len(want)], boxes[image, want])
        torch.testing.assert_close(sure[image, : len(want)], scores[image, want])
        assert label[image, : len(want)].equal(labels[image, want])


@pytest.mark.parametrize("count", [3, 9])
def test_the_best_of_few(count):
    scores = torch.tensor([[0.2, 0.7, NOTHING, 0.5], [0.9, 0.1, 0.3, 0.0]])
    found, places = best(scores, count)
    assert found.shape == places.shape == (2, count)
    for row in range(2):
        want = sorted(scores[row].tolist(), reverse=True) + [NOTHING] * count
        assert found[row].tolist() == pytest.approx(want[:count])
        there = found[row] != NOTHING
        assert scores[row][places[row]][there].equal(found[row][there])
