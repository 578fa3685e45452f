"""The shapes set against its own two layouts, read with tools that did not write it."""

import colorsys
import hashlib
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from swin_dense.datasets import shapes
from swin_dense.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SIZE = (96, 136)
# draw(0, "train", 1, (160, 208)): class indices, pixels of background and objects, mean colour
KINDS_0_1 = [2, 1, 3, 2, 2]
COUNTS_0_1 = [12221, 9151, 9250, 1386, 912, 360]
MEAN_0_1 = 130.35


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return shapes.write(tmp_path_factory.mktemp("shapes"), seed=3, train=24, val=8, size=SIZE)


@pytest.fixture(scope="module")
def coco(written):
    return COCO(written.annotation_file("train"))


def digest(folder):
    content = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return content.hexdigest()


def test_both_layouts_show_the_same_objects(written, coco):
    index_of = {c["id"]: 1 + shapes.CLASSES.index(c["name"]) for c in coco.dataset["categories"]}
    assert len(coco.imgs) == 24
    for image in coco.dataset["images"]:
        picture = np.asarray(Image.open(written.image_dir("train") / image["file_name"]))
        labels = np.asarray(Image.open(written.label_dir("train") / image["file_name"]))
        assert picture.shape == (*SIZE, 3) == (image["height"], image["width"], 3)
        expected = np.zeros(SIZE, np.uint8)
        for entry in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(entry).astype(bool)
            assert not expected[mask].any(), "two visible masks share a pixel"
            expected[mask] = index_of[entry["category_id"]]
        np.testing.assert_array_equal(labels, expected)


def test_box_and_area_belong_to_the_mask(coco):
    for entry in coco.dataset["annotations"]:
        ys, xs = np.nonzero(coco.annToMask(entry))
        box = [min(xs), min(ys), max(xs) + 1 - min(xs), max(ys) + 1 - min(ys)]
        assert entry["bbox"] == box
        assert entry["area"] == len(xs) >= shapes.MIN_PIXELS
        assert entry["iscrowd"] == 0
    ids = [entry["id"] for entry in coco.dataset["annotations"]]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0


def test_classes_file_and_ids(written, coco):
    lines = written.classes_file.read_text().splitlines()
    assert lines == ["background", "circle", "square", "triangle", "star", "ring", "cross"]
    ids = [category["id"] for category in coco.dataset["categories"]]
    assert ids != list(range(min(ids), min(ids) + 6))
    assert 0 not in ids
    assert len(shapes.PALETTE) == len(shapes.CLASSES) == len(set(shapes.PALETTE))


def test_every_class_every_size_and_occlusion():
    seen, areas, hidden = set(), [], 0
    for index in range(60):
        _, owner, kinds = shapes.draw(0, "train", index, (160, 208))
        for position, kind in enumerate(kinds, start=1):
            mask = owner == position
            seen.add(shapes.CLASSES[kind])
            areas.append(mask.sum())
            if shapes.CLASSES[kind] == "circle":  # a hidden part makes it less than its box
                ys, xs = np.nonzero(mask)
                full = np.pi / 4 * (np.ptp(xs) + 1) * (np.ptp(ys) + 1)
                hidden += mask.sum() < 0.9 * full
    assert seen == set(shapes.CLASSES)
    small, large = sum(a < 32**2 for a in areas), sum(a >= 96**2 for a in areas)
    assert small > 0.2 * len(areas)
    assert large >= 3
    assert len(areas) - small - large > 0.2 * len(areas)
    assert hidden >= 5


@pytest.mark.parametrize(
    ("name", "fill"),  # area over the area of the smallest circle around the centre
    [
        ("circle", 1.0),
        ("square", 2 / np.pi),
        ("triangle", 3 * np.sqrt(3) / 4 / np.pi),
    ],
)
def test_outline_is_the_shape(name, fill):
    distance, area, reach = shapes._outline(np.random.default_rng(0), shapes.CLASSES.index(name))
    y, x = np.mgrid[-1.5:1.5:1501j, -1.5:1.5:1501j]
    inside = distance(x, y) < 0
    measured = inside.mean() * 9
    assert measured == pytest.approx(area, rel=0.01) == pytest.approx(np.pi * fill, rel=0.01)
    assert np.hypot(x, y)[inside].max() == pytest.approx(reach, abs=0.01)


