"""Panoptic files with one mistake each, and what is said about it; labels with things first."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from swin_dense.datasets import shapes
from swin_dense.datasets.coco_panoptic import (
    Classes,
    labels_to_learn,
    read_classes,
    read_samples,
    read_segments,
)
from swin_dense.datasets.findings import FoundError
from swin_dense.datasets.label_maps import MOST_CLASSES
from swin_dense.datasets.panoptic_sets import check, examine
from swin_dense.errors import InputError, MissingInputError

SEA, DOG, PACK = 5, 300, 70000 + 2 * 65536  # ids whose red, green and blue parts all count
GOOD = {
    "images": [
        {"id": 1, "file_name": "one.jpg", "width": 9, "height": 7},
        {"id": 2, "file_name": "two.jpg", "width": 9, "height": 7},
    ],
    "annotations": [
        {
            "image_id": 2,
            "file_name": "two.png",
            "segments_info": [
                {"id": SEA, "category_id": 7, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]},
                {"id": DOG, "category_id": 4},
            ],
        },
        {
            "image_id": 1,
            "file_name": "one.png",
            "segments_info": [
                {"id": SEA, "category_id": 7},
                {"id": PACK, "category_id": 4, "iscrowd": 1},
            ],
        },
    ],
    "categories": [
        {"id": 7, "name": "sea", "isthing": 0},
        {"id": 4, "name": "dog", "isthing": 1},
        {"id": 2, "name": "cat", "isthing": 1},
    ],
}


def store(path, ids):
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(path)


@pytest.fixture
def place(tmp_path):
    """Folders `images` and `segments` of GOOD, and a function that writes an annotation file."""
    (tmp_path / "images").mkdir()
    (tmp_path / "segments").mkdir()
    ids = np.full((7, 9), SEA)
    ids[0, 0] = 0
    for name, other in (("one", PACK), ("two", DOG)):
        Image.new("RGB", (9, 7)).save(tmp_path / f"images/{name}.jpg")
        store(tmp_path / f"segments/{name}.png", np.where(np.eye(7, 9, 2) > 0, other, ids))

    def write(content):
        path = tmp_path / "panoptic.json"
        path.write_text(json.dumps(content))
        return path

    write.images, write.segments = tmp_path / "images", tmp_path / "segments"
    return write


def refused(place, edit=lambda content: None, **options):
    content = copy.deepcopy(GOOD)
    edit(content)
    with pytest.raises(InputError) as caught:
        check(place(content), place.images, place.segments, **options)
    return str(caught.value)


# What is read.


def test_things_come_first_each_kind_in_the_order_of_the_file(place):
    assert read_classes(place(GOOD)) == Classes(("dog", "cat"), ("sea",))
    assert read_classes(place(GOOD)).names == ("dog", "cat", "sea")


def test_some_classes_in_an_order_of_one_s_own(place):
    assert read_classes(place(GOOD), ("sea", "cat")).names == ("cat", "sea")
    with pytest.raises(InputError, match=r"'Dog' .* Did you mean 'dog'"):
        read_classes(place(GOOD), ("Dog", "sea"))


def test_samples_carry_labels_by_name(place):
    classes = Classes(("dog",), ("sea",))
    first, second = read_samples(place(GOOD), place.images, place.segments, classes)
    assert first["img_path"] == str(place.images / "two.jpg")
    assert first["seg_map_path"] == str(place.segments / "two.png")
    assert (first["img_id"], first["height"], first["width"]) == (2, 7, 9)
    assert first["segments"] == [
        {"id": SEA, "label": 1, "isthing": False, "iscrowd": False},
        {"id": DOG, "label": 0, "isthing": True, "iscrowd": False},
    ]
    assert second["segments"][1] == {"id": PACK, "label": 0, "isthing": True, "iscrowd": True}
    assert labels_to_learn(first) == [1, 0]
    assert labels_to_learn(second) == [1]


def test_a_class_that_was_not_chosen_has_no_label(place):
    (sample, _) = read_samples(place(GOOD), place.images, place.segments, Classes(("dog",), ()))
    assert [segment["label"] for segment in sample["segments"]] == [None, 0]
    assert labels_to_learn(sample) == [0]


def test_the_number_of_a_pixel_is_its_colour(tmp_path):
    """By hand: (1, 2, 3) is 1 + 2 * 256 + 3 * 65536 = 197121."""
    pixels = np.array([[[1, 2, 3], [0, 0, 0]], [[255, 255, 255], [0, 1, 0]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    ids = read_segments(tmp_path / "a.png", (197121, 16777215, 256))
    assert ids.tolist() == [[197121, 0], [16777215, 256]]


def test_a_pixel_of_no_listed_segment_is_an_error(place):
    with pytest.raises(InputError, match=r"two\.png: .*1 ids are not listed: 300\. .*one export"):
        read_segments(place.segments / "two.png", (SEA,))


@pytest.mark.parametrize(("mode", "suffix"), [("L", "png"), ("P", "png"), ("RGB", "jpg")])
def test_what_is_no_colour_number_is_refused(tmp_path, mode, suffix):
    Image.new(mode, (4, 3)).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=r"R \+ 256 G .* mode"):
        read_segments(tmp_path / f"a.{suffix}", ())


def test_a_damaged_png_is_named(place):
    path = place.segments / "one.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"one\.png: .*cut off"):
        read_segments(path, ())


# What is checked.


def test_counts(place):
    summary = check(place(GOOD), place.images, place.segments)
    assert (summary.images, summary.kept_images, summary.crowds, summary.looked_at) == (2, 2, 1, 2)
    assert summary.segments == {"dog": 1, "cat": 0, "sea": 2}
    assert summary.images_with == {"dog": 1, "cat": 0, "sea": 2}
    assert summary.warnings == ["classes without any segment: cat"]
    text = summary.describe()
    assert "3 segments, 1 crowds beside; 2 PNGs looked at" in text
    assert ["sea", "stuff", "2", "2"] in [line.split() for line in text.splitlines()]
    assert "thing" not in summary.describe(table=False)


def test_an_image_without_annotation_is_left_out(place):
    content = copy.deepcopy(GOOD)
    content["annotations"].pop(0)
    summary = check(place(content), place.images, place.segments)
    assert "1 of 2 images have no annotation and are left out" in summary.warnings
    assert summary.kept_images == 1


def test_instances_are_not_segments(place):
    def edit(content):
        content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 7}]

    assert "this is COCO instance format" in refused(place, edit)


def test_categories_say_whether_they_are_things(place):
    text = refused(place, lambda content: content["categories"][1].pop("isthing"))
    assert "1 of 3 do not: dog" in text
    assert "'isthing' is 1" in text


def test_the_folder_of_pngs_is_absent(place):
    place.segments.rename(place.segments.with_name("segment"))
    with pytest.raises(MissingInputError, match=r"folder of panoptic PNGs .* 'segment'"):
        check(place(GOOD), place.images, place.segments)


def test_a_png_is_absent(place):
    (place.segments / "two.png").unlink()
    text = refused(place)
    assert "1 of 2 panoptic PNGs are not in" in text
    assert "two.png" in text


def test_an_image_is_absent(place):
    (place.images / "one.jpg").unlink()
    assert "1 of 2 images are not in" in refused(place)


def test_pngs_of_another_export(place):
    def edit(content):
        for entry in content["annotations"]:
            for segment in entry["segments_info"]:
                segment["id"] += 1

    text = refused(place, edit)
    assert "2 of 2 PNGs looked at cannot be used" in text
    assert "2 ids are not listed: 5, 300" in text


def test_sizes_that_disagree(place):
    def swap(content):
        content["images"][0].update(width=7, height=9)

    text = refused(place, swap)
    assert "1 of 2 looked at do not" in text
    assert "the annotation file says 7x9 pixels, the image has 9x7, the PNG 9x7" in text
    store(place.segments / "two.png", np.full((7, 8), SEA))
    assert "the image has 9x7, the PNG 8x7" in refused(place)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=1), "1 images have several annotations"),
        (lambda c: c["annotations"][0].update(image_id=8), "have an image_id that no entry"),
        (lambda c: c["images"][0].update(id=2), "1 ids are shared by several images"),
        (
            lambda c: c["annotations"][0]["segments_info"][0].update(category_id=8),
            "category ids that no category has: [8], where ids are like [2, 4, 7]",
        ),
        (
            lambda c: c["annotations"][1]["segments_info"][0].update(id=PACK),
            "1 annotations list a segment id twice, the first is that of one.png",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][1].update(id=0),
            "1 of 4 segments have a 'id' that is not a whole number from 1 to 256^3 - 1",
        ),
        (
            lambda c: c["annotations"][0]["segments_info"][1].pop("category_id"),
            "1 of 4 segments lack 'category_id'",
        ),
        (
            lambda c: c["annotations"][1].pop("file_name"),
            "1 of 2 panoptic annotations lack 'file_name'",
        ),
        (lambda c: c["annotations"][1].update(segments_info={}), "is not a list of segments"),
        (lambda c: c["annotations"].clear(), "the list of panoptic PNGs is empty"),
        (lambda c: c["categories"][0].update(name="dog"), "the same name"),
    ],
)
def test_one_mistake_one_message(place, edit, message):
    assert message in refused(place, edit)


def test_each_mistake_has_its_code(place):
    """The doctor's look at a set: one case of each kind, its ids, and what lies beside it."""

    def found(edit, **options):
        content = copy.deepcopy(GOOD)
        edit(content)
        _, findings = examine(place(content), place.images, place.segments, **options)
        return {f.kind.code: f.ids for f in findings}

    def first(content):
        return content["annotations"][0]["segments_info"]

    never = {"class-without-object": ("cat",)}
    assert found(lambda c: None) == never
    for edit, code, ids in (
        (lambda c: c["images"][0].update(id=2), "image-id-twice", (2,)),
        (lambda c: c["annotations"][0].update(image_id=1), "image-annotated-twice", (1,)),
        (lambda c: c["annotations"][0].update(image_id=8), "image-id-unknown", (8,)),
        (lambda c: first(c)[0].update(category_id=8), "category-id-unknown", (8,)),
        (lambda c: c["annotations"][1].update(file_name="x.png"), "image-absent", ("x.png",)),
        (lambda c: c["annotations"][1].pop("file_name"), "field-absent", ()),
        (lambda c: first(c)[0].update(id=0), "field-wrong", (0,)),
    ):
        assert found(edit).get(code) == ids, code
    sizes = found(lambda c: c["images"][0].update(width=7, height=9))
    assert sizes == {"panoptic-size-differs": (f"{GOOD['annotations'][1]['file_name']}",)} | never
    doubled = found(lambda c: c["annotations"][1]["segments_info"][0].update(id=PACK))
    assert doubled.keys() == {"segment-listed-twice"}
    assert found(lambda c: None, min_side=8).keys() >= {"nothing-to-train-on", "image-too-small"}
    assert "image-without-object" in found(lambda c: c["annotations"].pop(0))
    data = (place.segments / "one.png").read_bytes()
    (place.segments / "one.png").write_bytes(data[:50])
    Image.new("L", (9, 7)).save(place.segments / "two.png")
    assert found(lambda c: None) == never | {
        "panoptic-png-unreadable": ("one.png",),
        "panoptic-png-of-another-kind": ("two.png",),
    }
    (place.segments / "one.png").write_bytes(data)
    store(place.segments / "two.png", np.full((7, 9), 77))
    (place.images / "one.jpg").write_bytes(b"nothing")
    assert found(lambda c: None) == never | {
        "segment-not-listed": ("two.png",),
        "panoptic-image-unusable": ("one.png",),
    }


