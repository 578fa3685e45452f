"""A view has what was asked for: of each kind of result, by score and by class."""

import numpy as np

from swin_dense.datasets import colours
from swin_dense.report.masks import Masks
from swin_dense.report.results import Instances, LabelMap, Segment, Segments
from swin_dense.web import pieces, views

NAMES = ("bird", "bee", "<b>tree</b>")
IMAGE = np.full((20, 30, 3), 128, np.uint8)
COLOURS = colours.palette(3)


def test_boxes_without_masks():
    found = Instances(
        image=IMAGE,
        classes=NAMES,
        boxes=np.array([[1, 2, 5.6, 9], [3, 4, 20, 15], [0, 0, 3, 3]], np.float32),
        scores=np.array([0.9, 0.5, 0.2], np.float32),
        labels=np.array([2, 0, 2]),
    )
    view = views.view(found, 0.5, ["<b>tree</b>", "bee"])
    assert [(row.name, row.colour, row.share) for row in view.rows] == [
        (NAMES[2], COLOURS[2], None)
    ]
    assert view.names == ("<b>tree</b>", "bird")
    assert view.weaker == 1
    words = pieces.summary(view, 0.123, 0.5, NAMES)
    assert words == "1 <b>tree</b> in 0.12 s. 1 is less sure than 0.50."
    table = pieces.table(view.rows)
    assert "&lt;b&gt;tree&lt;/b&gt;" in table + pieces.sentence(words)
    assert "<b>" not in table + pieces.sentence(words, ["<b>"])
    assert "<td>1, 2</td><td>5 x 7</td>" in table
    nothing = views.view(found, 0.95, None)
    assert pieces.table(nothing.rows) == ""
    assert "Nothing of the classes that are chosen is 0.95" in pieces.summary(
        nothing, 1, 0.95, NAMES
    )
    none = views.view(found.some(np.zeros(0, int)), 0.1, None)
    assert "knows bird, bee, <b>tree</b>, and nothing else" in pieces.summary(none, 1, 0.1, NAMES)
    assert "2 more are in the JSON" in pieces.table(view.rows * (pieces.ROWS + 2))


def test_masks_have_shares():
    masks = np.zeros((1, 20, 30), bool)
    masks[0, 2:8, 3:13] = True
    found = Instances(
        image=IMAGE,
        classes=NAMES,
        boxes=np.array([[3, 2, 13, 8]], np.float32),
        scores=np.array([0.9], np.float32),
        labels=np.array([1]),
        masks=Masks.of(masks),
    )
    assert views.view(found, 0.0, None).rows[0].share == 60 / 600


def test_segments_that_are_left_out_leave_their_pixels():
    ids = np.repeat([[1, 2, 3, 0]], 20, 0).repeat([8, 7, 6, 9], 1)
    found = Segments(
        image=IMAGE,
        classes=NAMES,
        ids=ids,
        rows=(
            Segment(1, "bird", 0, True, 0.9, 160),
            Segment(2, "bee", 1, True, 0.4, 140),
            Segment(3, "bird", 0, True, 0.3, 120),
        ),
    )
    view = views.view(found, 0.35, ["bird"])
    assert [(row.name, row.share) for row in view.rows] == [("bird", 160 / 600)]
    assert np.unique(view.result.ids).tolist() == [0, 1]
    assert view.names == ("bird", "bee")
    assert view.weaker == 1
    whole = views.view(found, 0, None)
    np.testing.assert_array_equal(whole.picture, found.draw())


def test_a_label_map_is_painted_where_its_classes_are_chosen():
    labels = np.repeat([[2, 0]], 20, 0).repeat([20, 10], 1)
    found = LabelMap(image=IMAGE, classes=NAMES, labels=labels)
    whole = views.view(found, 0.9, None)
    assert [(row.name, row.share, row.score) for row in whole.rows] == [
        (NAMES[2], 400 / 600, None),
        ("bird", 200 / 600, None),
    ]
    np.testing.assert_array_equal(whole.picture, found.draw_frame())
    assert pieces.summary(whole, 1, 0.9, NAMES) == "2 classes in 1.00 s."
    view = views.view(found, 0.9, ["bird"])
    assert view.result is found  # what is downloaded is whole
    assert [row.name for row in view.rows] == ["bird"]
    rows, columns = view.picture.shape[:2]
    corner = view.picture[rows - 3, 3], view.picture[rows - 3, columns - 3]
    assert (corner[0] == 128).all()
    assert (corner[1] != 128).any()
    empty = views.view(found, 0.9, [])
    assert (empty.picture == 128).all()
    assert pieces.summary(empty, 1, 0.9, NAMES).endswith("chosen is shown.")


def test_a_large_picture_is_shown_smaller():
    image = np.zeros((views.WIDEST + 80, 1000, 3), np.uint8)
    found = LabelMap(image=image, classes=NAMES, labels=np.zeros(image.shape[:2], int))
    assert views.view(found, 0, None).picture.shape == (views.WIDEST, 960, 3)
