"""Overlays: colours where labels and segments are, the names of what is there."""

import numpy as np
import pytest
from PIL import Image

from swin_dense.datasets.colours import palette
from swin_dense.report import pictures
from swin_dense.report.masks import Masks
from swin_dense.report.pictures import (
    OBJECT,
    STRENGTH,
    enlarged,
    enlargement,
    instance_overlay,
    label_overlay,
    segment_overlay,
)


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


CAT, SKY = (200, 60, 40), (20, 90, 220)


def rows(*names):
    return [{"id": i, "class": name, "score": 0.5} for i, name in enumerate(names, start=1)]


def test_segments_have_the_colour_of_their_class_and_a_border():
    segments = np.zeros((600, 900), int)
    segments[:, 300:600], segments[:, 600:750], segments[:, 750:] = 1, 2, 3
    rgb = np.full((600, 900, 3), 100, np.uint8)
    out = segment_overlay(rgb, segments, rows("sky", "cat", "cat"), {"cat": CAT, "sky": SKY})
    assert (out.shape, out.dtype) == ((600, 900, 3), np.uint8)
    assert (out[20, 100] == 100).all()  # no segment, no colour
    for x, colour in ((320, SKY), (620, CAT)):
        expected = 100 * (1 - STRENGTH) + np.array(colour) * STRENGTH
        assert np.abs(out[20, x] - expected).max() <= 1
    assert np.array_equal(out[20, 620], out[20, 800])  # two cats, told apart by their borders
    for border in (299, 599, 749):
        assert (out[20, border] == 255).all()


def test_each_segment_has_its_name_on_it():
    segments = np.ones((480, 600), int)
    rgb = np.zeros((480, 600, 3), np.uint8)
    named = segment_overlay(rgb, segments, rows("sky"), {"sky": SKY})
    written = (named == 255).all(-1)
    assert written.any()
    ys, xs = np.nonzero(written)
    assert ys.max() - ys.min() < 30
    assert xs.max() - xs.min() > 20
    other = segment_overlay(rgb, segments, rows("sea"), {"sea": SKY})
    assert not np.array_equal(named, other)


def test_names_stay_in_the_picture():
    """The name of a segment in a corner is drawn whole, as that of one in the middle."""
    light = set()
    for place in ((25, 35), (0, 0), (0, 69), (49, 0), (49, 69)):
        segments = np.zeros((50, 70), int)
        segments[place] = 1
        black = np.zeros((50, 70, 3), np.uint8)
        out = segment_overlay(black, segments, rows("zebra crossing"), {"zebra crossing": CAT})
        assert out.shape == (50 * 9, 70 * 9, 3)
        light.add(int((out > 150).all(-1).sum()))
    assert len(light) == 1
    assert light.pop() > 200


def test_no_segment_leaves_the_picture():
    rgb = np.random.default_rng(1).integers(0, 256, (500, 520, 3)).astype(np.uint8)
    assert np.array_equal(segment_overlay(rgb, np.zeros((500, 520), int), [], {}), rgb)


def objects(size, *boxes, texts=None, colours=(CAT, SKY), masks=None, grey=100):
    rgb = np.full((*size, 3), grey, np.uint8)
    texts = texts or ["x"] * len(boxes)
    masks = None if masks is None else Masks.of(masks)
    return instance_overlay(rgb, np.array(boxes, np.float32), masks, texts, colours[: len(boxes)])


def test_an_object_is_seen_under_its_colour_and_its_box_lies_around_it():
    """In 500x620 a line is two pixels wide; the box ends at the edge between two pixels."""
    masks = np.zeros((2, 500, 620), bool)
    masks[0, 205:290, 105:190] = True
    masks[1, 310:390, 310:480] = True
    out = objects((500, 620), [100, 200, 200, 300], [300.4, 300, 490.5, 400], masks=masks)
    assert (out.shape, out.dtype) == ((500, 620, 3), np.uint8)
    for (y, x), colour in (((250, 150), CAT), ((350, 400), SKY)):
        mixed = 100 * (1 - OBJECT) + np.array(colour) * OBJECT
        assert np.abs(out[y, x] - mixed).max() <= 1
    assert out[205, 150].tolist() == out[289, 150].tolist() == list(CAT)  # the mask's own edge
    assert out[250, 105].tolist() == out[250, 189].tolist() == list(CAT)
    for row, colours in (
        (250, {98: CAT, 99: CAT, 200: CAT, 201: CAT}),
        (350, {299: SKY, 491: SKY}),
    ):
        for x, colour in colours.items():
            assert out[row, x].tolist() == list(colour), x
    for x in (97, 100, 104, 190, 199, 202):  # within the box, beside the mask, and outside
        assert out[250, x].tolist() == [100] * 3, x
    assert out[199, 150].tolist() == out[300, 150].tolist() == list(CAT)
    assert out[200, 199].tolist() == [100] * 3


