"""Ids, boxes and classes that are wrong in one way, and their codes."""

import json
import types

import numpy as np
import pytest
from coco_sets import entry, found_in, good, write

from swin_dense.datasets import coco_layout, coco_problems
from swin_dense.datasets.findings import ERROR, KINDS
from swin_dense.errors import InputError


def edited(**changes):
    return lambda c: c["annotations"][1].update(changes)


def repeat(content):
    content["annotations"].append(content["annotations"][1] | {"id": 4})


def crowds(content):
    content["annotations"][1].update(iscrowd=1)


def corners(content):
    for row in content["annotations"]:
        row["bbox"] = [30, 20, 55, 45]


def normalised(content):
    for row in content["annotations"]:
        row["bbox"] = [0.1, 0.2, 0.5, 0.5]


def uneven(content):
    content["annotations"] += [
        entry(10 + i, 1, 7, left=i % 40, top=i // 40 + i / 997, segmentation=None)
        for i in range(200)
    ]


CASES = {
    "a box without width": (edited(bbox=[10, 10, 0, 20]), "box-empty", (2,)),
    "a box turned": (edited(bbox=[30, 30, -20, -20]), "box-empty", (2,)),
    "a box of a pixel": (edited(bbox=[10, 10, 1, 1]), "box-single-pixel", (2,)),
    "a box outside": (edited(bbox=[64, 10, 5, 5]), "box-outside-image", (2,)),
    "a box beyond": (edited(bbox=[50, 10, 20, 20]), "box-beyond-image", (2,)),
    "a box of millions": (edited(bbox=[10, 10, 4e6, 20]), "box-coordinate-huge", (2,)),
    "an area of 0": (edited(area=0), "area-not-positive", (2,)),
    "ignored": (edited(ignore=1), "annotation-ignored", (2,)),
    "an object twice": (repeat, "object-listed-twice", (4,)),
    "only crowds": (crowds, "class-only-crowds", ("cat",)),
    "no object": (lambda c: c["annotations"].pop(1), "class-without-object", ("cat",)),
    "an image without": (lambda c: c["annotations"].pop(0), "image-without-object", (1,)),
    "an image id twice": (lambda c: c["images"][1].update(id=1), "image-id-twice", (1,)),
    "an id twice": (edited(id=1), "annotation-id-twice", (1,)),
    "an image that is not there": (edited(image_id=9), "image-id-unknown", (2,)),
    "a category that is not there": (edited(category_id=9), "category-id-unknown", (2,)),
    "corners": (corners, "boxes-look-like-corners", (1, 2, 3)),
    "normalised boxes": (normalised, "boxes-normalised", (1, 2, 3)),
    "imbalance": (uneven, "class-imbalance", ("cat",)),
    "an entry that is a number": (
        lambda c: c["annotations"].append(5),
        "entry-not-object",
        (),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_has_its_code(tmp_path, name):
    edit, code, ids = CASES[name]
    content = good()
    edit(content)
    found, summary = found_in(tmp_path, content, need_masks=False)
    assert found[code].ids == ids
    if KINDS[code].severity == ERROR:
        with pytest.raises(InputError, match=rf"\[{code}\]"):
            coco_layout.check(*write(tmp_path, content))
    else:
        assert not [f for f in found.values() if f.severity == ERROR]
        assert summary.annotations == len(content["annotations"])


def test_small_images(tmp_path):
    content = good()
    content["images"][0]["height"] = 31
    found, _ = found_in(tmp_path, content, need_masks=False, min_side=32)
    assert found["image-too-small"].ids == (1,)


def test_examine_raises_for_files_that_cannot_be_read_only(tmp_path):
    path, images = write(tmp_path, good())
    summary, found = coco_layout.examine(path, images, classes=("cat", "Dog"))
    assert [f.kind.code for f in found] == ["classes-do-not-match"]
    assert summary.images == 2
    _, found = coco_layout.examine(path, tmp_path / "nowhere")
    assert [f.kind.code for f in found] == ["image-folder-absent"]
    path.write_bytes(b"{")
    with pytest.raises(InputError, match=r"\[file-not-json\]") as caught:
        coco_layout.examine(path, images)
    assert [f.kind.code for f in caught.value.findings] == ["file-not-json"]
    path.write_text(json.dumps(good() | {"categories": []}))
    with pytest.raises(InputError, match=r"\[categories-unusable\]"):
        coco_layout.examine(path, images)


def test_splits_that_list_different_categories(tmp_path):
    first, _ = write(tmp_path, good())
    fewer, more = tmp_path / "fewer.json", tmp_path / "more.json"
    fewer.write_text(json.dumps(good() | {"categories": good()["categories"][1:]}))
    emu = {"id": 9, "name": "emu"}
    more.write_text(json.dumps(good() | {"categories": [*good()["categories"], emu]}))
    names = ("dog", "cat")
    assert coco_layout.classes_of_split(first, names, first) == (names, [])
    present, (lacking,) = coco_layout.classes_of_split(fewer, names, first)
    assert (present, lacking.kind.code, lacking.ids) == (
        ("cat",),
        "class-absent-from-split",
        ("dog",),
    )
    assert str(first) in lacking.what
    assert str(fewer) in lacking.what
    present, (extra,) = coco_layout.classes_of_split(more, names, first)
    assert (present, extra.kind.code, extra.ids) == (names, "class-of-one-split", ("emu",))
    assert coco_layout.classes_of_split(more, names, first, subset=True) == (names, [])
    # Each lacks one of the other: a name may be misspelt.
    assert coco_layout.classes_of_split(fewer, ("cat", "Dog"), first)[0] == ("cat",)
    assert coco_layout.classes_of_split(more, ("cat", "Dog"), first) == (("cat", "Dog"), [])
    with pytest.raises(InputError, match="'Dog' is not in the file"):
        coco_layout.present_classes(("cat", "Dog"), {3: "cat", 7: "dog"})
    assert coco_layout.present_classes(("cat", "dog"), {3: "cat"}) == {"cat": 3}


@pytest.mark.parametrize(
    ("folder", "file", "images"),
    [
        ("coco_mini", "annotations/instances_train2017.json", "train2017"),
        ("coco_mini", "annotations/instances_val2017.json", "val2017"),
        ("nuclei", "instances_val.json", "val"),
    ],
)
def test_nothing_to_warn_of_in_real_data(real_data, folder, file, images):
    root = real_data(folder)
    _, found = coco_layout.examine(root / file, root / images, need_masks=True, min_side=32)
    assert {f.kind.code for f in found if f.severity != "info"} == set()


def test_objects_listed_again_are_those_of_equal_numbers():
    rng = np.random.default_rng(5)
    for count in (0, 1, *range(2, 40, 3)):
        coco = types.SimpleNamespace(
            image=rng.integers(0, 3, count).astype(np.int32),
            category=rng.integers(0, 2, count).astype(np.int32),
            crowd=rng.random(count) < 0.2,
            box=rng.choice([0.0, -0.0, 1.5], (count, 4)),
        )
        rows = np.flatnonzero(rng.random(count) < 0.8)
        seen, again = set(), []
        for i in rows.tolist():
            key = (coco.image[i], coco.category[i], coco.crowd[i], *(coco.box[i] + 0.0))
            again += [i] if key in seen else []
            seen.add(key)
        assert coco_problems.listed_again(coco, rows).tolist() == again
