"""What the doctor finds: faults planted one by one in a small set, each told by its code."""

import copy
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from swin_dense.datasets import findings, mended
from swin_dense.datasets.coco_file import open_coco
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings import config as configs
from swin_dense.openmmlab.settings import examination, places

TRAIN, VAL = "annotations/instances_train.json", "annotations/instances_val.json"


@pytest.fixture(scope="module")
def loaded():
    return {
        name: configs.load(f"{name}_swin_nano", say=lambda line: None)
        for name in ("mask_rcnn", "upernet")
    }


@pytest.fixture
def root(small_shapes, tmp_path):
    """The built-in shapes to spoil."""
    place = tmp_path / "set"
    shutil.copytree(small_shapes.root, place)
    return place


def codes(loaded, root, name="mask_rcnn", **arguments):
    config = copy.deepcopy(loaded[name])
    found = examination.examine(config, data_root=str(root), **arguments)
    assert all(f.what and f.kind.rule and f.kind.why for f in found)
    return {f.kind.code: f for f in found}


def in_json(edit, file=TRAIN):
    """A fault of the annotations: `edit` changes what the file holds."""

    def plant(root):
        content = json.loads((root / file).read_text())
        content = edit(content) or content
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (root / file).write_bytes(data)

    return plant


def each(**values):
    """Change a field in each object: to a value, or to what a function makes of the object."""

    def edit(content):
        for row in content["annotations"]:
            row.update({k: v(row) if callable(v) else v for k, v in values.items()})

    return edit


def one(**values):
    def edit(content):
        row = content["annotations"][0]
        row.update({k: v(row) if callable(v) else v for k, v in values.items()})

    return edit


def image(**values):
    def edit(content):
        entry = content["images"][0]
        entry.update({k: v(entry) if callable(v) else v for k, v in values.items()})

    return edit


def runs(change):
    """Replace the mask of an object by run lengths that `change` spoils."""

    def edit(content):
        sizes = {i["id"]: [i["height"], i["width"]] for i in content["images"]}
        row = content["annotations"][0]
        size = sizes[row["image_id"]]
        row["segmentation"] = change({"size": size, "counts": [40, 5, size[0] * size[1] - 45]})

    return edit


def first_image(root, split="train"):
    return sorted((root / "images" / split).iterdir())[0]


def on_image(change):
    """A fault of an image file: `change` gets its path and the picture."""

    def plant(root):
        path = first_image(root)
        change(path, Image.open(path).convert("RGB"))

    return plant


def turned(path, picture):
    exif = Image.Exif()
    exif[0x112] = 3
    picture.save(path, exif=exif)


def cut_off(path, picture):
    path.write_bytes(path.read_bytes()[:-200])


def transparent(path, picture):
    picture.putalpha(128)
    picture.save(path)


def two_frames(path, picture):
    picture.save(path, format="TIFF", save_all=True, append_images=[picture.transpose(0)])


def to_val(path, picture):
    other = sorted((path.parents[1] / "val").iterdir())[0]
    other.write_bytes(path.read_bytes())


def mark(content):
    return b"\xef\xbb\xbf" + json.dumps(content).encode()


def renamed(change):
    def plant(root):
        path = first_image(root)
        name = change(path)
        in_json(image(file_name=name))(root)

    return plant


def upper(path):
    path.rename(path.with_suffix(".PNG"))
    return path.name


def strip(root):
    path = first_image(root)
    Image.new("RGB", (1900, 2)).save(path)
    content = json.loads((root / TRAIN).read_text())
    number = content["images"][0]["id"]
    content["images"][0].update(width=1900, height=2)
    rows = [r for r in content["annotations"] if r["image_id"] != number]
    (root / TRAIN).write_text(json.dumps(content | {"annotations": rows}))


