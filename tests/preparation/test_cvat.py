"""CVAT: boxes and polygons as hotcoco reads them, the other shapes by hand."""

import numpy as np
import pytest
from exports import SIZES, by_hotcoco, cvat, of, read
from hotcoco import COCO
from pycocotools import mask as rle

from swin_dense.errors import InputError


def test_boxes_and_polygons_of_cvat_are_hotcoco_s(tmp_path):
    root = cvat(tmp_path)
    content = COCO.from_cvat(str(root / "annotations.xml")).dataset
    gathered = read("cvat", root)
    assert gathered.classes == ("cat", "dog")
    for stem in SIZES:
        assert of(gathered, stem)[1] == by_hotcoco(content, stem)
    (polygon,) = [e["segmentation"] for e in content["annotations"][:2] if "segmentation" in e]
    assert of(gathered, "a")[0].things[1].masks == polygon


def test_what_hotcoco_leaves_out_of_cvat_by_hand(tmp_path):
    shapes = (
        '<mask label="cat" rle="2, 3, 4" left="10" top="20" width="3" height="3"/>'
        '<ellipse label="dog" cx="20" cy="15" rx="6" ry="4"/>'
        '<box label="dog" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
        '<polygon label="cat" points="1,1;5,1;5,7" group_id="3"/>'
        '<polygon label="cat" points="8,1;9,1;9,7" group_id="3"/>'
        '<polyline label="cat" points="1,1;2,2"/><tag label="dog"/>'
    )
    root = cvat(tmp_path, shapes)
    gathered = read("cvat", root)
    picture, found = of(gathered, "b")
    # The runs: two pixels out, three in, four out, row after row of three.
    assert np.argwhere(rle.decode(picture.things[0].masks)).tolist() == [
        [20, 12], [21, 10], [21, 11],
    ]  # fmt: skip
    assert found[1:] == [
        ("dog", [14, 11, 12, 8]), ("dog", [13, 7, 4, 10]), ("cat", [1, 1, 8, 6]),
    ]  # fmt: skip
    assert len(picture.things[3].masks) == 2
    assert gathered.left_out == {
        "shapes of kind polyline: no area": 6, "shapes of kind tag: no area": 6,
    }  # fmt: skip


def test_subsets_of_cvat_are_parts(tmp_path):
    subsets = {stem: "Train" if stem in "abc" else "Validation" for stem in SIZES}
    gathered = read("cvat", cvat(tmp_path, subsets=subsets))
    assert [p.part for p in gathered.pictures] == ["train"] * 3 + ["val"] * 3


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ('<box label="dog" xtl="1" ytl="2" xbr="wide" ybr="12"/>', "a box that is not in the"),
        ('<mask label="cat" rle="2, 3" left="1" top="2" width="3" height="3"/>', "a mask that is"),
        ('<star label="cat"/>', "kind 'star' is not known"),
        ("<track/>", "is not known"),
    ],
)
def test_faults_of_cvat_name_the_image(tmp_path, shapes, says):
    with pytest.raises(InputError, match=rf"annotations\.xml, image sub/a\.png: .*{says}"):
        read("cvat", cvat(tmp_path, shapes))


def test_a_video_of_cvat_says_what_to_export(tmp_path):
    (tmp_path / "annotations.xml").write_text("<annotations><track id='0'/></annotations>")
    with pytest.raises(InputError, match=r"'CVAT for video'\. Export the task as 'CVAT for images"):
        read("cvat", tmp_path)
