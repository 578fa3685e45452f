"""Whole sets of label maps: their shares, and every mistake under its code."""

import numpy as np
import pytest
from PIL import Image

from swin_dense.datasets import label_map_sets
from swin_dense.datasets.findings import FoundError
from swin_dense.datasets.label_map_sets import check, check_pairs, examine
from swin_dense.datasets.label_maps import LabelTable, pair_files
from swin_dense.errors import InputError

RAW = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)


@pytest.fixture
def folders(tmp_path):
    """Writes images and label maps {name: raw}; gives the two folders."""

    def write(images, labels):
        for folder, files in (("images", images), ("labels", labels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            for name, raw in files.items():
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.asarray(raw, np.uint8)).save(path)
        return tmp_path / "images", tmp_path / "labels"

    return write


def test_shares(folders):
    raws = {"a": [[0, 0, 1, 255]], "b": [[0, 0, 0, 0]]}
    images, labels = folders(
        {f"{k}.jpg": v for k, v in raws.items()}, {f"{k}.png": v for k, v in raws.items()}
    )
    summary = check(images, labels, LabelTable(("road", "sky", "car")))
    assert summary.shares == {"road": 0.75, "sky": 0.125, "car": 0}
    assert (summary.ignored, summary.pairs, summary.looked_at) == (0.125, 2, 2)
    assert summary.never == ["car"]
    assert "warning: classes without a pixel in 2 label maps: car" in summary.describe()
    assert "75.00%" in summary.describe()
    merged = LabelTable(("ground",), {0: 0, 1: 0})
    assert check(images, labels, merged).shares == {"ground": 0.875}


def test_sample_is_spread_evenly(folders):
    raws = {f"{i:02d}": [[i]] for i in range(20)}
    images, labels = folders(
        {f"{k}.jpg": v for k, v in raws.items()}, {f"{k}.png": v for k, v in raws.items()}
    )
    summary = check(images, labels, LabelTable(tuple(map(str, range(20)))), sample=5)
    assert [name for name, share in summary.shares.items() if share] == ["0", "4", "8", "12", "16"]


def test_check_names_values_and_files(folders):
    images, labels = folders({"a.jpg": [[0]], "b.jpg": [[0]]}, {"a.png": [[0]], "b.png": [[9]]})
    message = r"2 of 2 label maps looked at, 9 first in b\.png.*9 \(1 pixels\)"
    with pytest.raises(InputError, match=message):
        check(images, labels, LabelTable(("a", "b")))


def test_check_of_pairs_somebody_else_made(folders):
    images, labels = folders(
        {"a.jpg": [[0]], "b.jpg": [[0]]}, {"a.png": [[1]], "b.png": [[7]], "more.png": [[9]]}
    )
    pairs = [(images / f"{name}.jpg", labels / f"{name}.png") for name in "ab"]
    table = LabelTable(("x", "y"))
    assert check_pairs(pairs[:1], labels, table).shares == {"x": 0, "y": 1}
    message = r"^a name: the data set .*\n  2 of 2 label maps looked at, 7 first in b\.png"
    with pytest.raises(InputError, match=message):
        check_pairs(pairs, "a name", table)


def test_binary_masks_are_recognised(folders):
    images, labels = folders({"a.jpg": [[0, 9]]}, {"a.png": [[0, 255]]})
    with pytest.raises(InputError, match=r"255 would be ignored: say values=\{0: 0, 255: 1\}"):
        check(images, labels, LabelTable(("ground", "thing")))
    mapped = LabelTable(("ground", "thing"), {0: 0, 255: 1}, ignore=())
    assert check(images, labels, mapped).shares == {"ground": 0.5, "thing": 0.5}


def test_sizes_must_agree(folders):
    images, labels = folders({"a.jpg": RAW}, {"a.png": RAW.T})
    message = r"a\.png: .* 2x4, .*a\.jpg is 4x2 \(width x height\)\. The image may carry"
    with pytest.raises(InputError, match=message):
        check(images, labels, LabelTable(tuple("abcd")))


def test_image_lies_turned(folders):
    images, labels = folders({}, {"a.png": RAW.T})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RAW).save(images / "a.jpg", exif=exif)
    assert check(images, labels, LabelTable(tuple("abcd"))).looked_at == 1


