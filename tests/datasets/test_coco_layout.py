"""Annotation files with one mistake each, and what is said about it."""

import copy
import json
import os

import pytest
from pycocotools import mask as rle

from swin_dense.datasets.coco_layout import check, class_names, match_classes, read_categories
from swin_dense.errors import InputError, MissingInputError

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def box(number, image, category, **other):
    entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [10, 10, 20, 20],
        "area": 400,
        "iscrowd": 0,
        "segmentation": SQUARE,
    }
    return entry | other


GOOD = {
    "images": [
        {"id": 1, "file_name": "one.jpg", "width": 64, "height": 48},
        {"id": 2, "file_name": "two.jpg", "width": 64, "height": 48},
    ],
    "annotations": [box(1, 1, 7), box(2, 2, 3), box(3, 2, 7)],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
}


def packed(*runs, size=(48, 64)):
    """Compressed run lengths as pycocotools writes them."""
    return rle.frPyObjects({"counts": list(runs), "size": list(size)}, *size)["counts"].decode()


@pytest.fixture
def place(tmp_path):
    """A folder with images (empty files: none is opened) and a function that writes a file."""
    (tmp_path / "images").mkdir()
    for name in ("one.jpg", "two.jpg"):
        (tmp_path / "images" / name).touch()

    def write(content):
        path = tmp_path / "instances.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    write.images = tmp_path / "images"
    return write


def changed(edit):
    content = copy.deepcopy(GOOD)
    edit(content)
    return content


def test_names_come_in_the_order_of_the_file(place):
    path = place(GOOD)
    assert list(read_categories(path).items()) == [(7, "dog"), (3, "cat")]
    assert class_names(path) == ("dog", "cat")


@pytest.mark.parametrize("wanted", [("cat", "dog"), ["dog", "cat"]])
def test_classes_are_matched_by_name(wanted):
    assert match_classes(wanted, {7: "dog", 3: "cat"}) == {"cat": 3, "dog": 7}
    assert list(match_classes(wanted, {7: "dog", 3: "cat"})) == list(wanted)


def test_subset():
    assert match_classes(("cat",), {7: "dog", 3: "cat"}, subset=True) == {"cat": 3}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ("Cat", "dog"),
            r"'Cat' is not in the file\. Did you mean 'cat'\?.*\['Cat', 'dog'\].*\['dog'",
        ),
        (("DOG", "cat"), r"'DOG' is not in the file\. Did you mean 'dog'\?"),
        (("dogs", "cat"), r"'dogs' is not in the file\. Did you mean 'dog'\?"),
        (("horse", "cat", "dog"), r"'horse' is not in the file\. Classes"),
        (("cat",), r"\['dog'\] of the file are not among the classes.*say subset=True"),
        ("cat", r"got the text 'cat'.*\('cat',\)"),
        (("cat", "dog", "cat"), r"\['cat'\] stated more than once"),
    ],
)
def test_names_without_partner(wanted, message):
    with pytest.raises(InputError, match=message):
        match_classes(wanted, {7: "dog", 3: "cat"})


def test_counts(place):
    summary = check(place(GOOD), place.images, need_masks=True)
    assert (summary.images, summary.kept_images, summary.annotations) == (2, 2, 3)
    assert summary.objects == {"dog": 2, "cat": 1}
    assert summary.images_with == {"dog": 2, "cat": 1}
    assert summary.areas == {"small": 3, "medium": 0, "large": 0}
    assert summary.warnings == []
    lines = summary.describe().splitlines()
    assert lines[2].split() == ["dog", "2", "2"]
    assert lines[3].split() == ["cat", "1", "1"]


