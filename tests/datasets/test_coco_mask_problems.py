"""One mask that is wrong in one way, and its code."""

import pytest
from coco_sets import entry, found_in, good, square
from pycocotools import mask as rle

SIZE = [48, 64]


def packed(*runs):
    counts = rle.frPyObjects({"counts": list(runs), "size": SIZE}, *SIZE)["counts"]
    return {"counts": counts.decode(), "size": SIZE}


CASES = {
    "runs too long": ({"counts": [490, 400, 10**7], "size": SIZE}, "run-lengths-too-long"),
    "packed runs too long": (packed(490, 400, 10**7), "run-lengths-too-long"),
    "runs too short": ({"counts": [490, 400], "size": SIZE}, "run-lengths-too-short"),
    "packed runs too short": (packed(490, 400, 2181), "run-lengths-too-short"),
    "a run below 0": ({"counts": [490, -400, 2982], "size": SIZE}, "run-lengths-do-not-decode"),
    "a run of half a pixel": (
        {"counts": [490.5, 400, 2181.5], "size": SIZE},
        "run-lengths-do-not-decode",
    ),
    "a text cut off": ({"counts": "Q", "size": SIZE}, "run-lengths-do-not-decode"),
    "letters": ({"counts": "zürich", "size": SIZE}, "run-lengths-do-not-decode"),
    "a mask without a pixel": ({"counts": [48 * 64], "size": SIZE}, "mask-empty"),
    "a line": ([[10, 10, 30, 30, 20, 20]], "mask-empty"),
    "a polygon of another image": ([square(10, 10), square(50, 60)], "polygon-outside-image"),
    "a polygon of millions": ([[10, 10, 30, 10, 3e9, 30]], "polygon-coordinate-huge"),
    "a mask of another size": ({"counts": [50 * 60], "size": [50, 60]}, "mask-size-differs"),
    "a mask elsewhere": ([square(40, 26)], "box-differs-from-mask"),
    "nothing": ([], "mask-unusable"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mask_that_is_wrong(tmp_path, name):
    mask, code = CASES[name]
    content = good()
    content["annotations"][1]["segmentation"] = mask
    found, _ = found_in(tmp_path, content)
    assert found[code].ids == (2,)
    assert "2" in found[code].what
    unasked, _ = found_in(tmp_path, content, need_masks=False)
    assert unasked.keys() <= {"mask-size-differs"}


def test_good_masks_of_every_kind(tmp_path):
    content = good()
    masks = (packed(490, 400, 2182), {"counts": [490.0, 400, 2182], "size": [48.0, 64]})
    for row, mask in zip(content["annotations"], masks, strict=False):
        row["segmentation"] = mask
    assert found_in(tmp_path, content)[0] == {}


def test_areas_that_are_not_the_masks(tmp_path):
    content = good()
    content["annotations"][1]["area"] = 1201  # more than three times 400
    content["annotations"][2]["area"] = 1199
    found, _ = found_in(tmp_path, content)
    assert found["area-differs-from-mask"].ids == (2,)


def test_masks_of_what_is_not_trained_on_may_be_anything(tmp_path):
    content = good()
    content["annotations"].append(entry(4, 1, 3, left=30, ignore=1, segmentation={"counts": 5}))
    assert found_in(tmp_path, content)[0].keys() == {"annotation-ignored"}