FAULTS = {
    "file-not-json": in_json(lambda c: json.dumps(c).encode()[:-9]),
    "file-of-other-format": in_json(lambda c: b"[]"),
    "categories-unusable": in_json(lambda c: c | {"categories": []}),
    "byte-order-mark": in_json(mark),
    "entry-not-object": in_json(lambda c: c["annotations"].append(3)),
    "field-absent": in_json(lambda c: c["annotations"][0].pop("bbox") and None),
    "field-wrong": in_json(one(bbox=[1, 2, 3])),
    "id-with-fraction": in_json(each(image_id=lambda r: float(r["image_id"]))),
    "id-types-differ": in_json(each(image_id=lambda r: str(r["image_id"]))),
    "area-absent": in_json(lambda c: c["annotations"][0].pop("area") and None),
    "iscrowd-absent": in_json(lambda c: c["annotations"][0].pop("iscrowd", None) and None),
    "counts-bytes-literal": in_json(runs(lambda m: m | {"counts": f"b'{compressed(m)}'"})),
    "polygon-part-short": in_json(
        one(segmentation=lambda r: [[1, 1, 2, 2], box_as_polygon(r["bbox"])])
    ),
    "image-id-twice": in_json(lambda c: c["images"].append(dict(c["images"][0], file_name="x"))),
    "annotation-id-twice": in_json(each(id=1)),
    "image-id-unknown": in_json(one(image_id=987654)),
    "category-id-unknown": in_json(one(category_id=987654)),
    "boxes-normalised": in_json(each(bbox=lambda r: [0.1, 0.1, 0.2, 0.2])),
    "boxes-look-like-corners": in_json(each(bbox=lambda r: corners(r["bbox"]))),
    "most-boxes-left-out": in_json(each(bbox=lambda r: [*r["bbox"][:2], 0, 0])),
    "box-empty": in_json(one(bbox=lambda r: [*r["bbox"][:2], 0, 9])),
    "box-single-pixel": in_json(one(bbox=lambda r: [*r["bbox"][:2], 1, 1])),
    "box-outside-image": in_json(one(bbox=[5000, 5000, 9, 9])),
    "area-not-positive": in_json(one(area=0)),
    "annotation-ignored": in_json(one(ignore=1)),
    "mask-size-differs": in_json(runs(lambda m: m | {"size": m["size"][::-1]})),
    "mask-unusable": in_json(one(segmentation=[])),
    "run-lengths-too-long": in_json(runs(lambda m: m | {"counts": [9, *m["counts"]]})),
    "run-lengths-too-short": in_json(runs(lambda m: m | {"counts": m["counts"][:2]})),
    "images-none": in_json(lambda c: c | {"images": [], "annotations": []}),
    "image-absent": lambda root: first_image(root).unlink(),
    "file-name-backslash": in_json(image(file_name=lambda e: "img\\" + e["file_name"])),
    "file-name-suffix-case": renamed(upper),
    "image-listed-twice": in_json(
        lambda c: c["images"].append(dict(c["images"][0], id=55555)) and None
    ),
    "image-not-listed": lambda root: Image.new("RGB", (9, 9)).save(root / "images/train/more.png"),
    "class-without-object": in_json(lambda c: c["categories"].append({"id": 77, "name": "new"})),
    "nothing-to-train-on": in_json(lambda c: c | {"annotations": []}),
    "class-absent-from-split": in_json(
        lambda c: c | dict(zip(("categories", "annotations"), without_last(c), strict=True)), VAL
    ),
    "image-unreadable": on_image(cut_off),
    "image-size-differs": on_image(lambda path, p: p.resize((77, 33)).save(path)),
    "image-turned": on_image(turned),
    "image-16-bit": on_image(
        lambda path, p: Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16)).save(path)
    ),
    "image-palette": on_image(lambda path, p: p.quantize(9).save(path)),
    "image-transparent": on_image(transparent),
    "image-cmyk": on_image(lambda path, p: p.convert("CMYK").save(path, format="TIFF")),
    "image-of-several-frames": on_image(two_frames),
    "image-suffix-of-another-kind": on_image(lambda path, p: p.save(path, format="BMP")),
    "images-equal-across-splits": on_image(to_val),
    "image-scaled-away": strip,
}


def compressed(mask):
    from pycocotools import mask as rle

    return rle.frPyObjects(mask, *mask["size"])["counts"].decode()


def box_as_polygon(box):
    left, top, width, height = box
    right, bottom = left + width, top + height
    return [left, top, right, top, right, bottom, left, bottom]


def corners(box):
    left, top, width, height = box
    return [left, top, left + width, top + height]


def without_last(content):
    *kept, last = content["categories"]
    return kept, [r for r in content["annotations"] if r["category_id"] != last["id"]]


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_is_found_by_its_code(loaded, root, code):
    FAULTS[code](root)
    found = codes(loaded, root)
    assert code in found, sorted(found)
    assert found[code].severity == findings.KINDS[code].severity


def test_a_good_set_gives_notes_alone(loaded, root):
    assert {f.severity for f in codes(loaded, root).values()} <= {"info"}
    assert {f.severity for f in codes(loaded, root, "upernet").values()} <= {"info"}


def test_every_split_is_looked_at_though_the_first_is_wrong(loaded, root):
    FAULTS["file-not-json"](root)
    in_json(one(image_id=987654), VAL)(root)
    assert {"file-not-json", "image-id-unknown"} <= codes(loaded, root).keys()


def test_names_of_label_maps_that_are_given_are_taken(loaded, root):
    names = root / "classes.txt"
    other = names.rename(root / "names.txt")
    assert {f.severity for f in codes(loaded, root, "upernet", classes=str(other)).values()} <= {
        "info"
    }


def test_a_folder_that_a_run_divides_has_no_image_in_both_splits(loaded, root):
    config = copy.deepcopy(loaded["upernet"])
    names = [path.stem for path in sorted((root / "images/train").iterdir())]
    for split, part in (("train", names[:6]), ("val", names[6:])):
        (root / f"{split}.txt").write_text("\n".join(part))
        config[f"{split}_dataloader"].dataset.update(
            data_root=str(root),
            data_prefix=dict(img_path="images/train", seg_map_path="label_maps/train"),
            ann_file=f"{split}.txt",
        )
    assert "images-equal-across-splits" not in {f.kind.code for f in examination.examine(config)}