def test_warnings(place):
    def spoil(content):
        content["annotations"] += [
            box(4, 1, 3, bbox=[5, 5, 0.9, 9]),
            box(5, 1, 3, bbox=[50, 5, 20, 20]),
            box("six", 1, 3),
            box(7, 1, 3, iscrowd=1),
            box(8, 1, 3, bbox=[64, 5, 20, 20]),
            box(9, 1, 3, area=0),
            box(10, 1, 3, ignore=True),
            box(11, 1, 3, bbox=[5, 5, 9, -2]),
            box(12, 4, 3),
        ]
        content["annotations"][0].pop("iscrowd")
        content["images"] += [
            {"id": 9, "file_name": "two.jpg", "width": 64, "height": 48},
            {"id": 4, "file_name": "two.jpg", "width": 64, "height": 31},
        ]
        content["categories"].append({"id": 8, "name": "cow"})

    summary = check(place(changed(spoil)), place.images, min_side=32)
    assert summary.dropped == {"thin": 2, "outside": 1, "area": 1, "ignore": 1}
    assert (summary.crowds, summary.outside_boxes) == (1, 1)
    assert (summary.images, summary.kept_images, summary.small_images) == (4, 2, 1)
    assert summary.objects == {"dog": 2, "cat": 3, "cow": 0}
    assert summary.warnings == [
        "1 of 4 images have no object to train on",
        "1 of 4 images are left out: a side below 32 pixels",
        "5 of 12 annotations are left out of training: 2 less than one pixel wide or high, 1 "
        "wholly outside their image, 1 with an area of zero or less, 1 marked ignore",
        "1 boxes reach outside their image",
        "classes without any object: cow",
        "1 images are listed more than once: two.jpg. Merge their entries.",
    ]
    assert summary.notes == [
        "1 of 12 annotations state no iscrowd: they count as single objects; ids 1."
    ]


def test_boxes_that_seem_to_be_corners_are_said_so(place):
    corners = [[10, 10, 60, 40], [30, 20, 50, 45], [2, 3, 40, 30]]  # the last fits both ways

    def spoil(content):
        for entry, bbox in zip(content["annotations"], corners, strict=True):
            entry["bbox"] = bbox

    (warning,) = check(place(changed(spoil)), place.images).warnings
    assert warning.startswith("2 boxes reach outside their image. 2 of 3 boxes reach outside")
    assert "but 3 fit as left, top, right, bottom" in warning
    corners[0] = [10, 10, 60, 9]  # its bottom would be above its top
    assert check(place(changed(spoil)), place.images).warnings == [
        "2 boxes reach outside their image"
    ]


def test_small_images_are_the_reason(place):
    message = r"0 of 2 images kept: 2 have a side below 49 pixels\. .* lower min_size in filter_cfg"
    with pytest.raises(InputError, match=message):
        check(place(GOOD), place.images, min_side=49)
    assert check(place(GOOD), place.images, min_side=48).kept_images == 2


