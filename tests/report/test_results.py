"""Results of one image: rows, JSON, COCO's formats and pictures, on arrays counted by hand."""

import contextlib
import io
import json
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from peers import peer
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swin_dense.datasets.colours import palette
from swin_dense.errors import InputError
from swin_dense.report.masks import Masks
from swin_dense.report.results import Instances, LabelMap, Segment, Segments

CLASSES = ("cat", "dog", "sea")
IDS = {"sea": 90, "dog": 18, "cat": 17, "car": 3}
IMAGE = np.full((3, 4, 3), 100, np.uint8)


def instances(masks=True):
    """A dog and a less sure cat in an image of 3 rows and 4 columns."""
    found = np.zeros((2, 3, 4), bool)
    found[0, 0:2, 1:3] = True
    found[1, 2, 0] = True
    return Instances(
        image=IMAGE,
        classes=CLASSES,
        boxes=np.array([[1, 0, 3.126, 2], [0, 2, 1, 3]], np.float32),
        scores=np.array([0.87654, 0.5], np.float32),
        labels=np.array([1, 0]),
        masks=Masks.of(found) if masks else None,
    )


LABELS = LabelMap(
    image=IMAGE, classes=CLASSES, labels=np.array([[2, 2, 2, 0], [0, 2, 2, 0], [0, 0, 0, 0]])
)
SEGMENTS = Segments(
    image=IMAGE,
    classes=CLASSES,
    ids=np.array([[1, 1, 1, 1], [1, 300, 0, 1], [70000, 70000, 0, 0]]),
    rows=(
        Segment(1, "sea", 2, False, 0.91236, 6),
        Segment(70000, "cat", 0, True, 0.5, 2),
        Segment(300, "cat", 0, True, 0.75, 1),
    ),
)
# Down the columns, numbers of 0, 1, 0, ... in turn; COCO writes a number n < 16 as chr(48 + n),
# and from the third on the difference from the one two before: 3 2 1 2 4 -> 3, 2, 1, 0, 3.
DOG = {"size": [3, 4], "counts": "32103"}
CAT = {"size": [3, 4], "counts": "219"}


def test_instances_as_rows():
    found = instances()
    assert (len(found), found.size, found.names) == (2, (3, 4), ("dog", "cat"))
    dog, cat = found
    assert (dog.name, dog.label, dog.score) == ("dog", 1, pytest.approx(0.87654))
    assert dog.box.tolist() == [1, 0, pytest.approx(3.126), 2]
    assert cat.mask.sum() == 1
    assert next(iter(instances(masks=False))).mask is None
    assert repr(found) == "<Instances of 4x3 pixels: 1 dog, 1 cat>"
    with pytest.raises(AttributeError):
        found.boxes = None


def test_instances_as_json():
    expected = {
        "height": 3,
        "width": 4,
        "instances": [
            {"class": "dog", "score": 0.8765, "box": [1.0, 0.0, 3.13, 2.0], "mask": DOG},
            {"class": "cat", "score": 0.5, "box": [0.0, 2.0, 1.0, 3.0], "mask": CAT},
        ],
    }
    assert json.dumps(instances().to_json()) == json.dumps(expected)  # in this order, too
    for row in expected["instances"]:
        del row["mask"]
    assert instances(masks=False).to_json() == expected


def test_instances_in_coco_format():
    dog, cat = instances().to_coco(image_id=5, category_ids=IDS)
    assert dog == {
        "image_id": 5,
        "category_id": 18,
        "bbox": pytest.approx([1, 0, 2.126, 2], rel=1e-6),
        "score": pytest.approx(0.87654),
        "segmentation": DOG,
    }
    assert (cat["category_id"], cat["bbox"], cat["segmentation"]) == (17, [0, 2, 1, 1], CAT)
    assert "segmentation" not in instances(masks=False).to_coco(5, IDS)[0]
    assert json.dumps([dog, cat])