def test_label_maps_that_cannot_be_read(loaded, root):
    folder = next(p for p in (root / "label_maps", root / "annotations") if (p / "val").is_dir())
    path = sorted((folder / "val").iterdir())[0]
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 77)).save(path)
    (only,) = [f for f in codes(loaded, root, "upernet").values() if f.severity == "error"]
    assert "77" in only.what


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c.model.rpn_head.anchor_generator.update(scales=[900]), "anchors-do-not-fit"),
        (lambda c: c.model.test_cfg.rcnn.update(max_per_img=1), "detections-too-few"),
        (lambda c: c.model.update(num_queries=1), "queries-too-few"),
        (
            lambda c: (
                c.train_dataloader.update(batch_size=1),
                c.model.neck.update(norm_cfg=dict(type="BN")),
            ),
            "batch-norm-of-one-image",
        ),
    ],
)
def test_what_does_not_fit_the_objects(loaded, root, change, code):
    config = copy.deepcopy(loaded["mask_rcnn"])
    change(config)
    found = {f.kind.code: f for f in examination.examine(config, data_root=str(root))}
    assert code in found, sorted(found)


def test_objects_too_small_for_the_scale(loaded, root):
    assert "objects-below-two-pixels" in codes(loaded, root, scale=(8, 8))


def test_a_repaired_copy(loaded, root, tmp_path):
    for code in ("id-types-differ", "file-name-suffix-case", "byte-order-mark"):  # the last stays
        FAULTS[code](root)
    before = (root / TRAIN).read_bytes()
    config = copy.deepcopy(loaded["mask_rcnn"])
    places.find_data(config, ("train", "val"), str(root), None)
    out = tmp_path / "mended"
    mended.write(places.files_of(config, ("train", "val")), out)
    assert (root / TRAIN).read_bytes() == before
    there = codes(loaded, out)
    assert not there.keys() & {"byte-order-mark", "id-types-differ", "file-name-suffix-case"}
    assert {f.severity for f in there.values()} <= {"info"}
    old, new = open_coco(root / TRAIN), open_coco(out / TRAIN)
    np.testing.assert_array_equal(old.box, new.box)
    changes = json.loads((out / "changes.json").read_text())
    assert "byte-order-mark" in {row["code"] for row in changes["train"]["found"]}
    with pytest.raises(InputError, match="empty folder"):
        mended.write(places.files_of(config, ("train",)), out)


def test_a_repaired_copy_of_label_maps(tmp_path):
    root = tmp_path / "set"
    for split, names in (("train", "abc"), ("val", "de")):
        for place in ("images", "label_maps"):
            (root / place / split).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (40, 33), (9, 80, ord(name))).save(root / f"images/{split}/{name}.jpg")
            raw = np.zeros((33, 40), np.uint8)
            raw[5:9] = 255
            channels = np.stack([raw] * 3, 2) if name in "bd" else raw
            Image.fromarray(channels).save(root / f"label_maps/{split}/{name}.png")
    (root / "classes.txt").write_text("ground\nroad\n")
    config = configs.load("configs/upernet_swin_nano.py", None, lambda line: None)
    found = {f.kind.code for f in examination.examine(config, data_root=str(root))}
    assert found >= {"label-map-of-colours", "label-values-0-and-255"}
    lines = examination.mend(config, ("train", "val"), tmp_path / "out")
    assert "3 of 3 changed" in lines[0]
    again = configs.load("configs/upernet_swin_nano.py", None, lambda line: None)
    found = examination.examine(again, data_root=str(tmp_path / "out"))
    assert not [f.text for f in found if f.severity == "error"]
    values = np.unique(np.array(Image.open(tmp_path / "out/label_maps/train/b.png")))
    assert values.tolist() == [0, 1]
    changes = json.loads((tmp_path / "out/changes.json").read_text())
    assert changes["train"]["changed"]["b.png"] == [
        "one of three equal channels is kept",
        "255 became 1",
    ]


def test_a_repaired_copy_keeps_what_is_ignored(tmp_path):
    root = tmp_path / "set"
    for split in ("train", "val"):
        for place in ("images", "label_maps"):
            (root / place / split).mkdir(parents=True)
        Image.new("RGB", (40, 33), (9, 80, len(split))).save(root / f"images/{split}/a.jpg")
        raw = np.tile(np.arange(4, dtype=np.uint8), (33, 10))
        Image.fromarray(np.stack([raw] * 3, 2)).save(root / f"label_maps/{split}/a.png")
    (root / "classes.txt").write_text("(other)\nground\nroad\n(void)\n")
    for data in (root, tmp_path / "out"):
        config = configs.load("configs/upernet_swin_nano.py", None, lambda line: None)
        found = examination.examine(config, data_root=str(data))
        if data == root:
            assert "label-map-of-colours" in {f.kind.code for f in found}
            examination.mend(config, ("train", "val"), tmp_path / "out")
    assert not [f.text for f in found if f.severity == "error"]
    assert (tmp_path / "out/classes.txt").read_text() == "(ignored)\nground\nroad\n(ignored)\n"
