"""Matches of each image give the numbers of the whole run, of any other draw of images, too."""

import numpy as np
import pytest
from report_cases import a_set, judge, matched

from swin_dense.errors import InputError
from swin_dense.report import records


@pytest.mark.parametrize("seed", range(4))
def test_numbers_equal_those_of_the_evaluation(seed):
    dataset, found = a_set(seed)
    numbers, classes = matched(dataset, found).numbers(np.ones((1, 7), int))
    judged = judge(dataset, found)
    assert np.abs(np.nan_to_num(numbers[0], nan=-1) - judged.stats).max() < 1e-12
    precision = judged.eval["precision"][:, :, :2, 0, -1]
    assert np.abs(classes[0, :2] - precision.mean((0, 1))).max() < 1e-12
    assert np.isnan(classes[0, 2])  # no object of it


def test_a_weight_is_an_image_that_often():
    """The oracle is an evaluation of a set in which each image stands as often as it was drawn."""
    dataset, found = a_set(3)
    # Within an image, equal scores of two copies would stand in another order.
    found = [dict(row, score=row["score"] + i / 9999) for i, row in enumerate(found)]
    weights = np.random.default_rng(0).multinomial(7, [1 / 7] * 7, size=3)
    numbers, _ = matched(dataset, found).numbers(weights)
    for drawn, row in zip(weights, numbers, strict=True):
        images, rows, detections = [], [], []
        for place, often in enumerate(drawn, start=1):
            for _ in range(often):
                new = len(images) + 1
                images.append(dict(dataset["images"][place - 1], id=new))
                for row_ in dataset["annotations"]:
                    if row_["image_id"] == place:
                        rows.append(dict(row_, id=len(rows) + 1, image_id=new))
                detections += [dict(d, image_id=new) for d in found if d["image_id"] == place]
        again = {**dataset, "images": images, "annotations": rows}
        expected = judge(again, detections).stats
        assert np.abs(np.nan_to_num(row, nan=-1) - expected).max() < 1e-12


def test_counts_of_an_image_by_hand():
    """One object found twice at the same place, one missed, and one of the wrong class."""
    boxes = [[0.0, 0.0, 20.0, 10.0], [50.0, 50.0, 9.0, 30.0]]
    rows = [
        {"id": i + 1, "image_id": 4, "bbox": b, "area": b[2] * b[3], "category_id": 3, "iscrowd": 0}
        for i, b in enumerate(boxes)
    ]
    dataset, _ = a_set(0)
    dataset = {**dataset, "images": dataset["images"][:5], "annotations": rows}
    found = [
        {"image_id": 4, "category_id": c, "bbox": b, "score": s}
        for c, b, s in [(3, boxes[0], 0.9), (3, boxes[0], 0.8), (8, boxes[1], 0.7)]
    ]
    one = matched(dataset, found)
    assert one.by_image(0.0)[3].tolist() == [1, 2, 1]
    assert one.by_image(0.75)[3].tolist() == [1, 1, 1]
    assert one.best_score() == 0.9  # F1 of 2/3; 2/4 and 2/5 further down
    assert one.image_scores().tolist() == pytest.approx([100, 100, 100, 200 / 3, 100])


def test_nothing_was_found():
    dataset, _ = a_set(1)
    far = [{"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1], "score": 0.5}]
    one = matched({**dataset, "annotations": []}, far)
    assert np.isnan(one.numbers(np.ones((1, 7), int))[0]).all()
    assert one.best_score() == 1.0


def test_pixels_by_hand():
    shared = np.array([[4, 0], [1, 2]])
    found = np.array([[5, 1], [3, 2]])
    true = np.array([[6, 0], [1, 4]])
    one = records.Pixels(("a", "b"), ("x", "y"), shared, found, true)
    numbers, iou = one.numbers(np.array([[1, 1], [0, 2]]))
    assert iou[0].tolist() == pytest.approx([100 * 5 / (8 + 7 - 5), 100 * 2 / (3 + 4 - 2)])
    assert numbers[0].tolist() == pytest.approx([100 * 7 / 11, 45, (100 * 5 / 7 + 50) / 2])
    assert iou[1].tolist() == pytest.approx([100 / 3, 50])


def test_segments_by_hand():
    counts = np.zeros((2, 3, 4))
    counts[0, 0], counts[1, 0] = (1.5, 2, 1, 0), (0.9, 1, 0, 1)
    counts[1, 2] = (0, 0, 1, 0)
    one = records.Segments(("a", "b", "c"), ("x", "y"), counts, np.array([True, True, False]))
    numbers, pq = one.numbers(np.ones((1, 2), int))
    assert pq[0, [0, 2]].tolist() == pytest.approx([100 * 2.4 / (3 + 1), 0])
    assert np.isnan(pq[0, 1])  # neither there nor found
    quality, recognition = 100 * 2.4 / 3, 100 * 3 / 4
    assert numbers[0].tolist() == pytest.approx(
        [30, quality / 2, recognition / 2, 60, quality, recognition, 0, 0, 0]
    )


def test_a_file_gives_back_what_was_written(tmp_path):
    one = matched(*a_set(2))
    pixels = records.Pixels(("a",), ("x", "y"), *(np.array([[i], [i + 1]]) for i in range(3)))
    segments = records.Segments(("a",), ("x",), np.ones((1, 1, 4)), np.array([False]))
    records.write(tmp_path, [one, pixels, segments])
    back = records.read(tmp_path)
    assert [type(part) for part in back] == [records.Objects, records.Pixels, records.Segments]
    for before, after in zip([one, pixels, segments], back, strict=True):
        assert vars(before).keys() == vars(after).keys()
        for name, value in vars(before).items():
            same = getattr(after, name)
            if isinstance(value, np.ndarray | list):
                assert all(np.array_equal(a, b) for a, b in zip(value, same, strict=True))
            else:
                assert value == same


def test_no_records_and_broken_ones(tmp_path):
    with pytest.raises(InputError, match=r"holds no records\.npz"):
        records.read(tmp_path)
    (tmp_path / "records.npz").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(InputError, match="is not what an evaluation writes"):
        records.read(tmp_path)