def evaluated(truth, results, kind):
    """AP by pycocotools."""
    coco = COCO()
    coco.dataset = truth
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge.stats[0]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_coco_s_own_evaluation_reads_the_results(kind):
    """Results that are the annotations have an AP of 1; with the classes swapped it is 0."""
    whole = Instances(
        image=IMAGE,
        classes=CLASSES,
        boxes=np.array([[1, 0, 3, 2], [0, 2, 1, 3]], np.float32),
        scores=np.array([0.9, 0.4], np.float32),
        labels=np.array([1, 0]),
        masks=instances().masks,
    )
    rows = [
        {"id": 1, "category_id": 18, "bbox": [1, 0, 2, 2], "area": 4, "segmentation": DOG},
        {"id": 2, "category_id": 17, "bbox": [0, 2, 1, 1], "area": 1, "segmentation": CAT},
    ]
    truth = {
        "info": {},
        "images": [{"id": 5, "height": 3, "width": 4}],
        "categories": [{"id": number, "name": name} for name, number in IDS.items()],
        "annotations": [{**row, "image_id": 5, "iscrowd": 0} for row in rows],
    }
    assert evaluated(truth, whole.to_coco(5, IDS), kind) == pytest.approx(1)
    assert evaluated(truth, whole.to_coco(5, IDS | {"cat": 18, "dog": 17}), kind) == 0


def test_a_label_map_as_rows_json_and_coco_s_stuff():
    assert list(LABELS) == [("cat", 0, 7), ("sea", 2, 5)]
    assert len(LABELS) == 2
    assert repr(LABELS) == "<LabelMap of 4x3 pixels: cat, sea>"
    expected = {
        "height": 3,
        "width": 4,
        "classes": {"cat": 7, "sea": 5},
        "label_map": {"values": [2, 0, 2, 0], "lengths": [3, 2, 2, 5]},
    }
    assert json.dumps(LABELS.to_json()) == json.dumps(expected)
    rows = LABELS.to_coco("abc", IDS)
    assert [(row["image_id"], row["category_id"]) for row in rows] == [("abc", 17), ("abc", 90)]
    decoded = coco_mask.decode([row["segmentation"] for row in rows]).astype(bool)
    assert np.array_equal(decoded[..., 0], LABELS.labels == 0)
    assert np.array_equal(decoded[..., 1], LABELS.labels == 2)


def test_run_lengths_restore_the_map():
    runs = LABELS.to_json()["label_map"]
    restored = np.repeat(runs["values"], runs["lengths"]).reshape(3, 4)
    assert np.array_equal(restored, LABELS.labels)


def test_segments_as_rows_json_and_coco_s_panoptic_form():
    assert [row.id for row in SEGMENTS] == [1, 70000, 300]
    assert repr(SEGMENTS) == "<Segments of 4x3 pixels: 1 sea, 2 cat>"
    content = SEGMENTS.to_json()
    assert list(content) == ["height", "width", "segments", "segment_map"]
    row = {"id": 1, "class": "sea", "isthing": False, "score": 0.9124, "area": 6}
    assert json.dumps(content["segments"][0]) == json.dumps(row)
    assert content["segment_map"]["values"] == [1, 300, 0, 1, 70000, 0]
    assert content["segment_map"]["lengths"] == [5, 1, 1, 1, 2, 2]
    (row,) = SEGMENTS.to_coco(139, IDS)
    assert (row["image_id"], row["file_name"]) == (139, "000000000139.png")
    assert SEGMENTS.to_coco("b", IDS)[0]["file_name"] == "b.png"
    assert [(s["id"], s["category_id"], s["area"]) for s in row["segments_info"]] == [
        (1, 90, 6),
        (70000, 17, 2),
        (300, 17, 1),
    ]


def test_a_panoptic_png_holds_the_ids(tmp_path):
    """70000 = 1 * 65536 + 17 * 256 + 112, 300 = 256 + 44; a PNG keeps them."""
    Image.fromarray(SEGMENTS.to_png()).save(tmp_path / "a.png")
    png = np.asarray(Image.open(tmp_path / "a.png"))
    assert png[2, 0].tolist() == [112, 17, 1]
    assert png[1, 1].tolist() == [44, 1, 0]
    assert png[0, 3].tolist() == [1, 0, 0]
    assert not png[1, 2].any()


@pytest.mark.parametrize("result", [instances(), LABELS, SEGMENTS], ids=["boxes", "map", "parts"])
def test_a_class_without_an_id(result):
    with pytest.raises(InputError, match=r"no 'sea', a class .* Did you mean 'seas'\?"):
        result.to_coco(5, {"cat": 1, "dog": 2, "seas": 3})