def test_classes_that_cannot_be_used_have_a_code(place):
    content = copy.deepcopy(GOOD)
    for wanted, code in ((("cow",), "classes-do-not-match"), (None, "isthing-absent")):
        with pytest.raises(FoundError) as caught:
            read_classes(place(content), wanted)
        assert [f.kind.code for f in caught.value.findings] == [code]
        content["categories"][1].pop("isthing", None)
    content["categories"] = [
        {"id": i, "name": f"c{i}", "isthing": 1} for i in range(1, MOST_CLASSES + 2)
    ]
    with pytest.raises(FoundError, match=r"at most 255 classes.*\[classes-too-many\]"):
        read_classes(place(content))


def test_nothing_to_train_on(place):
    assert "0 of 2 images kept" in refused(place, classes=("cat",), subset=True)
    assert "0 of 2 images kept" in refused(place, min_side=8)


def test_names_are_matched(place):
    assert "Did you mean 'cat'" in refused(place, classes=("dog", "Cat", "sea"))


# The built-in set.


def test_shapes_show_the_same_as_segments_and_as_label_maps(small_shapes):
    classes = read_classes(small_shapes.panoptic_file("train"))
    assert classes == Classes(shapes.CLASSES, ("background",))
    files = (small_shapes.image_dir("train"), small_shapes.segment_dir("train"))
    check(small_shapes.panoptic_file("train"), *files)
    instances = json.loads(small_shapes.annotation_file("train").read_text())["annotations"]
    for sample in read_samples(small_shapes.panoptic_file("train"), *files, classes):
        ids = read_segments(sample["seg_map_path"], [s["id"] for s in sample["segments"]])
        name = f"{sample['img_id']:06d}.png"
        labels = np.asarray(Image.open(small_shapes.label_dir("train") / name))
        things = [s for s in sample["segments"] if s["isthing"]]
        assert len(things) == sum(row["image_id"] == sample["img_id"] for row in instances)
        for segment in sample["segments"]:
            inside = labels[ids == segment["id"]]
            assert len(inside)
            assert set(inside) == {segment["label"] + 1 if segment["isthing"] else 0}
        assert (ids != 0).all()


def test_areas_and_boxes_of_the_shapes_are_those_of_the_pngs(small_shapes):
    content = json.loads(small_shapes.panoptic_file("val").read_text())
    for entry in content["annotations"]:
        known = [segment["id"] for segment in entry["segments_info"]]
        ids = read_segments(small_shapes.segment_dir("val") / entry["file_name"], known)
        for segment in entry["segments_info"]:
            rows, columns = np.nonzero(ids == segment["id"])
            assert segment["area"] == len(rows)
            left, top, width, height = segment["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)


def test_coco_itself(real_data):
    root = real_data("coco_panoptic_mini")
    summary = check(
        root / "annotations/panoptic_val2017.json",
        root / "val2017",
        root / "annotations/panoptic_val2017",
        sample=100,
    )
    assert (summary.images, summary.kept_images, summary.looked_at) == (100, 100, 100)
    assert (len(summary.classes.things), len(summary.classes.stuff)) == (80, 53)
