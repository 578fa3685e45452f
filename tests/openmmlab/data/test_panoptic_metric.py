"""PQ against plain loops over pixels and against sums made by hand; scores of segments."""

import itertools
import math

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from PIL import Image

import swin_dense.openmmlab  # noqa: F401
from swin_dense.errors import InputError
from swin_dense.openmmlab.data.panoptic_metric import PanopticMetric, compare
from swin_dense.registry import METRICS

NAMES = ("cat", "dog", "emu", "sky", "sea")
THINGS = NAMES[:3]
NOTHING = len(NAMES)


def segment(number, label, iscrowd=False):
    return {"id": number, "label": label, "isthing": (label or 0) < 3, "iscrowd": iscrowd}


# The oracle: sets of pixels, one pair of segments at a time, nothing encoded in one number.


def pixels_of(image, number):
    return {
        (y, x)
        for y in range(len(image))
        for x in range(len(image[0]))
        if int(image[y][x]) == number
    }


def by_sets(truth, segments, found):
    """label -> [sum of IoU, hits, false, missed], arXiv 1801.00868, section 4.2."""
    labelled = [s for s in segments if s["label"] is not None]
    regions = {s["id"]: pixels_of(truth, s["id"]) for s in labelled}
    void = {(y, x) for y in range(len(truth)) for x in range(len(truth[0]))}
    for region in regions.values():
        void -= region
    predicted = {}
    for row in found:
        for number in row:
            if int(number) != NOTHING:
                predicted[int(number)] = pixels_of(found, int(number))
    out = {label: [0.0, 0, 0, 0] for label in range(len(NAMES))}
    used, hit = set(), set()
    for one in labelled:
        for number, region in predicted.items():
            if one["iscrowd"] or one["label"] != number - number // 1000 * 1000:
                continue
            mine = regions[one["id"]]
            iou = len(mine & region) / len((mine | region) - (region & void))
            if iou > 0.5:
                out[one["label"]][0] += iou
                out[one["label"]][1] += 1
                used.add(number)
                hit.add(one["id"])
    for one in labelled:
        if not one["iscrowd"] and one["id"] not in hit:
            out[one["label"]][3] += 1
    for number, region in predicted.items():
        label = number - number // 1000 * 1000
        forgiving = set(void)
        for one in labelled:
            if one["iscrowd"] and one["label"] == label:
                forgiving |= regions[one["id"]]
        if number not in used and not len(region & forgiving) > len(region) / 2:
            out[label][2] += 1
    return out


