"""Colours: as many as asked for, of the right range, and not to be confused."""

import itertools

import pytest

from swin_dense.datasets.colours import palette


@pytest.mark.parametrize("count", [0, 1, 7, 80, 150, 255])
def test_as_many_colours_as_classes_and_none_twice(count):
    colours = palette(count)
    assert len(colours) == len(set(colours)) == count
    assert all(len(colour) == 3 for colour in colours)
    assert all(type(v) is int and 0 <= v <= 255 for colour in colours for v in colour)


def test_a_class_keeps_its_colour_when_classes_are_added():
    assert palette(11) == palette(150)[:11]


def test_the_first_colour_by_hand():
    # hue 0.02, saturation 0.80, value 0.95: red = v, blue = v (1 - s), green = v (1 - s (1 - 6 h))
    expected = (0.95, 0.95 * (1 - 0.80 * (1 - 0.12)), 0.95 * 0.20)
    assert palette(1) == [tuple(round(255 * v) for v in expected)]


def test_neighbours_differ_much():
    colours = palette(150)
    for one, other in itertools.pairwise(colours):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 100


def test_no_colour_is_near_black_or_white():
    assert all(max(colour) >= 170 and min(colour) <= 140 for colour in palette(255))
