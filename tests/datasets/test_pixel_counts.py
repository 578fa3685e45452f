"""Pixels are counted as numpy's sorting counts them."""

import numpy as np
import pytest

from swin_dense.datasets import pixel_counts


@pytest.mark.parametrize(
    ("kind", "least", "end"),
    [("u1", 0, 256), ("i4", 0, 65536), ("i4", 3, 5), ("i4", -4, 9), ("i4", 0, 2**31 - 1)],
)
def test_numbers_of_each_range(monkeypatch, kind, least, end):
    monkeypatch.setattr(pixel_counts, "BLOCK", 7)  # several blocks, the last one shorter
    pixels = np.random.default_rng(0).integers(least, end, (11, 13)).astype(kind)
    values, counts = np.unique(pixels, return_counts=True)
    assert pixel_counts.counted(pixels) == (values.tolist(), counts.tolist())


def test_no_pixel():
    assert pixel_counts.counted(np.empty((0, 3), np.int32)) == ([], [])