@pytest.mark.parametrize("result", [instances(), LABELS, SEGMENTS], ids=["boxes", "map", "parts"])
def test_every_result_is_drawn_over_its_image_or_another(result):
    """3 rows are enlarged 160 times. What is drawn is the class's colour in the middle of it."""
    out = result.draw()
    assert out.dtype == np.uint8
    assert out.shape[0] >= 480
    assert out.shape[1] >= 640
    dark = result.draw(np.zeros((3, 4, 3), np.uint8))
    assert np.array_equal(result.draw(Image.new("RGB", (4, 3), (100, 100, 100))), out)
    assert not np.array_equal(dark, out)
    label, y, x = (1, 170, 250) if isinstance(result, Instances) else (2, 20, 40)
    ratio = dark[y, x] / np.array(palette(3)[label])  # in the dog, else in the sea
    assert np.ptp(ratio) < 0.03
    with pytest.raises(InputError, match=r"draw: the image is 3x4 pixels, .* one of 4x3"):
        result.draw(np.zeros((4, 3, 3), np.uint8))


def area(ring):
    return sum(x * b - a * y for (x, y), (a, b) in pairwise(ring)) / 2


def areas(found):
    """Class -> area of its outline, of each feature."""
    return [
        (f["properties"]["class"], sum(area(r) for p in f["geometry"]["coordinates"] for r in p))
        for f in found["features"]
    ]


def test_outlines_have_the_area_of_what_was_found():
    found = json.loads(json.dumps(instances().to_geojson()))
    assert found["type"] == "FeatureCollection"
    assert areas(found) == [("dog", 4), ("cat", 1)]
    assert found["features"][0]["properties"] == {"class": "dog", "score": 0.8765}
    assert found["features"][1]["geometry"] == {
        "type": "MultiPolygon",
        "coordinates": [[[[0, 2], [1, 2], [1, 3], [0, 3], [0, 2]]]],
    }
    assert areas(LABELS.to_geojson()) == [("cat", 7), ("sea", 5)]
    assert areas(SEGMENTS.to_geojson()) == [("sea", 6), ("cat", 2), ("cat", 1)]
    assert SEGMENTS.to_geojson()["features"][0]["properties"]["isthing"] is False


def test_an_object_without_a_mask_is_its_box():
    [dog, _] = instances(masks=False).to_geojson()["features"]
    ring = [[1, 0], [3.13, 0], [3.13, 2], [1, 2], [1, 0]]
    assert dog["geometry"] == {"type": "Polygon", "coordinates": [ring]}


def test_an_object_without_a_pixel_has_no_outline():
    found = instances()
    empty = Masks.of(np.zeros((2, 3, 4), bool))
    assert replace(found, masks=empty).to_geojson()["features"] == []


@pytest.mark.parametrize(
    ("found", "names", "boxes"),
    [
        (instances(), ["dog", "cat"], [[1, 0, 3.126, 2], [0, 2, 1, 3]]),
        (LABELS, ["cat", "sea"], [[0, 0, 4, 3], [0, 0, 3, 2]]),
        (SEGMENTS, ["sea", "cat", "cat"], [[0, 0, 4, 2], [0, 2, 2, 3], [1, 1, 2, 2]]),
    ],
)
def test_supervision_takes_results(found, names, boxes):
    supervision = peer("supervision")
    taken = found.to_supervision()
    assert isinstance(taken, supervision.Detections)
    assert taken.data["class_name"].tolist() == names
    assert taken.xyxy == pytest.approx(np.array(boxes))
    assert [CLASSES[label] for label in taken.class_id] == names
    assert taken.mask.shape == (len(names), 3, 4)
    assert taken.area.tolist() == [sum_ for _, sum_ in areas(found.to_geojson())]
    if found is not LABELS:  # a label map has no scores
        assert taken.confidence.max() == pytest.approx(max(row.score for row in found))


def test_nothing_found_is_taken_too():
    peer("supervision")
    assert len(instances().some(np.zeros(2, bool)).to_supervision()) == 0
    assert len(replace(SEGMENTS, rows=()).to_supervision()) == 0


def test_supervision_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(InputError, match=r"pip install '\.\[supervision\]'"):
        instances().to_supervision()