def test_the_line_of_a_box_as_large_as_the_image_is_within_it():
    out = objects((480, 500), [0, 0, 500, 480], texts=[""])
    assert out[0, 250].tolist() == out[479, 250].tolist() == list(CAT)
    assert out[240, 0].tolist() == out[240, 499].tolist() == list(CAT)
    assert out[240, 3].tolist() == [100] * 3


def test_of_objects_that_cover_one_another_the_first_is_on_top():
    masks = np.ones((2, 490, 480), bool)
    out = objects((490, 480), [0, 0, 480, 490], [0, 0, 480, 490], masks=masks)
    below = 100 * (1 - OBJECT) + np.array(SKY) * OBJECT
    assert np.abs(out[300, 300] - (below * (1 - OBJECT) + np.array(CAT) * OBJECT)).max() <= 1
    assert out[300, 0].tolist() == list(CAT)


def ink(out, colour):
    """Rows and columns of the pixels that letters of a colour fill, as good as wholly."""
    return np.nonzero((np.abs(out.astype(int) - colour) < 100).all(-1))


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ([200, 200, 300, 300], "above"),
        ([200, 0, 300, 200], "below"),
        ([200, 0, 300, 480], "within"),
        ([590, 200, 600, 300], "above"),  # too far right: moved to the left
    ],
)
def test_a_name_is_drawn_whole_beside_its_object(box, place):
    plain = objects((480, 600), box, texts=["zebra 0.52"], grey=0)
    ys, xs = ink(plain, (255, 255, 255))  # written in white on the red of CAT
    assert len(ys) > 100
    assert 0 < xs.min() < xs.max() < 599
    assert 40 < xs.max() - xs.min() < 110
    top, bottom = box[1], box[3]
    expected = {"above": ys.max() < top, "below": ys.min() >= bottom, "within": ys.min() < 30}
    assert expected[place]


def test_a_name_has_the_size_of_the_picture():
    heights = []
    for factor in (1, 3):
        out = objects((480 * factor, 500 * factor), [90, 200, 300, 330], texts=["Mg"], grey=0)
        ys, _ = ink(out, (255, 255, 255))
        heights.append(ys.max() - ys.min())
    assert 2.5 < heights[1] / heights[0] < 3.5


def test_names_are_readable_on_light_and_dark_colours():
    for colour, ours in (((255, 240, 60), (0, 0, 0)), ((90, 0, 0), (255, 255, 255))):
        out = objects((480, 500), [90, 200, 300, 330], texts=["Mg"], colours=[colour])
        assert len(ink(out, ours)[0]) > 20


def test_names_of_neighbours_do_not_cover_one_another():
    """The second one of two equal boxes is named below."""
    box = [200, 200, 300, 300]
    out = objects((480, 600), box, box, texts=["zebra", "horse"], grey=0)
    ys, _ = ink(out, (255, 255, 255))
    assert (ys < 200).sum() > 50
    assert (ys >= 300).sum() > 50


def test_names_are_never_over_one_another_and_the_surest_are_written_first():
    """Where more names than fit lie in one place, the last ones are left out."""
    labels = pictures._Labels(Image.new("RGB", (620, 480)))
    for i in range(50):
        labels.beside((200, 200, 300, 300), f"zebra {99 - i}", CAT)
        labels.over((150, 400), f"sea {i}")
    frames = [label.frame for label in labels.written]
    assert 8 < len(frames) < 20
    taken = np.zeros((480, 620), int)
    for left, top, right, bottom in frames:
        taken[top : bottom + 1, left : right + 1] += 1
    assert taken.max() == 1
    assert taken.sum() == sum((r - x + 1) * (b - y + 1) for x, y, r, b in frames)  # all inside
    assert labels.written[0].text == "zebra 99"
    assert {label.text for label in labels.written} >= {"zebra 98", "sea 0", "sea 1"}


def test_small_images_of_objects_are_enlarged_with_their_boxes():
    """72x104 is enlarged six times: a box from x 10 to 20 becomes one from 60 to 120."""
    masks = np.zeros((1, 72, 104), bool)
    masks[0, 30:50, 12:18] = True
    out = objects((72, 104), [10, 28, 20, 52], masks=masks)
    assert out.shape == (432, 624, 3)
    assert out[240, 59].tolist() == out[240, 120].tolist() == list(CAT)
    assert out[240, 61].tolist() == [100] * 3
    assert out[240, 90].tolist() != [100] * 3


def test_no_object_leaves_the_picture():
    rgb = np.random.default_rng(2).integers(0, 256, (500, 520, 3)).astype(np.uint8)
    none = Masks((500, 520), [])
    assert np.array_equal(instance_overlay(rgb, np.zeros((0, 4)), none, [], []), rgb)
