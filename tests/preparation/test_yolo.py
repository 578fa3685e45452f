"""YOLO: boxes as hotcoco reads them, outlines by hand, and what is wrong is named."""

import numpy as np
import pytest
from exports import SIZES, by_hotcoco, of, read, yolo
from hotcoco import COCO

from swin_dense.errors import InputError


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


def test_parts_of_yolo_as_lists_of_images(tmp_path):
    root = yolo(tmp_path)
    (root / "train.txt").write_text("".join(f"./images/{stem}.png\n" for stem in "acde"))
    (root / "val.txt").write_text("images/b.png\n")
    (root / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [cat, dog]\n")
    gathered = read("yolo", root)
    assert [(p.part, p.name) for p in gathered.pictures] == [
        *(("train", f"{stem}.png") for stem in "acde"),
        ("val", "b.png"),
    ]
    assert all(len(p.things) == 2 for p in gathered.pictures)
    (root / "val.txt").write_text("images/z.png\n")
    with pytest.raises(InputError, match=r"val\.txt: its image images/z\.png is not in"):
        read("yolo", root)


def test_a_folder_of_another_set_beside_is_not_taken(tmp_path):
    """Roboflow's ../train/images is within the folder, whatever lies beside it."""
    root = yolo(tmp_path / "set/x").rename(tmp_path / "set/mine")
    (root / "train").mkdir()
    (root / "images").rename(root / "train/images")
    (root / "labels").rename(root / "train/labels")
    yolo(tmp_path / "set/train", ["0 0.5 0.5 0.1 0.1"])
    (root / "data.yaml").write_text("train: ../train/images\nnames: [cat, dog]\n")
    assert {len(p.things) for p in read("yolo", root).pictures} == {2}


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
