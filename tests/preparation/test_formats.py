"""Each format's objects, against hotcoco's reading where it has one, else by hand."""

import json

import numpy as np
import pytest
from exports import SIZES, cvat, labelme, mask_png, shape, voc, yolo
from hotcoco import COCO
from PIL import Image
from pycocotools import mask as rle

from swin_dense.errors import InputError
from swin_dense.preparation import formats
from swin_dense.preparation.formats import FORMATS, Asked


def read(kind, root, **asked):
    return FORMATS[kind].read(root, Asked(**asked))


def of(gathered, stem):
    """The objects of an image: (label, box rounded) each."""
    (picture,) = [p for p in gathered.pictures if p.name.rsplit("/")[-1].startswith(stem + ".")]
    return picture, [(t.label, [round(v, 2) for v in t.box]) for t in picture.things]


def by_hotcoco(content, stem):
    """The same of a set that hotcoco read."""
    names = {c["id"]: c["name"] for c in content["categories"]}
    (image,) = [i for i in content["images"] if i["file_name"].split("/")[-1].split(".")[0] == stem]
    return [
        (names[e["category_id"]], [round(v, 2) for v in e["bbox"]])
        for e in content["annotations"]
        if e["image_id"] == image["id"]
    ]


# YOLO


def test_boxes_of_yolo_are_hotcoco_s(tmp_path):
    root = yolo(tmp_path, names="[cat, big dog]")
    (root / "labels/data.yaml").write_text((root / "data.yaml").read_text())
    content = COCO.from_yolo(str(root / "labels"), str(root / "images")).dataset
    gathered = read("yolo", root)
    assert gathered.classes == ("cat", "big dog")
    for stem, size in SIZES.items():
        picture, found = of(gathered, stem)
        assert found == by_hotcoco(content, stem)
        assert (picture.height, picture.width) == size


def test_outlines_of_yolo_by_hand(tmp_path):
    gathered = read("yolo", yolo(tmp_path, ["1 0.1 0.2 0.5 0.2 0.5 0.6"], "[cat, dog]"))
    picture, found = of(gathered, "a")  # 40 high, 60 wide
    assert found == [("dog", [6, 8, 24, 16])]
    np.testing.assert_allclose(picture.things[0].masks, [[6, 8, 30, 8, 30, 24]])


def test_images_without_a_file_show_nothing(tmp_path):
    root = yolo(tmp_path)
    (root / "labels/b.txt").unlink()
    (root / "labels/c.txt").write_text("\n")
    gathered = read("yolo", root)
    assert (of(gathered, "b")[1], of(gathered, "c")[1]) == ([], [])
    assert gathered.notes == ["1 images have no label file: they show no object"]


def test_parts_of_yolo_as_roboflow_writes_them(tmp_path):
    root = yolo(tmp_path / "x")
    for part, stems in (("train", "abcd"), ("valid", "ef")):
        for stem in stems:
            for kind, suffix in (("images", "png"), ("labels", "txt")):
                (root / part / kind).mkdir(parents=True, exist_ok=True)
                (root / f"{kind}/{stem}.{suffix}").rename(root / f"{part}/{kind}/{stem}.{suffix}")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'dog']\n"
    )
    gathered = read("yolo", root)
    assert {p.name[0]: p.part for p in gathered.pictures} == {
        **dict.fromkeys("abcd", "train"), **dict.fromkeys("ef", "val"),
    }  # fmt: skip
    assert all(len(p.things) == 2 for p in gathered.pictures)


def test_key_points_are_left_out_and_counted(tmp_path):
    root = yolo(tmp_path, ["0 0.5 0.5 0.4 0.5 0.5 0.5 2 0.6 0.6 1"])
    with (root / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 3]\n")
    gathered = read("yolo", root)
    assert of(gathered, "a")[1] == [("cat", [18, 10, 24, 20])]
    assert gathered.left_out == {"lists of key points": 6}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 30 20 24 20", "shares of the image's width and height"),
        ("2 0.5 0.5 0.4 0.5", "class 2 has no name; names are for 0 to 1"),
        ("0 0.5 0.5 0.4", r"an outline of 3 points or more; got 4 numbers"),
        ("cat 0.5 0.5 0.4 0.5", "a line is a class number"),
    ],
)
def test_a_line_of_another_format_is_named(tmp_path, line, says):
    with pytest.raises(InputError, match=rf"labels/a\.txt, line 2: .*{says}"):
        read("yolo", yolo(tmp_path, ["0 0.5 0.5 0.4 0.5", line]))


def test_numbers_need_names(tmp_path):
    (yolo(tmp_path) / "data.yaml").unlink()
    with pytest.raises(InputError, match="no file names them"):
        read("yolo", tmp_path)
    (tmp_path / "classes.txt").write_text("\ufeffcat\ndog\n", encoding="utf-8")
    assert read("yolo", tmp_path).classes == ("cat", "dog")


# Pascal VOC


def test_boxes_of_voc_by_hand(tmp_path):
    """Pixels count from 1, both corners are in the box; what is difficult is a crowd."""
    gathered = read("voc", voc(tmp_path, {"train": "abcd", "val": "e"}))
    picture, found = of(gathered, "a")
    assert found == [("cat", [0, 1, 20, 11]), ("dog", [2, 1, 18, 11]), ("dog", [4, 1, 16, 11])]
    assert [t.crowd for t in picture.things] == [False, True, False]
    assert gathered.classes == ("cat", "dog")
    assert {p.name[0]: p.part for p in gathered.pictures} == {
        **dict.fromkeys("abcd", "train"), "e": "val",
    }  # fmt: skip
    assert gathered.left_out == {"images in neither train.txt nor val.txt": 1}