def test_real_street_scenes(real_data):
    root = real_data("camvid")
    names = (
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "p",
        "b",
    )
    folders = root / "images" / "train", root / "annotations" / "train"
    summary = check(*folders, LabelTable(names, ignore=(11,)))
    assert (summary.pairs, summary.looked_at, summary.never) == (367, 50, [])
    assert sum(summary.shares.values()) + summary.ignored == pytest.approx(1)
    with pytest.raises(InputError, match=r"not in the table: 11 "):
        check(*folders, LabelTable(names))


def test_real_ade(real_data):
    root = real_data("ade_sample")
    table = LabelTable(tuple(map(str, range(1, 151))), first_value=1, ignore=(0,))
    summary = check(root / "images" / "validation", root / "annotations" / "validation", table)
    assert summary.pairs == 3
    assert 0 < summary.ignored < 0.5


def test_every_mistake_of_a_set_is_found_at_once(folders):
    raws = {f"{name}.png": [[0, 1, 255]] for name in "abcdefgh"}
    images, labels = folders({f"{name}.jpg": [[0, 0, 0]] for name in "abcdefgh"}, raws)
    Image.new("L", (4, 1)).save(labels / "b.png")
    Image.new("L", (1, 3)).save(labels / "c.png")
    (labels / "d.png").write_bytes((labels / "a.png").read_bytes()[:40])
    Image.new("L", (3, 1)).save(labels / "e.png", format="JPEG")
    Image.new("RGB", (3, 1), (1, 2, 3)).save(labels / "f.png")
    Image.fromarray(np.array([[7, 7, 8]], np.uint8)).save(labels / "g.png")
    (images / "h.jpg").write_bytes(b"nothing")
    table = LabelTable(("x", "y", "z"))
    summary, found = examine(pair_files(images, labels), labels, table)
    by_code = {f.kind.code: f for f in found}
    assert len(by_code) == len(found)
    assert {code: f.ids for code, f in by_code.items()} == {
        "label-map-size-differs": ("b.png", "c.png"),
        "label-map-unreadable": ("d.png",),
        "label-map-lossy": ("e.png",),
        "label-map-of-colours": ("f.png",),
        "label-map-unusable": ("h.png",),
        "label-value-unknown": ("g.png",),
        "class-without-pixel": ("z",),
    }
    assert by_code["label-map-size-differs"].what.startswith("2 of 8 label maps looked at: b.png")
    assert "7 (2 pixels), 8 (1 pixels)" in by_code["label-value-unknown"].what
    assert summary.looked_at == 8


def test_files_without_partner_have_a_code_each(folders):
    images, labels = folders({"a.jpg": RAW, "b.jpg": RAW}, {"b.png": RAW, "c.png": RAW})
    with pytest.raises(FoundError) as caught:
        pair_files(images, labels)
    assert {f.kind.code: f.ids for f in caught.value.findings} == {
        "label-map-absent": ("a.jpg",),
        "label-map-without-image": ("c.png",),
    }


def test_what_the_table_makes_of_a_set(folders):
    images, labels = folders({"a.jpg": [[0] * 5]}, {"a.png": [[0, 255, 255, 255, 0]]})
    pairs = pair_files(images, labels)

    def codes(table):
        return [f.kind.code for f in examine(pairs, labels, table)[1]]

    assert codes(LabelTable(("x", "y"))) == [
        "label-values-0-and-255",
        "class-without-pixel",
        "label-maps-mostly-ignored",
    ]
    assert codes(LabelTable(("x", "y"), {0: 0, 255: 1}, ignore=())) == []
    assert [f.kind.code for f in label_map_sets.one_class(LabelTable(("x",)), labels)] == [
        "label-map-of-one-class"
    ]
    assert label_map_sets.one_class(LabelTable(("x", "y")), labels) == []


def test_nothing_to_look_at():
    table = LabelTable(("x", "y"))
    summary, (finding,) = examine([], "a name", table)
    assert (summary, finding.kind.code) == (None, "label-map-folder-without-files")
    with pytest.raises(InputError, match="no image and label map are left"):
        check_pairs([], "a name", table)
