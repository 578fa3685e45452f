"""The overlay of a label map: colours where the labels are, a legend of the classes present."""

import numpy as np
import pytest

from swin_dense.datasets.colours import palette
from swin_dense.report.pictures import STRENGTH, label_overlay


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (211, 5)])
def test_pixels_are_mixed_and_the_legend_is_beside(height, width):
    rgb = np.full((height, width, 3), 100, np.uint8)
    labels = np.zeros((height, width), np.int64)
    labels[-1, -1] = 2
    colours = [(200, 0, 40), (1, 2, 3), (0, 255, 0)]
    out = label_overlay(rgb, labels, ("sky", "never", "tree"), colours)
    assert out.dtype == np.uint8
    assert out.shape[0] >= height
    assert out.shape[1] > width
    expected = [round(100 * (1 - STRENGTH) + c * STRENGTH) for c in colours[2]]
    assert np.abs(out[height - 1, width - 1].astype(int) - expected).max() <= 1


def test_only_present_classes_have_a_legend_colour():
    colours = [(200, 0, 40), (0, 0, 255)]
    out = label_overlay(np.zeros((60, 9, 3), np.uint8), np.zeros((60, 9), int), ("a", "b"), colours)
    legend = out[:, 9:].reshape(-1, 3).tolist()
    assert list(colours[0]) in legend
    assert list(colours[1]) not in legend


def test_colours_are_distinct():
    assert len(set(palette(150))) == 150
