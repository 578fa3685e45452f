"""Label maps of every depth, tables of every kind, and the mistakes people make with them."""

import io
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from swin_dense.datasets.label_maps import (
    LabelTable,
    pair_files,
    read_classes_file,
    read_label_map,
)
from swin_dense.errors import InputError, MissingInputError

RAW = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.uint8)


def grey_png(raw, bits):
    """A grey PNG of 1, 2, 4, 8 or 16 bits per pixel, put together by hand."""
    rows = b""
    for row in raw:
        digits = "".join(format(value, f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    sides = struct.pack(">IIBBBBB", raw.shape[1], raw.shape[0], bits, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + sides, b"IDAT" + zlib.compress(rows), b"IEND"):
        data += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_every_depth(tmp_path, bits):
    top = 2**bits - 1
    raw = np.random.default_rng(bits).integers(0, top + 1, (5, 7))
    raw[0, :2] = 0, top
    path = tmp_path / "label.png"
    path.write_bytes(grey_png(raw, bits))
    out = read_label_map(path)
    assert out.dtype == np.int32
    np.testing.assert_array_equal(out, raw)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bits_are_kept(tmp_path, suffix):
    raw = np.array([[0, 255, 256], [1000, 40000, 65535]], np.uint16)
    path = tmp_path / f"label{suffix}"
    cv2.imwrite(str(path), raw)
    np.testing.assert_array_equal(read_label_map(path), raw)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_numbers_not_colours(tmp_path, bits):
    raw = np.minimum(RAW, 2**bits - 1)
    image = Image.fromarray(raw, "P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 90, 90, 90][: 3 * min(2**bits, 4)])
    path = tmp_path / "label.png"
    image.save(path, bits=bits)
    np.testing.assert_array_equal(read_label_map(path), raw)


def stored(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (stored(np.dstack([RAW, RAW * 9, RAW])), r"got RGB, 3 channel.*Convert colours to class"),
        (stored(np.dstack([RAW] * 3)), r"All channels are equal: keep one"),
        (stored(np.dstack([RAW] * 4)), r"got RGBA, 4 channel"),
        (stored(RAW, "JPEG"), "stored without loss, JPEG changes the numbers"),
        (stored(RAW.astype(np.float32), "TIFF"), "one channel of whole numbers, got F"),
        (stored(RAW)[:-30], "cut off or damaged"),
        (b"", "no image, cut off or damaged"),
        (b"0 1 2 3", "no image, cut off or damaged"),
    ],
)
def test_files_that_are_no_label_map(tmp_path, data, message):
    path = tmp_path / "label.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"label\.png: .*{message}"):
        read_label_map(path)


def test_absent_label_map(tmp_path):
    with pytest.raises(MissingInputError, match="label map does not exist"):
        read_label_map(tmp_path / "label.png")


@pytest.mark.parametrize(
    ("table", "raw", "expected"),
    [
        (LabelTable(("a", "b", "c")), [0, 1, 2, 255], [0, 1, 2, 255]),
        (LabelTable(("a", "b"), first_value=1, ignore=(0,)), [0, 1, 2], [255, 0, 1]),
        (LabelTable(("a", "b"), {0: 0, 255: 1}, ignore=()), [255, 0, 255], [1, 0, 1]),
        (LabelTable(("a", "b"), {7: 0, 40000: 1, 9: 1}), [7, 9, 40000, 255], [0, 1, 1, 255]),
        (LabelTable(tuple(map(str, range(255)))), [0, 254, 255], [0, 254, 255]),
        (LabelTable(tuple(map(str, range(255))), first_value=1, ignore=(0,)), [255, 0], [254, 255]),
    ],
)
def test_lookup(table, raw, expected):
    out = table.lookup(np.array([raw], np.int32))
    assert out.dtype == np.uint8
    assert out.tolist() == [expected]


def test_table_survives_a_worker_process():
    table = LabelTable(("a", "b"), {0: 0, 255: 1}, ignore=())
    table.lookup(RAW * 0)
    assert pickle.loads(pickle.dumps(table)) == table


@pytest.mark.parametrize(
    ("table", "raw", "message"),
    [
        (LabelTable(("a", "b")), [0, 255, 7, 7], r"x\.png: .*not in the table: 7 \(2 pixels\)"),
        (LabelTable(("a", "b")), [0, 1, 2], r"2 classes with values 0 to 1, ignored: \[255\]"),
        (LabelTable(("a", "b")), [1, 2], r"look like 1 to 2: say first_value=1"),
        (LabelTable(("a", "b")), [0, 1, 2], r"say first_value=1, ignore=\(0,\); if 2 is a class"),
        (
            LabelTable(("a", "b"), first_value=1),
            [0, 1, 2],
            r"ignore=\(0,\); if it is the first class",
        ),
        (LabelTable(("a", "b"), ignore=()), [0, 255], r"values=\{0: 0, 255: 1\}, ignore=\(\)"),
        (
            LabelTable(("a", "b")),
            [0, 1, 50000],
            r"50000 \(1 pixels\).*map the values with `values`",
        ),
        (LabelTable(("a", "b")), [0, 1, -1], r"-1 \(1 pixels\)"),
        (LabelTable(("a", "b")), list(range(20)), r"9 \(1 pixels\) and 10 more values"),
    ],
)
def test_values_outside_the_table(table, raw, message):
    with pytest.raises(InputError, match=message):
        table.lookup(np.array([raw], np.int32), "x.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": ()}, r"tuple of class names is needed, got \(\)"),
        ({"classes": "cat"}, "got 'cat'"),
        ({"classes": ("a", "b", "a")}, r"\['a'\] come twice"),
        ({"classes": tuple(map(str, range(256)))}, "at most 255 classes.*got 256"),
        ({"classes": ("a", "b"), "values": {0: 0, 1: 2}}, r"0 to 1, got \{1: 2\}"),
        ({"classes": ("a", "b"), "values": {0: 0, 1: -1}}, r"put it in `ignore`"),
        ({"classes": ("a", "b"), "values": {0: 0}}, r"classes \['b'\] have no raw value"),
        ({"classes": ("a",), "ignore": (0,)}, r"\[0\] are both a class and ignored"),
        ({"classes": ("a",), "values": {3: 0}, "first_value": 1}, "first_value=1 would be unused"),
        ({"classes": tuple(map(str, range(255))), "first_value": 1}, r"\[255\] are both"),
    ],
)
def test_tables_that_contradict_themselves(arguments, message):
    with pytest.raises(InputError, match=message):
        LabelTable(**arguments)