MISTAKES = {
    "duplicate category name": (
        lambda c: c["categories"].append({"id": 4, "name": "dog"}),
        r"same name, got \[.*7.*4.*\]",
    ),
    "duplicate category id": (
        lambda c: c["categories"].append({"id": 7, "name": "cow"}),
        r"same id, got \[.*dog.*cow.*\]",
    ),
    "category without name": (
        lambda c: c["categories"][0].pop("name"),
        r"needs id and name, got \{'id': 7\}",
    ),
    "category name is a number": (
        lambda c: c["categories"][0].update(name=5),
        "a number as id, a text as name",
    ),
    "no categories": (lambda c: c.update(categories=[]), "categories is empty"),
    "no images": (lambda c: c.update(images=[], annotations=[]), "list of images is empty"),
    "duplicate image id": (
        lambda c: c["images"][1].update(id=1),
        r"1 ids are shared by several images, the first are \[1\]",
    ),
    "duplicate annotation id": (
        lambda c: c["annotations"][1].update(id=1),
        r"1 ids are shared by several annotations",
    ),
    "unknown image": (
        lambda c: c["annotations"][0].update(image_id="one"),
        r"1 of 3 annotations have a image_id.*\['one'\], where ids are like \[1, 2\]",
    ),
    "unknown category": (
        lambda c: c["annotations"][0].update(category_id=0),
        r"1 of 3 annotations have a category_id.*\[0\], where ids are like \[3, 7\]",
    ),
    "no width": (lambda c: c["images"][0].pop("width"), "1 of 2 images lack 'width'"),
    "width null": (lambda c: c["images"][0].update(width=None), "1 of 2 images lack 'width'"),
    "no box": (lambda c: c["annotations"][0].pop("bbox"), "1 of 3 annotations lack 'bbox'"),
    "short box": (
        lambda c: c["annotations"][0].update(bbox=[1, 2]),
        r"1 of 3 annotations have a 'bbox' that is not four.*is \[1, 2\] of the entry with id 1",
    ),
    "only crowds and nothing": (
        lambda c: c.update(annotations=[box(1, 1, 7, iscrowd=1)]),
        "0 of 2 images kept: 1 have no annotation; 1 have only crowds of the classes",
    ),
    "only flat boxes": (
        lambda c: c.update(annotations=[box(i, i, 7, bbox=[1, 1, 3, -1]) for i in (1, 2)]),
        "2 of 2 annotations are left out of training: 2 less than one pixel wide or high.*Correct",
    ),
    "all ignored": (
        lambda c: [entry.update(ignore=1) for entry in c["annotations"]],
        "0 of 2 images kept: 2 have only boxes that are left out",
    ),
    "more than half without area": (
        lambda c: [entry.update(area=-1) for entry in c["annotations"][:2]],
        "2 of 3 annotations are left out of training: 2 with an area of zero or less.*area above 0",
    ),
    "more than half outside": (
        lambda c: [entry.update(bbox=[9, -20, 20, 20]) for entry in c["annotations"][1:]],
        "2 of 3 annotations are left out of training: 2 wholly outside their image",
    ),
    "normalised boxes": (
        lambda c: [entry.update(bbox=[0, 0.25, 1, 0.5]) for entry in c["annotations"]],
        r"every box lies within 0\.\.1, .*\[0, 0\.25, 1, 0\.5\] of annotation 1: .*normalised.*"
        "multiply the first and third number by the width",
    ),
    "mask of another size": (
        lambda c: c["annotations"][1].update(segmentation={"counts": "Q", "size": [40, 50]}),
        r"1 run-length masks .* annotation 2, 40 high and 50 wide; two\.jpg \(id 2\) is 48 high and"
        r" 64 wide\. Correct the entries",
    ),
    "mask of swapped size": (
        lambda c: c["annotations"][1].update(segmentation={"counts": [9], "size": [64, 48]}),
        r"annotation 2, 64 high and 48 wide.* is 48 high and 64 wide\. In 1 of them .* swapped",
    ),
}
TYPES = {
    "images": [
        ("id", [1], "a whole number or a text"),
        ("file_name", 12, "a text"),
        ("file_name", "", "a text"),
        ("width", "64", "a number above 0"),
        ("height", "48", "a number above 0"),
        ("height", 0, "a number above 0"),
        ("width", True, "a number above 0"),
        ("width", float("nan"), "a number above 0"),
    ],
    "annotations": [
        ("id", {}, "a whole number or a text"),
        ("image_id", [1], "a whole number or a text"),
        ("category_id", [7], "a whole number or a text"),
        ("category_id", 7.5, "a whole number or a text"),
        ("bbox", "1 2 3 4", "four finite numbers"),
        ("bbox", [1, 2, 3, "4"], "four finite numbers"),
        ("bbox", {"x": 1}, "four finite numbers"),
        ("bbox", [1, 2, 3, 4, 5], "four finite numbers"),
        ("bbox", [1, 2, 3, float("nan")], "four finite numbers"),
        ("bbox", [1, float("-inf"), 3, 4], "four finite numbers"),
        ("bbox", [1, 2, 3, 10**400], "four finite numbers"),
        ("area", "400", "a finite number"),
        ("area", float("inf"), "a finite number"),
        ("iscrowd", "0", "0 or 1"),
        ("iscrowd", None, "0 or 1"),
        ("iscrowd", [], "0 or 1"),
        ("ignore", "false", "0 or 1"),
    ],
}
for _what, _cases in TYPES.items():
    for _field, _value, _rule in _cases:
        MISTAKES[f"{_what} {_field} {str(_value)[:20]}"] = (
            lambda c, what=_what, row={_field: _value}: c[what][1].update(row),
            f"1 of [23] {_what} have a '{_field}' that is not {_rule}.*, the first is ",
        )
for _what in TYPES:
    MISTAKES[f"{_what} are numbers"] = (
        lambda c, what=_what: c.update({what: [1, 2]}),
        f"2 of 2 {_what} are not JSON objects, the first is 1. Each needs id, ",
    )
