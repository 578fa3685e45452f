"""Boxes, masks and proposals judged through hotcoco equal pycocotools bit for bit."""

import itertools
import json

import numpy as np
import pytest
from pycocotools import mask as rle

from swin_dense.errors import InputError
from swin_dense.evaluation import detections
from swin_dense.evaluation.boundary import boundary
from swin_dense.evaluation.detections import Found, Truth, judge

HEIGHT, WIDTH = 133, 171
SIDES = (1, 12, 32, 33, 96, 97)  # areas on the borders of small, medium and large
NAMES = ("ant", "bee", "cow", "never")


def a_mask(x, y, width, height):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return mask


def a_set(seed, numbered, path):
    """A file with crowds, an image without objects, areas on the borders; and what was found.

    Args:
        numbered: a function of an image's position that gives its id.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(9)
    images = [dict(id=numbered(i), file_name=f"{i}", height=HEIGHT, width=WIDTH) for i in order]
    categories = [dict(id=2**40 - 7 * i, name=name) for i, name in enumerate(NAMES)]
    rows, found = [], []
    for image in images[:-1]:  # the last shows nothing
        for _ in range(rng.integers(1, 8)):
            width, height = rng.choice(SIDES, 2)
            x, y = int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height))
            code = rle.encode(a_mask(x, y, width, height))
            rows.append(
                dict(
                    id=len(rows),
                    image_id=image["id"],
                    category_id=categories[rng.integers(3)]["id"],
                    bbox=[float(v) for v in (x, y, width, height)],
                    area=float(width * height),
                    iscrowd=int(rng.random() < 0.15),
                    segmentation=dict(size=code["size"], counts=code["counts"].decode()),
                )
            )
    path.write_text(json.dumps(dict(images=images, categories=categories, annotations=rows)))
    truth = Truth.read(path, NAMES)
    for place in rng.permutation(9)[:-1]:  # one image was not predicted, another has above 100
        boxes, labels = [], []
        near = np.flatnonzero(truth.image == place)
        for _ in range(130 if place == 4 else rng.integers(0, 15)):
            box = rng.integers(0, 40, 4) + (0, 0, 1, 1)
            if len(near) and rng.random() < 0.7:
                pick = rng.choice(near)
                moved = truth.boxes[pick] + rng.integers(-2, 3, 4)
                box = np.maximum(moved.astype(int), (0, 0, 1, 1))
                labels.append(truth.label[pick] if rng.random() < 0.8 else rng.integers(3))
            else:
                labels.append(rng.integers(3))
            boxes.append(box)
        boxes = np.array(boxes, np.int64).reshape(-1, 4)
        masks = [rle.encode(a_mask(*box))["counts"] for box in boxes.tolist()]
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
        scores = rng.integers(0, 9, len(boxes)) / 8  # many ties
        found.append(Found(int(place), corners, scores, np.array(labels, np.int64), masks))
    return truth, found


@pytest.mark.parametrize("kind", ["bbox", "segm", "proposal"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curves_equal_pycocotools(tmp_path, capsys, seed, kind):
    truth, found = a_set(seed, lambda i: 2**33 + 3 * int(i), tmp_path / "a.json")
    ours, theirs = (judge(truth, found, kind, name) for name in ("hotcoco", "pycocotools"))
    np.testing.assert_array_equal(ours.precision, theirs.precision)
    np.testing.assert_array_equal(ours.recall, theirs.recall)
    assert ours.numbers() == theirs.numbers()
    if kind != "proposal":
        theirs.evaluator.summarize()
        numbers = list(ours.numbers().values())
        np.testing.assert_allclose(numbers, theirs.evaluator.stats, rtol=0, atol=1e-15)
        capsys.readouterr()
        each = [ours.numbers(label) for label in range(4)]
        assert not each[3]  # a class that no image shows has no number
        mean = np.mean([row["mAP"] for row in each[:3]])
        assert mean == pytest.approx(ours.numbers()["mAP"], abs=1e-12)
    assert ours.numbers()[f"AR@{ours.most[-1]}"] > 0.2


def test_masks_judged_some_images_at_a_time_give_the_same(tmp_path, monkeypatch):
    truth, found = a_set(7, int, tmp_path / "a.json")
    whole = judge(truth, found, "segm")
    monkeypatch.setattr(detections, "LARGE", 0)
    monkeypatch.setattr(detections, "PART", 2)
    parts = judge(truth, found[::-1], "segm", whole=False)
    np.testing.assert_array_equal(parts.precision, whole.precision)
    np.testing.assert_array_equal(parts.recall, whole.recall)
    assert parts.evaluator is None  # it would count no errors
    assert judge(truth, found, "segm").evaluator is not None


def test_kinds_of_ids_change_nothing(tmp_path):
    """Texts, floats, numbers from 0 or above 2^31."""
    kinds = (int, float, lambda i: int(i) + 2**50, lambda i: f"image {i}")
    found = [a_set(3, kind, tmp_path / f"{n}.json") for n, kind in enumerate(kinds)]
    numbers = [judge(*one, "bbox").numbers() for one in found[:3]]
    assert numbers[0] == numbers[1] == numbers[2]
    assert numbers[0]["mAP"] > 0.1
    assert judge(*found[3], "bbox").numbers()["AR@100"] > 0.1
    texts = [image["id"] for image in json.loads((tmp_path / "3.json").read_text())["images"]]
    assert list(found[3][0].ids) == texts != sorted(texts)  # no order of theirs but the file's


def test_nothing_found_is_zero_and_nothing_to_find_has_no_number(tmp_path):
    truth, found = a_set(4, int, tmp_path / "a.json")
    numbers = judge(truth, [], "segm").numbers()
    assert set(numbers.values()) == {0.0}
    assert len(numbers) == 12
    bare = Truth.read(tmp_path / "a.json", ["never"])
    only = [Found(f.place, f.boxes, f.scores, f.labels * 0, f.masks) for f in found]
    assert judge(bare, only, "bbox").numbers() == {}


def test_boundary_iou_is_what_the_paper_says(tmp_path, capsys):
    """Pixels within 2 % of the diagonal (4.3, so 4) of an edge, by a loop over all of them."""
    mask = a_mask(5, 0, 31, 50)  # touches the upper edge of the image
    mask[20:25, 10:17] = 0
    edge = np.zeros_like(mask)
    for y, x in itertools.product(range(HEIGHT), range(WIDTH)):
        window = [
            mask[v, u] if 0 <= v < HEIGHT and 0 <= u < WIDTH else 0
            for v in range(y - 4, y + 5)
            for u in range(x - 4, x + 5)
        ] if mask[y, x] else [1]  # fmt: skip
        edge[y, x] = mask[y, x] and not all(window)
    np.testing.assert_array_equal(boundary(mask), edge)
    truth, found = a_set(5, int, tmp_path / "a.json")
    strict, plain = (judge(truth, found, kind).numbers()["mAP"] for kind in ("boundary", "segm"))
    assert 0 < strict <= plain
    capsys.readouterr()


def test_lvis_forgives_classes_that_nobody_looked_for(tmp_path):
    """By hand: in image 1 class 0 is there and found; class 1 is found and was not looked for."""
    box = [10.0, 10.0, 40.0, 40.0]
    images = [
        dict(id=1, file_name="1", height=90, width=90, neg_category_ids=[],
             not_exhaustive_category_ids=[]),
        dict(id=2, file_name="2", height=90, width=90, neg_category_ids=[6],
             not_exhaustive_category_ids=[]),
    ]  # fmt: skip
    rows = [
        dict(id=1, image_id=1, category_id=5, bbox=box, area=1600.0, iscrowd=0),
        dict(id=2, image_id=2, category_id=6, bbox=box, area=1600.0, iscrowd=0),
    ]
    categories = [dict(id=5, name="a", frequency="r"), dict(id=6, name="b", frequency="f")]
    path = tmp_path / "lvis.json"
    path.write_text(json.dumps(dict(images=images, annotations=rows, categories=categories)))
    truth = Truth.read(path, ("a", "b"), lvis=True)
    corners = np.array([[10.0, 10, 50, 50]])
    found = [
        Found(0, np.repeat(corners, 2, 0), np.array([0.5, 0.9]), np.array([0, 1])),
        Found(1, corners, np.array([0.4]), np.array([1])),
    ]
    forgiving = judge(truth, found, "bbox", lvis=True).numbers()
    assert forgiving["mAP"] == forgiving["mAP_r"] == forgiving["mAP_f"] == pytest.approx(1)
    assert "mAP_c" not in forgiving
    assert forgiving["AR@300"] == pytest.approx(1)
    strict = judge(truth, found, "bbox").numbers()["mAP"]
    assert strict == pytest.approx((1 + 0.5) / 2)  # class b: a false one comes first


def test_slivers_of_polygons_are_passed_by(tmp_path):
    square = [10, 10, 40, 10, 40, 40, 10, 40]
    entry = dict(id=1, image_id=1, category_id=1, bbox=[10, 10, 30, 30], area=900)
    content = dict(
        images=[dict(id=1, file_name="1", height=60, width=50)],
        categories=[dict(id=1, name="a")],
        annotations=[dict(entry, segmentation=[[1, 1, 2, 2], square, [3, 3, 9, 9, 9]])],
    )
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    truth = Truth.read(path, ["a"])
    assert list(truth.masks) == [[square]]
    counts = rle.frPyObjects([square], 60, 50)[0]["counts"]
    corners = np.array([[10.0, 10, 40, 40]])
    found = Found(0, corners, np.ones(1), np.zeros(1, int), [counts])
    assert judge(truth, [found], "segm").numbers()["mAP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(masks=None), "this model finds boxes alone"),
        (dict(scores=np.array([np.nan])), "image 0: a score is not a finite number"),
    ],
)
def test_what_cannot_be_judged_is_said(tmp_path, change, text):
    truth, _ = a_set(6, int, tmp_path / "a.json")
    parts = dict(boxes=np.ones((1, 4)), scores=np.ones(1), labels=np.zeros(1, int), masks=[b"0"])
    with pytest.raises(InputError, match=text):
        judge(truth, [Found(0, **(parts | change))], "segm")


def test_back_ends_are_asked_for_by_name():
    for name in ("hotcoco", "pycocotools"):
        detections.require_back_end(name)
    with pytest.raises(InputError, match="one of hotcoco, pycocotools, ultrafast-pycocotools"):
        detections.require_back_end("coco")
