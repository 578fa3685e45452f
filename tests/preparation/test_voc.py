"""Pascal VOC: boxes by hand, its lists of train and val, its label maps."""

import pytest
from exports import SIZES, of, read, voc
from PIL import Image

from swin_dense.errors import InputError


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