@pytest.mark.parametrize("kind", range(len(shapes.CLASSES)))
def test_area_and_reach_of_every_outline(kind):
    distance, area, reach = shapes._outline(np.random.default_rng(5), kind)
    y, x = np.mgrid[-1.5:1.5:1501j, -1.5:1.5:1501j]
    inside = distance(x, y) < 0
    assert inside.mean() * 9 == pytest.approx(area, rel=0.01)
    assert np.hypot(x, y)[inside].max() == pytest.approx(reach, abs=0.01)
    assert inside[750, 750] == (shapes.CLASSES[kind] != "ring")  # only the ring has a hole


def test_same_seed_same_bytes_in_another_process(written, tmp_path):
    code = (
        "import sys; from swin_dense.datasets import shapes; "
        "shapes.write(sys.argv[1], seed=3, train=24, val=8, size=(96, 136))"
    )
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = os.environ | {"PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert digest(tmp_path / written.root.name) == digest(written.root)


def test_pixels_are_still_those_of_version_1():
    """A change here means other data for everyone: raise shapes.VERSION with it."""
    picture, owner, kinds = shapes.draw(0, "train", 1, (160, 208))
    assert kinds.tolist() == KINDS_0_1
    counts = [int((owner == k).sum()) for k in range(len(kinds) + 1)]
    assert counts == pytest.approx(COUNTS_0_1, abs=2)  # an edge may fall otherwise elsewhere
    assert picture.mean() == pytest.approx(MEAN_0_1, abs=0.5)


def test_streams_differ_and_do_not_depend_on_the_number():
    draws = {
        (seed, split, index): shapes.draw(seed, split, index, SIZE)[0]
        for seed, split, index in itertools.product((0, 1), ("train", "val"), (1, 2))
    }
    for first, second in itertools.combinations(draws.values(), 2):
        assert (first != second).mean() > 0.5


def test_a_larger_set_begins_with_the_smaller(written, tmp_path):
    other = shapes.write(tmp_path, seed=3, train=2, val=1, size=SIZE)
    for name in ("000001.png", "000002.png"):
        first, second = (s.image_dir("train") / name for s in (written, other))
        assert first.read_bytes() == second.read_bytes()


def test_found_again_by_its_stamp(written, tmp_path):
    before = written.classes_file.stat().st_mtime_ns
    again = shapes.write(written.root.parent, seed=3, train=24, val=8, size=SIZE)
    assert again == written
    assert written.classes_file.stat().st_mtime_ns == before
    other = shapes.write(written.root.parent, seed=4, train=1, val=1, size=SIZE)
    assert other.root != written.root
    assert other.root.parent == written.root.parent


def test_foreign_folder_is_left_alone(tmp_path):
    target = tmp_path / shapes.write(tmp_path, train=1, val=1, size=SIZE).root.name
    (target / "shapes.json").write_text(json.dumps({"version": 0}))
    with pytest.raises(InputError, match=r"shapes\.json does not say.*Remove or rename"):
        shapes.write(tmp_path, train=1, val=1, size=SIZE)


def test_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "_annotate", stop)
    with pytest.raises(KeyboardInterrupt):
        shapes.write(tmp_path, train=1, val=1, size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (32, 200)}, r"at least 64 pixels each, got \(32, 200\)"),
        ({"train": 0}, "train=0, val=100, seed=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_parameters_that_make_no_set(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        shapes.write(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_colour_is_a_hint_not_the_answer():
    """About nineteen of twenty objects have the hue of their class: a sixth of the circle."""
    usual = total = 0
    for index in range(60):
        picture, owner, kinds = shapes.draw(0, "train", index, (160, 208))
        for position, kind in enumerate(kinds, start=1):
            red, green, blue = (picture[owner == position][:, c].mean() / 255 for c in range(3))
            hue, rich, _ = colorsys.rgb_to_hsv(red, green, blue)
            if rich < 0.2:
                continue
            away = abs((hue - kind / len(shapes.CLASSES) + 0.5) % 1 - 0.5)
            usual += away < 0.5 / len(shapes.CLASSES)
            total += 1
    assert total > 150
    assert 0.87 < usual / total < 0.99