UNUSABLE = [
    [],
    None,
    "10 10 30 10 30 30",
    SQUARE[0],
    [SQUARE],
    [[1, 2, 3, 4]],
    [[1, 2, 3, 4, 5, 6, 7]],
    [["1", "2", "3", "4", "5", "6"]],
    [[1, 2, 3, 4, 5, float("nan")]],
    {"size": [48, 64]},
    {"size": [48, 64], "counts": []},
    {"counts": "Q"},
    {"counts": "Q", "size": [48]},
    {"counts": "Q", "size": "48, 64"},
    {"counts": 5, "size": [48, 64]},
]


@pytest.mark.parametrize("mask", UNUSABLE, ids=str)
@pytest.mark.parametrize("iscrowd", [0, 1])
def test_a_mask_nothing_can_be_learnt_from(place, mask, iscrowd):
    path = place(changed(lambda c: c["annotations"][1].update(segmentation=mask, iscrowd=iscrowd)))
    message = (
        r"1 of 3 annotations to train on have no usable segmentation.*: ids 2; the first has .*"
        "Remove these annotations, add their masks, or train a detector without mask head"
    )
    with pytest.raises(InputError, match=message):
        check(path, place.images, need_masks=True)
    assert not any("segmentation" in text for text in check(path, place.images).warnings)


@pytest.mark.parametrize(
    "mask",
    [
        SQUARE,
        {"counts": packed(490, 400, 2182), "size": [48, 64]},
        {"counts": [490, 400, 2182], "size": [48.0, 64]},
        {"counts": [490.0, 400.0, 2182.0], "size": [48, 64]},
    ],
)
def test_masks_to_learn_from(place, mask):
    path = place(changed(lambda c: c["annotations"][1].update(segmentation=mask)))
    assert check(path, place.images, need_masks=True).warnings == []


def test_masks_of_what_is_left_out_are_not_needed(place):
    def spoil(content):
        content["annotations"] += [
            box(4, 1, 3, ignore=1, segmentation=[]),
            box(5, 1, 3, bbox=[5, 5, 0, 9], segmentation=[]),
            box(6, 3, 3, segmentation=[]),
        ]
        content["images"].append({"id": 3, "file_name": "two.jpg", "width": 64, "height": 31})

    path = place(changed(spoil))
    assert check(path, place.images, need_masks=True, min_side=32).kept_images == 2
    with pytest.raises(InputError, match=r"1 of 4 annotations to train on .*: ids 6; the first"):
        check(path, place.images, need_masks=True)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(place, name):
    edit, message = MISTAKES[name]
    with pytest.raises(InputError, match=rf"(?s)instances\.json.*{message}"):
        check(place(changed(edit)), place.images, need_masks=True)


def test_all_mistakes_at_once(place):
    def spoil(content):
        content["images"][1]["id"] = 1
        content["annotations"][0]["category_id"] = 99

    with pytest.raises(
        InputError, match=r"(?s)several images.*have a image_id.*have a category_id"
    ):
        check(place(changed(spoil)), place.images)


def test_all_without_masks(place):
    path = place(changed(lambda c: [entry.pop("segmentation") for entry in c["annotations"]]))
    with pytest.raises(InputError, match=r"3 of 3 annotations .*: ids 1, 2, 3; .* none"):
        check(path, place.images, need_masks=True)
    assert check(path, place.images).warnings == []


def test_nothing_of_the_classes(place):
    content = changed(lambda c: c.update(annotations=[box(1, 1, 7), box(2, 2, 7)]))
    message = r"0 of 2 images kept: 2 have no box of the classes\. Classes: \['cat'\]"
    with pytest.raises(InputError, match=message):
        check(place(content), place.images, classes=("cat",), subset=True)