def test_table_as_text():
    table = LabelTable(("road", "sky"), first_value=1, ignore=(0, 255))
    rows = [line.split() for line in table.describe().splitlines()[1:]]
    assert rows == [
        ["0", "255", "(ignored)"],
        ["1", "0", "road"],
        ["2", "1", "sky"],
        ["255", "255", "(ignored)"],
    ]


def test_classes_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeff# my classes\nroad\n\n traffic light \r\nsky\n".encode())
    assert read_classes_file(path).classes == ("road", "traffic light", "sky")
    path.write_bytes("stra\u00dfe\n".encode("latin-1"))
    with pytest.raises(InputError, match="must be UTF-8 text"):
        read_classes_file(path)
    path.write_text("# nothing\n")
    with pytest.raises(InputError, match=r"classes\.txt: no class name"):
        read_classes_file(path)
    with pytest.raises(MissingInputError, match="file of class names does not exist"):
        read_classes_file(tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("text", "first_value", "ignored"),
    [
        ("sky\nroad\n", 0, (255,)),
        ("sky\nroad\n(void)\n(border)\n", 0, (2, 3, 255)),
        ("(other)\nsky\nroad\n", 1, (0, 255)),
        ("(other)\n# a comment\nsky\n\nroad\n(void)\n", 1, (0, 3, 255)),
    ],
)
def test_names_in_parentheses_are_ignored_values(tmp_path, text, first_value, ignored):
    (tmp_path / "classes.txt").write_text(text)
    table = read_classes_file(tmp_path / "classes.txt")
    assert table == LabelTable(("sky", "road"), first_value=first_value, ignore=ignored)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sky\n(void)\nroad\n", r"\(void\) stands between classes"),
        ("sky\nroad\nsky\n", r"\['sky'\] named more than once"),
        ("(void)\n", "no class name"),
    ],
)
def test_a_file_of_names_that_is_none(tmp_path, text, says):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        read_classes_file(tmp_path / "classes.txt")


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


def test_pairs(folders):
    images, labels = folders(
        {"town/b_photo.png": RAW, "a_photo.png": RAW}, {"a_ids.png": RAW, "town/b_ids.png": RAW}
    )
    pairs = pair_files(images, labels, "_photo.png", "_ids.png")
    assert pairs == [
        (images / "a_photo.png", labels / "a_ids.png"),
        (images / "town/b_photo.png", labels / "town/b_ids.png"),
    ]


def test_pairs_in_one_folder(folders):
    images, _ = folders({"a.jpg": RAW, "a.png": RAW, "b.JPG": RAW, "b.png": RAW}, {})
    assert [(i.name, m.name) for i, m in pair_files(images, images)] == [
        ("a.jpg", "a.png"),
        ("b.JPG", "b.png"),
    ]


def test_files_without_partner(folders):
    names = [f"{i}.jpg" for i in range(6)]
    images, labels = folders(dict.fromkeys(names, RAW), {"0.png": RAW, "9.png": RAW})
    with pytest.raises(InputError) as caught:
        pair_files(images, labels)
    assert "5 of 6 images have no label map: 1.jpg, 2.jpg, 3.jpg and 2 more" in str(caught.value)
    assert "1 of 2 label maps have no image: 9.png" in str(caught.value)
    with pytest.raises(InputError, match=r"no file ends with _ids\.png; it has 0\.png, 9\.png"):
        pair_files(images, labels, label_suffix="_ids.png")
    with pytest.raises(InputError, match=r"no file ends with \('\.bmp',\)"):
        pair_files(images, labels, ".bmp")
    folders({"1.png": RAW}, {})
    with pytest.raises(InputError, match=r"have the same name up to the suffix"):
        pair_files(images, labels)
    with pytest.raises(MissingInputError, match=r"Did you mean 'labels'"):
        pair_files(images, labels.with_name("label"))
