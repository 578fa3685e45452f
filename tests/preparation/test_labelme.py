"""LabelMe: every kind of shape by hand; what is no area is counted."""

import numpy as np
import pytest
from exports import labelme, mask_png, of, read, shape
from PIL import Image
from pycocotools import mask as rle

from swin_dense.errors import InputError


def test_shapes_of_labelme_by_hand(tmp_path):
    gathered = read("labelme", labelme(tmp_path, inside="e"))
    picture, found = of(gathered, "a")
    assert found == [
        ("cat", [1, 1, 29, 29]), ("dog", [5, 8, 15, 12]), ("dog", [15, 15, 10, 10]),
        ("__ignore__", [0, 30, 9, 3]),
    ]  # fmt: skip
    cat, rectangle, circle, _ = picture.things
    assert cat.masks == [[1, 1, 20, 1, 20, 20], [22, 22, 30, 22, 30, 30]]
    assert rectangle.masks == [[5, 8, 20, 8, 20, 20, 5, 20]]  # as others have outlines
    points = np.array(circle.masks).reshape(-1, 2)
    np.testing.assert_allclose(np.hypot(*(points - 20).T), 5)
    x, y = points.T
    area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    assert area == pytest.approx(np.pi * 25, rel=0.002)
    assert gathered.classes == ("cat", "dog")
    assert gathered.left_out == {"shapes of kind line: no area": 6}
    assert of(gathered, "e")[0].data.startswith(b"\x89PNG")


def test_rectangles_alone_are_boxes(tmp_path):
    root = labelme(tmp_path, [shape("cat", [[20, 20], [5, 8]], "rectangle")])
    gathered = read("labelme", root)
    assert of(gathered, "f")[0].things[0].masks is None
    assert not gathered.notes


def test_a_mask_of_the_brush(tmp_path):
    drawn = np.zeros((4, 6), bool)
    drawn[1, 2:5] = True
    root = labelme(tmp_path, [shape("cat", [[10, 20], [15, 23]], "mask", mask=mask_png(drawn))])
    picture, found = of(read("labelme", root), "c")
    assert found == [("cat", [12, 21, 3, 1])]
    assert np.argwhere(rle.decode(picture.things[0].masks)).tolist() == [
        [21, 12], [21, 13], [21, 14],
    ]  # fmt: skip


def test_the_list_of_labels_gives_the_order(tmp_path):
    root = labelme(tmp_path)
    (root / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\nemu\n")
    assert read("labelme", root).classes == ("dog", "cat", "emu")
    (root / "labels.txt").write_text("__ignore__\ndog\n")
    with pytest.raises(InputError, match=r"labels\.txt: it lacks \['cat'\]"):
        read("labelme", root)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (shape("cat", [[1, 1], [2, 2], [3, 1]], "spline"), "got 'spline'"),
        ({"label": "cat"}, "a shape has a label and points"),
        (shape("cat", [[1, 1], [2, 2]], "mask", mask="?"), "no PNG in base64"),
    ],
)
def test_faults_of_labelme_name_file_and_shape(tmp_path, bad, says):
    with pytest.raises(InputError, match=rf"a\.json, shape 0: .*{says}"):
        read("labelme", labelme(tmp_path, [bad]))


def test_an_image_that_is_nowhere(tmp_path):
    root = labelme(tmp_path)
    (root / "imgs/d.png").unlink()
    with pytest.raises(InputError, match=r"d\.json: its image .* neither in .* nor within"):
        read("labelme", root)


def test_an_image_that_was_made_smaller(tmp_path):
    root = labelme(tmp_path)
    Image.new("RGB", (30, 20)).save(root / "imgs/a.png")
    with pytest.raises(InputError, match=r"a\.json: it says 60x40 pixels, .* has 30x20"):
        read("labelme", root)


def test_points_of_too_few_corners_are_counted(tmp_path):
    root = labelme(tmp_path, [shape("cat", [[1, 1], [2, 2]]), *labelme_shapes()])
    found = read("labelme", root)
    assert found.left_out["shapes of kind polygon with fewer than 3 points"] == 6


def labelme_shapes():
    return [shape("cat", [[1, 1], [9, 1], [9, 9]])]