def test_check_matches_names(place):
    with pytest.raises(InputError, match=r"instances\.json: classes .*Did you mean 'cat'"):
        check(place(GOOD), place.images, classes=("Cat", "dog"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "annotation file is empty"),
        ("<annotation><folder>x</folder></annotation>", "this is XML, as Pascal VOC has it"),
        ("0 0.5 0.5 0.25 0.125\n1 0.1 0.1 0.2 0.2\n", "as YOLO has it"),
        (json.dumps(GOOD)[:-9], r"not JSON, or cut off \(.*; \d+ bytes\)"),
        ([{"image_id": 1, "score": 0.5}], "a list of detections, as COCO results files are"),
        ([], "a bare list"),
        ("3", "a bare int"),
        ({"version": "5", "shapes": [], "imagePath": "a.jpg"}, "a LabelMe file"),
        ({"_via_img_metadata": {}}, "VGG Image Annotator"),
        ({"foo": 1}, r"\['images', 'annotations', 'categories'\] absent, found \['foo'\]"),
        (GOOD | {"annotations": [{"segments_info": []}]}, "COCO panoptic format"),
    ],
)
def test_other_formats_are_recognised(place, content, message):
    with pytest.raises(InputError, match=message):
        read_categories(place(content))


def test_paths(place):
    path = place(GOOD)
    with pytest.raises(MissingInputError, match=r"Did you mean 'instances\.json'\?"):
        read_categories(path.with_name("instance.json"))
    with pytest.raises(InputError, match="must be a file, this is a folder"):
        read_categories(path.parent)
    with pytest.raises(MissingInputError, match=r"image folder does not exist.*'images'"):
        check(path, path.parent / "image")


def test_absent_images(place):
    path, images = place(GOOD), place.images

    def said(folder=images):
        with pytest.raises(InputError) as caught:
            check(path, folder)
        return str(caught.value)

    (images / "two.jpg").rename(images / "two.PNG")
    assert f"1 of 2 images are not in {images}: two.jpg. The folder has two.PNG" in said()
    assert "correct the suffix" in said()
    (images / "two.PNG").rename(images / "Two.jpg")
    if not (images / "two.jpg").exists():  # where the file system tells case apart
        assert "has Two.jpg: correct upper and lower case" in said()
    (images / "Two.jpg").unlink()
    assert "two.jpg. Name the folder that file_name starts from" in said()
    assert f"{images} has one.jpg: name that folder" in said(images.parent)
    (images.parent / "labels").mkdir()
    assert f"{images.resolve()} has one.jpg: name that folder" in said(images.parent / "labels")


def test_folders_in_file_names(place):
    content = changed(lambda c: [i.update(file_name="deep/" + i["file_name"]) for i in c["images"]])
    path = place(content)
    with pytest.raises(
        InputError, match=r"2 of 2 .*There is no folder .*deep, but .* has one\.jpg"
    ):
        check(path, place.images)
    (place.images / "deep").mkdir()
    for name in ("one.jpg", "two.jpg"):
        os.rename(place.images / name, place.images / "deep" / name)
    assert check(path, place.images).images == 2


def counted(function, calls):
    def call(*arguments, **options):
        calls.append(arguments)
        return function(*arguments, **options)

    return call


def test_one_scan_for_many_images(place, monkeypatch):
    """No call for each file: on a network drive that takes minutes."""
    names = [f"{i:06d}.jpg" for i in range(20000)]
    for name in names[:10]:
        (place.images / name).touch()
    content = {
        "images": [
            {"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)
        ],
        "annotations": [box(i, i // 5, 3 + 4 * (i % 2)) for i in range(100000)],
        "categories": GOOD["categories"],
    }
    path = place(content)
    asked = []
    monkeypatch.setattr(os, "stat", counted(os.stat, asked))  # pathlib and os.path go through it
    with pytest.raises(InputError, match="19990 of 20000 images are not in"):
        check(path, place.images)
    assert len(asked) < 100


@pytest.mark.parametrize(
    ("folder", "file", "images", "expected"),
    [
        ("coco_mini", "annotations/instances_train2017.json", "train2017", (80, 739, 80)),
        ("coco_mini", "annotations/instances_val2017.json", "val2017", (79, 624, 80)),
        ("nuclei", "instances_train.json", "train", (518, 22141, 1)),
    ],
)
def test_real_sets(real_data, folder, file, images, expected):
    root = real_data(folder)
    summary = check(root / file, root / images, need_masks=True)
    assert (summary.images, summary.annotations, len(summary.objects)) == expected
    assert sum(summary.objects.values()) + summary.crowds == expected[1]
    assert not any(summary.dropped.values())