def test_faults_of_voc_name_the_file(tmp_path):
    root = voc(tmp_path)
    text = (root / "Annotations/c.xml").read_text()
    (root / "Annotations/c.xml").write_text(text.replace("<width>45</width>", "<width>46</width>"))
    with pytest.raises(InputError, match=r"c\.xml: it says 46x33 pixels, .* has 45x33"):
        read("voc", root)
    (root / "Annotations/c.xml").write_text(text[:90])
    with pytest.raises(InputError, match=r"Annotations/c\.xml: not in the format"):
        read("voc", root)
    (root / "Annotations/c.xml").write_text(text.replace("c.png", "z.png"))
    assert of(read("voc", root), "c")[1]  # by its own name
    (root / "JPEGImages/c.png").unlink()
    with pytest.raises(InputError, match=r"c\.xml: its image 'z\.png' is not in"):
        read("voc", root)


def test_label_maps_of_voc(tmp_path):
    root = voc(tmp_path, {"train": "abcd", "val": "ef"})
    (root / "SegmentationClass").mkdir()
    for stem in "bf":
        Image.new("P", SIZES[stem][::-1], 3).save(root / f"SegmentationClass/{stem}.png")
    gathered = read("voc", root, task="label-maps")
    assert [(p.name, p.part, p.copied.name) for p in gathered.pictures] == [
        ("b.png", "train", "b.png"), ("f.png", "val", "f.png"),
    ]  # fmt: skip
    assert gathered.table[:2] == ("background", "aeroplane")
    assert len(gathered.table) == 21


# LabelMe


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


# CVAT


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


# Cityscapes


def cityscapes(root, pngs=True):
    """One image of 12x20 for each part: road, a car over it, a group of cars, sky."""
    for part in ("train", "val"):
        stem = f"{part}/ulm/ulm_000000_000019"
        image = root / f"leftImg8bit/{stem}_leftImg8bit.png"
        image.parent.mkdir(parents=True)
        Image.new("RGB", (20, 12)).save(image)
        base = root / f"gtFine/{stem}_gtFine"
        base.parent.mkdir(parents=True)
        ids = np.zeros((12, 20), np.uint16)  # instanceIds
        ids[5:11, 1:19] = 7
        ids[6:9, 2:5] = 26000
        ids[7:10, 10:16] = 26
        ids[0:3, :] = 23
        if pngs:
            Image.fromarray(ids).save(f"{base}_instanceIds.png")
            kinds = np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)
            Image.fromarray(kinds).save(f"{base}_labelIds.png")
        boxes = (("road", 1, 5, 18, 10), ("car", 2, 6, 4, 8), ("cargroup", 10, 7, 15, 9))
        boxes += (("sky", 0, 0, 19, 2),)
        objects = [
            {"label": name, "polygon": [[left, top], [right, top], [right, bottom], [left, bottom]]}
            for name, left, top, right, bottom in boxes
        ]
        content = {"imgHeight": 12, "imgWidth": 20, "objects": objects}
        (base.parent / f"{base.name}_polygons.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("pngs", [True, False])
def test_label_maps_of_cityscapes(tmp_path, pngs):
    """The 19 classes in the authors' order: road 0, sky 10, car 13; all else is not judged."""
    gathered = read("cityscapes", cityscapes(tmp_path, pngs))
    assert [(p.name, p.part) for p in gathered.pictures] == [
        ("ulm/ulm_000000_000019.png", "train"), ("ulm/ulm_000000_000019.png", "val"),
    ]  # fmt: skip
    labels = gathered.pictures[0].labels()
    expected = np.full((12, 20), 255)
    expected[5:11, 1:19] = 0
    expected[6:9, 2:5] = expected[7:10, 10:16] = 13
    expected[0:3, :] = 10
    np.testing.assert_array_equal(labels, expected)
    assert (gathered.table[0], gathered.table[10], gathered.table[13]) == ("road", "sky", "car")


@pytest.mark.parametrize("pngs", [True, False])
def test_objects_of_cityscapes(tmp_path, pngs):
    gathered = read("cityscapes", cityscapes(tmp_path, pngs), task="instances")
    things = sorted(gathered.pictures[1].things, key=lambda t: t.box)
    assert [(t.label, t.box, t.crowd) for t in things] == [
        ("car", (2, 6, 3, 3), False), ("car", (10, 7, 6, 3), True),
    ]  # fmt: skip


# Which it is


@pytest.mark.parametrize("write", [yolo, voc, labelme, cvat])
def test_a_format_is_recognised(tmp_path, write):
    assert formats.recognised(write(tmp_path)) == write.__name__


def test_two_formats_in_one_folder_are_told(tmp_path):
    yolo(tmp_path)
    labelme(tmp_path)
    with pytest.raises(InputError, match=r"could be labelme \(a\.json\), yolo \(data\.yaml\)"):
        formats.recognised(tmp_path)


def test_none_is_told(tmp_path):
    with pytest.raises(InputError, match="none of the known formats"):
        formats.recognised(tmp_path)


def test_hotcoco_leaves_out_what_ours_reads(tmp_path):
    """The reason for readers of our own: if this fails, look whether they may go."""
    with pytest.raises(ValueError, match="expected 5 fields"):
        labels = yolo(tmp_path / "y", ["1 0.1 0.2 0.5 0.2 0.5 0.6"]) / "labels"
        (labels / "data.yaml").write_text("names: [cat, dog]\n")
        COCO.from_yolo(str(labels), str(labels.parent / "images"))
    mask = '<mask label="cat" rle="2, 3, 4" left="10" top="20" width="3" height="3"/>'
    with pytest.warns(UserWarning, match="skipped 6 unsupported"):
        COCO.from_cvat(str(cvat(tmp_path / "c", mask) / "annotations.xml"))
