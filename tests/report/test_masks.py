"""Masks held in the boxes of their pixels are the masks."""

import numpy as np
import pytest
import torch

from swin_dense.report.masks import Masks


@pytest.fixture
def whole():
    """Five masks of 7x11; the second has no pixel, the third all, the fourth one corner."""
    found = np.random.default_rng(3).random((5, 7, 11)) < 0.2
    found[0, :3] = found[0, :, :2] = found[1] = False
    found[2], found[3] = True, False
    found[3, 6, 10] = True
    return found


def test_masks_are_given_back_whole(whole):
    masks = Masks.of(whole)
    assert (len(masks), masks.shape, masks.dtype) == (5, (5, 7, 11), bool)
    assert np.array_equal(np.asarray(masks), whole)
    assert np.asarray(masks, dtype=np.uint8).sum() == whole.sum()
    assert all(np.array_equal(a, b) for a, b in zip(masks, whole, strict=True))
    assert masks.areas.tolist() == whole.sum((1, 2)).tolist()
    assert np.array_equal(masks[-1], whole[4])
    with pytest.raises(IndexError):
        masks[5]


def test_some_masks_are_masks(whole):
    masks = Masks.of(whole, order=[3, 0, 4])
    assert np.array_equal(np.asarray(masks), whole[[3, 0, 4]])
    assert np.array_equal(np.asarray(masks[1:]), whole[[0, 4]])
    assert np.array_equal(np.asarray(masks[np.array([True, False, True])]), whole[[3, 4]])
    assert np.array_equal(np.asarray(masks[np.array([2, 0])]), whole[[4, 3]])
    for none in (np.array([], int), np.array([]), [], np.zeros(3, bool), torch.zeros(3).bool()):
        assert masks[none].shape == (0, 7, 11)
    assert np.array_equal(np.asarray(masks[torch.tensor([2, 0])]), whole[[4, 3]])
    assert np.array_equal(masks[np.int64(1)], whole[0])
    for wrong in ((0, 5), (slice(None), 3), np.zeros((2, 2), int), ...):
        with pytest.raises(IndexError, match=r"np\.asarray\(masks\) is the whole array"):
            masks[wrong]


def test_only_what_an_object_covers_is_held(whole):
    masks = Masks.of(whole)
    assert [crop.pixels.size for crop in masks.crops][1:4] == [0, 77, 1]
    assert masks.crops[3][:2] == (6, 10)
    whole[:] = False  # nothing of the array is held
    assert masks.areas.sum() > 77