def blocks(rng, values, shape):
    """An image of blocks, a few of whose pixels are moved to other values."""
    height, width = shape
    image = rng.choice(values, (height // 4, width // 4)).repeat(4, 0).repeat(4, 1)
    noise = rng.random(image.shape) < 0.1
    return np.where(noise, rng.choice(values, image.shape), image)


def scene(seed, shape=(16, 24)):
    """Truth with void, crowds and a class not asked for; predictions near it and far from it."""
    rng = np.random.default_rng(seed)
    ids = [0, 300, 70000, 5, 16777215, 9, 12]
    labels = [None, 0, 0, 1, 3, 4, 2]
    crowd = rng.integers(1, len(ids))
    unasked = rng.integers(1, len(ids))
    segments = [
        segment(number, None if i == unasked else label, iscrowd=bool(i == crowd and label < 3))
        for i, (number, label) in enumerate(zip(ids, labels, strict=True))
        if number
    ]
    truth = blocks(rng, np.array(ids), shape)
    segments = [s for s in segments if (truth == s["id"]).any()]
    guess = {0: NOTHING, 300: 1000, 70000: 2000, 5: 1001, 16777215: 3, 9: 4, 12: 3002}
    found = np.vectorize(guess.get)(truth)
    wrong = blocks(rng, np.array([NOTHING, 1000, 4000, 5002, 3, 4]), shape)
    mask = blocks(rng, np.array([0, 0, 1]), shape).astype(bool)
    return truth.astype(np.int32), segments, np.where(mask, wrong, found).astype(np.int32)


@pytest.mark.parametrize("seed", range(40))
def test_equals_loops_over_sets_of_pixels(seed):
    truth, segments, found = scene(seed)
    ours, expected = compare(truth, segments, found, NOTHING), by_sets(truth, segments, found)
    for label, row in expected.items():
        assert ours.get(label, np.zeros(4)) == pytest.approx(row), (label, seed)


def test_the_scenes_ask_every_question():
    total = np.zeros(4)
    forgiven = 0
    for seed in range(40):
        truth, segments, found = scene(seed)
        rows = compare(truth, segments, found, NOTHING)
        total += sum(rows.values())
        predicted = len(set(np.unique(found).tolist()) - {NOTHING})
        forgiven += predicted - sum(row[1] + row[2] for row in rows.values())
    assert (total[1:] > 20).all()
    assert forgiven > 10


# By hand. One row of pixels each; t the truth, f what was found.


def row(*runs):
    return np.array([[value for value, count in runs for _ in range(count)]], np.int32)


def test_iou_leaves_out_void_by_hand():
    truth, found = row((7, 6), (0, 4)), row((NOTHING, 1), (1000, 9))
    # 5 of 6 found, 4 more on void: 5 / (6 + 9 - 5 - 4)
    assert compare(truth, [segment(7, 0)], found, NOTHING) == {0: pytest.approx([5 / 6, 1, 0, 0])}


def test_half_is_no_match_by_hand():
    truth, found = row((7, 3), (9, 3)), row((1000, 2), (1, 4))
    segments = [segment(7, 0), segment(9, 0)]
    # cat 7: 2 of 3 shared, union 3 -> 2/3. The rest is called dog, which is nowhere.
    assert compare(truth, segments, found, NOTHING) == {
        0: pytest.approx([2 / 3, 1, 0, 1]),
        1: pytest.approx([0, 0, 1, 0]),
    }
    half = row((1000, 2), (NOTHING, 4))
    assert compare(row((7, 1), (9, 5)), segments, half, NOTHING)[0].tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(("on_void", "false"), [(2, 1), (3, 0)])
def test_more_than_half_on_void_is_forgiven_by_hand(on_void, false):
    found = row((1000, 4), (NOTHING, 4))
    truth = row((0, on_void), (9, 8 - on_void))
    expected = {3: [0, 0, 0, 1]} | ({0: [0, 0, 1, 0]} if false else {})
    rows = compare(truth, [segment(9, 3)], found, NOTHING)
    assert {label: row.tolist() for label, row in rows.items()} == expected


def test_a_crowd_forgives_its_own_class_alone_by_hand():
    truth = row((9, 8))
    crowd = [segment(9, 0, iscrowd=True)]
    assert compare(truth, crowd, row((1000, 8)), NOTHING) == {}  # no hit either
    rows = compare(truth, crowd, row((1001, 8)), NOTHING)
    assert {label: row.tolist() for label, row in rows.items()} == {1: [0, 0, 1, 0]}


def test_void_and_crowd_forgive_together_by_hand():
    truth = row((0, 2), (9, 1), (7, 2))
    segments = [segment(9, 0, iscrowd=True), segment(7, 3)]
    rows = compare(truth, segments, row((1000, 5)), NOTHING)
    assert {label: row.tolist() for label, row in rows.items()} == {3: [0, 0, 0, 1]}


def test_a_class_not_asked_for_is_void_by_hand():
    rows = compare(row((7, 4)), [segment(7, None)], row((1000, 4)), NOTHING)
    assert rows == {}


def test_things_apart_and_stuff_together_by_hand():
    truth = row((7, 4), (8, 4), (9, 4))
    segments = [segment(7, 0), segment(8, 0), segment(9, 3)]
    merged = compare(truth, segments, row((1000, 8), (3, 4)), NOTHING)
    assert merged[0].tolist() == [0, 0, 1, 2]
    assert merged[3].tolist() == [1, 1, 0, 0]
    apart = compare(truth, segments, row((1000, 4), (2000, 4), (3, 4)), NOTHING)
    assert apart[0].tolist() == [2, 2, 0, 0]


# The metric: PNGs, sums over images, means over classes.


def store(path, ids):
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(path)


def sample(tmp_path, number, truth, segments, found):
    path = tmp_path / f"{number}.png"
    store(path, truth)
    pan = PixelData(sem_seg=torch.from_numpy(found)[None])
    return {
        "seg_map_path": str(path),
        "img_path": f"{number}.jpg",
        "segments": segments,
        "pred_panoptic_seg": pan.to_dict(),
    }


def evaluated(samples):
    metric = METRICS.build(dict(type="swin_dense.PanopticMetric"))
    metric.dataset_meta = {"classes": NAMES, "thing_classes": THINGS}
    for one in samples:
        metric.process({}, [one])
    return metric, metric.evaluate(len(samples))


def test_numbers_by_hand(tmp_path):
    """cat: IoU 5/6 and one missed. sky: IoU 1 and 3/5. dog: one false. emu, sea: nowhere."""
    first = sample(
        tmp_path,
        1,
        row((70000, 6), (0, 4), (9, 2), (8, 5)),
        [segment(70000, 0), segment(9, 3), segment(8, 0)],
        row((NOTHING, 1), (1000, 9), (3, 2), (2001, 5)),
    )
    second = sample(
        tmp_path, 2, row((16777215, 5)), [segment(16777215, 3)], row((3, 3), (NOTHING, 2))
    )
    metric, numbers = evaluated([first, second])
    cat, dog, sky = (5 / 6) / 1.5, 0.0, (1 + 3 / 5) / 2
    assert numbers["panoptic/PQ"] == pytest.approx(100 * (cat + dog + sky) / 3)
    assert numbers["panoptic/PQ_th"] == pytest.approx(100 * (cat + dog) / 2)
    assert numbers["panoptic/PQ_st"] == pytest.approx(100 * sky)
    assert numbers["panoptic/SQ_th"] == pytest.approx(100 * (5 / 6 + 0) / 2)
    assert numbers["panoptic/RQ_th"] == pytest.approx(100 * (1 / 1.5 + 0) / 2)
    assert numbers["panoptic/RQ_st"] == pytest.approx(100)
    assert list(metric.per_class) == list(NAMES)
    assert metric.per_class["sky"] == pytest.approx({"PQ": 80, "SQ": 80, "RQ": 100})
    assert math.isnan(metric.per_class["sea"]["PQ"])
    assert [path for path, _ in metric.per_image] == ["1.jpg", "2.jpg"]
    metric.results = [*metric.per_image, *metric.per_image[:1]]  # as two processes gather them
    assert metric.compute_metrics(metric.results)["PQ"] == numbers["panoptic/PQ"]


def test_the_truth_itself_scores_100(tmp_path):
    truth, segments, _ = scene(3)
    segments = [s for s in segments if not s["iscrowd"]]
    truth[~np.isin(truth, [s["id"] for s in segments])] = 0
    found = np.full(truth.shape, NOTHING, np.int32)
    for instance, one in enumerate(segments, start=1):
        if one["label"] is not None:
            found[truth == one["id"]] = one["label"] + (1000 * instance if one["isthing"] else 0)
    _, numbers = evaluated([sample(tmp_path, 1, truth, segments, found)])
    assert set(numbers.values()) == {100.0}


def test_nothing_found_is_zero(tmp_path):
    truth, segments, _ = scene(3)
    found = np.full(truth.shape, NOTHING, np.int32)
    _, numbers = evaluated([sample(tmp_path, 1, truth, segments, found)])
    assert set(numbers.values()) == {0.0}


def test_a_png_of_another_size_is_named(tmp_path):
    truth, segments, found = scene(1)
    one = sample(tmp_path, 1, truth, segments, found)
    store(one["seg_map_path"], truth[:, :-4])
    with pytest.raises(InputError, match=r"1\.png.* it is 20x16"):
        evaluated([one])


# Scores.


def test_the_oracle_is_right_where_a_child_can_count():
    """One cat of 2x2 found as 2x3: 4 of 6."""
    truth, found = np.zeros((3, 4), int), np.full((3, 4), NOTHING)
    truth[:2, :2], truth[2], truth[:2, 2:] = 7, 9, 9
    found[:2, :3] = 1000
    rows = by_sets(truth, [segment(7, 0), segment(9, 3)], found)
    assert rows[0] == [pytest.approx(4 / 6), 1, 0, 0]
    assert rows[3] == [0, 0, 0, 1]
    assert all(rows[label] == [0, 0, 0, 0] for label in itertools.chain((1, 2), (4,)))


def test_it_is_registered_under_our_name_alone():
    assert METRICS.get("swin_dense.PanopticMetric") is PanopticMetric
