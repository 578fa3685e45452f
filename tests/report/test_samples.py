"""What is drawn of a sample: colours where labels are, stripes where nothing is judged, a page."""

import html.parser

import numpy as np
import pytest

from swin_dense.datasets import colours
from swin_dense.report import samples
from swin_dense.report.samples import Sample

CLASSES = ("cat", "dog", "a <b> & c")
SIZE = (480, 640)  # large enough not to be enlarged


def grey():
    return np.full((*SIZE, 3), 90, np.uint8)


def test_half_of_what_is_hidden_is_striped():
    hidden = np.zeros(SIZE, bool)
    hidden[40:200, 80:320] = True
    found = samples.hatched(grey(), hidden)
    changed = (found != 90).any(2)
    assert not (changed & ~hidden).any()
    assert changed.sum() / hidden.sum() == pytest.approx(0.5, abs=0.01)


def test_label_maps_have_the_colours_of_their_classes():
    label_map = np.zeros(SIZE, np.int64)
    label_map[:, 320:] = 2
    label_map[:100] = 255
    drawn = samples.draw(Sample(grey(), CLASSES, label_map=label_map))
    assert drawn.shape[0] == SIZE[0]
    assert drawn.shape[1] > SIZE[1]  # the legend
    palette = np.array(colours.palette(3), float)
    for index, place in ((0, (300, 100)), (2, (300, 500))):
        expected = 0.45 * 90 + 0.55 * palette[index]
        np.testing.assert_allclose(drawn[place], expected, atol=1)
    hidden = drawn[:100, :640].reshape(-1, 3)
    assert len(np.unique(hidden, axis=0)) == 2  # stripes and what is between them


def test_objects_and_crowds():
    masks = np.zeros((1, *SIZE), bool)
    masks[0, 200:300, 200:320] = True
    crowd = np.array([[400.0, 100, 500, 160]])
    drawn = samples.draw(
        Sample(grey(), CLASSES, np.array([[200.0, 200, 320, 300]]), np.array([1]), masks, crowd)
    )
    assert drawn.shape == (*SIZE, 3)
    expected = 0.6 * 90 + 0.4 * np.array(colours.palette(3)[1], float)
    np.testing.assert_allclose(drawn[250, 260], expected, atol=1)
    assert len(np.unique(drawn[100:160, 400:500].reshape(-1, 3), axis=0)) == 2
    assert (drawn[50, 50] == 90).all()


def test_segments_show_things_and_stuff():
    label_map = np.full(SIZE, 2)
    masks = np.zeros((1, *SIZE), bool)
    masks[0, 10:200, 10:200] = True
    label_map[masks[0]] = 0
    drawn = samples.draw(
        Sample(grey(), CLASSES, np.array([[10.0, 10, 200, 200]]), np.array([0]), masks, None, None,
               label_map)
    )  # fmt: skip
    assert drawn.shape[1] > SIZE[1]
    assert (drawn[400, 400] != 90).any()


def test_a_sample_without_objects_is_the_image():
    empty = np.zeros((0, 4))
    masks = np.zeros((0, *SIZE), bool)
    drawn = samples.draw(Sample(grey(), CLASSES, empty, np.zeros(0, int), masks, empty))
    assert (drawn == 90).all()
    assert (samples.draw(Sample(grey(), CLASSES)) == 90).all()


def test_the_page_shows_each_picture_once_and_loads_nothing_else(tmp_path):
    sample = Sample(
        grey(), CLASSES, np.zeros((2, 4)), np.array([2, 2]), None, np.zeros((1, 4)),
        source="/x/<i>.png", steps=["Resize: image 3x4 -> 5x6"],
    )  # fmt: skip
    path = samples.write_page(tmp_path, "mine & yours", [("a.png", sample), ("b.png", sample)])

    class Page(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.found, self.text = [], ""

        def handle_starttag(self, tag, attrs):
            self.found += [value for name, value in attrs if name in ("src", "href")]

        def handle_data(self, data):
            self.text += data

    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.found == ["a.png", "b.png"]
    for text in ("mine & yours", "<i>.png", "2 a <b> & c", "1 not judged", "640 x 480 pixels",
                 "Resize: image 3x4 -> 5x6"):  # fmt: skip
        assert text in page.text
