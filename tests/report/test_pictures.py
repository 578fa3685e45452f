"""The overlay of a label map: colours where the labels are, a legend of the classes present."""

import numpy as np
import pytest

from swin_dense.datasets.colours import palette
from swin_dense.report.pictures import STRENGTH, enlarged, enlargement, label_overlay


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (211, 5), (500, 700)])
def test_pixels_are_mixed_and_the_legend_is_beside(height, width):
    rgb = np.full((height, width, 3), 100, np.uint8)
    labels = np.zeros((height, width), np.int64)
    labels[-1, -1] = 2
    colours = [(200, 0, 40), (1, 2, 3), (0, 255, 0)]
    out = label_overlay(rgb, labels, ("sky", "never", "tree"), colours)
    factor = enlargement(height, width)
    assert out.dtype == np.uint8
    assert out.shape[0] >= factor * height
    assert out.shape[1] > factor * width
    expected = [round(100 * (1 - STRENGTH) + c * STRENGTH) for c in colours[2]]
    corner = out[factor * height - 1, factor * width - 1].astype(int)
    assert np.abs(corner - expected).max() <= 1


def test_only_present_classes_have_a_legend_colour():
    colours = [(200, 0, 40), (0, 0, 255)]
    labels = np.zeros((480, 490), int)
    out = label_overlay(np.zeros((480, 490, 3), np.uint8), labels, ("a", "b"), colours)
    legend = out[:, 490:].reshape(-1, 3).tolist()
    assert list(colours[0]) in legend
    assert list(colours[1]) not in legend


@pytest.mark.parametrize(
    ("size", "factor"), [((480, 481), 1), ((2000, 479), 1), ((240, 900), 2), ((72, 104), 6)]
)
def test_small_images_are_enlarged(size, factor):
    assert enlargement(*size) == factor
    assert enlarged(np.zeros((*size, 3), np.uint8), factor).shape[:2] == tuple(
        side * factor for side in size
    )


def test_colours_are_distinct():
    assert len(set(palette(150))) == 150
