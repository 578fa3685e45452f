"""Two runs over the same images: equal ones are called equal, a planted difference is found."""

import dataclasses

import numpy as np
import pytest
from report_cases import a_set, matched

from swin_dense.errors import InputError
from swin_dense.report import comparison, records


def pixels(seed: int, gain: float = 0.0, images: int = 60) -> records.Pixels:
    """Label maps of images of uneven difficulty, guessed with a noise of its own in each run."""
    hard = np.random.default_rng(1).uniform(0.3, 0.8, (images, 3))
    chance = np.random.default_rng(seed)
    true = np.full((images, 3), 1000)
    share = np.clip(hard + gain + chance.normal(0, 0.05, hard.shape), 0, 1)
    shared = (share * true).astype(int)
    return records.Pixels(
        ("a", "b", "c"), tuple(f"{i}.png" for i in range(images)), shared, true.copy(), true
    )


def test_two_halves_of_the_seeds_do_not_differ():
    """Of 20 pairs of equal runs about one lies outside an interval of 95 percent; 4 are rare."""
    wrong = 0
    for seed in range(20):
        (one,) = comparison.compare([pixels(seed)], [pixels(100 + seed)], 200, seed)
        wrong += next(row["real"] for row in one["numbers"] if row["name"] == "mIoU")
    assert wrong <= 4


def of_a_seed(seed: int, gain: float = 0.0) -> list[records.Pixels]:
    """A run whose seed alone moves its mean by more than the choice of images does."""
    luck = np.random.default_rng(1000 + seed).normal(0, 0.03)
    return [pixels(seed, gain + luck)]


def test_two_halves_of_seeds_that_matter_do_not_differ_but_single_runs_do():
    single = several = 0
    for i in range(20):
        runs = [of_a_seed(8 * i + k) for k in range(8)]
        (one,) = comparison.compare(runs[0], runs[4], 200, i)
        single += next(row["real"] for row in one["numbers"] if row["name"] == "mIoU")
        (one,) = comparison.compare_sides(runs[:4], runs[4:], 200, i)
        several += next(row["real"] for row in one["numbers"] if row["name"] == "mIoU")
    assert single >= 8  # they do differ, for their seeds
    assert several <= 4
    better = [of_a_seed(k, 0.15) for k in range(4)]
    (one,) = comparison.compare_sides([of_a_seed(9 + k) for k in range(4)], better, 300)
    row = next(row for row in one["numbers"] if row["name"] == "mIoU")
    assert row["real"]
    assert "the choice of images and seeds explains" in comparison.sentence(row, 2, True)
    assert "means of 4 and 4 runs" in comparison.told([one])


def test_the_interval_of_seeds_is_that_of_a_t_test():
    """With equal images in each run only the seeds are left: Student's interval by scipy."""
    stats = pytest.importorskip("scipy.stats")

    def run(value):
        true = np.full((3, 1), 1000)
        return [records.Pixels(("a",), ("x", "y", "z"), true * value // 100, true.copy(), true)]

    sides = ([20, 26, 23], [30, 37])
    (one,) = comparison.compare_sides(*([run(v) for v in side] for side in sides), 20000)
    row = next(row for row in one["numbers"] if row["name"] == "mAcc")
    first, second = sides
    interval = stats.ttest_ind(second, first).confidence_interval(0.95)
    assert row["difference"] == pytest.approx(33.5 - 23, abs=1e-6)
    within = 0.05 * (interval.high - interval.low)
    assert row["low"] == pytest.approx(interval.low, abs=within)
    assert row["high"] == pytest.approx(interval.high, abs=within)


def test_a_planted_difference_is_found():
    (one,) = comparison.compare([pixels(0)], [pixels(1, gain=0.04)], 300)
    row = next(row for row in one["numbers"] if row["name"] == "mIoU")
    assert row["real"]
    assert row["low"] < row["difference"] < row["high"]
    assert row["difference"] > 2
    assert "is higher in the second run" in comparison.sentence(row, 2)
    (back,) = comparison.compare([pixels(1, gain=0.04)], [pixels(0)], 300)
    assert "is lower in the second run" in comparison.sentence(back["numbers"][1], 2)


def test_better_boxes_are_found_and_reordered_images_change_nothing():
    dataset, vague = a_set(0, images=40, noise=7.0)
    _, exact = a_set(1, images=40, noise=0.5)
    (one,) = comparison.compare([matched(dataset, vague)], [matched(dataset, exact)], 200)
    rows = {row["name"]: row for row in one["numbers"]}
    assert rows["bbox_AP"]["real"]
    assert rows["bbox_AP"]["difference"] > 0
    turned = {**dataset, "images": dataset["images"][::-1]}
    first = matched(dataset, exact)
    second = matched({**turned, "images": [dict(i) for i in turned["images"]]}, exact)
    (same,) = comparison.compare([first], [second], 50)
    assert all(abs(row["difference"]) < 1e-12 and not row["real"] for row in same["numbers"])
    assert same["images"] == []


def test_the_interval_is_that_of_a_plain_loop():
    one, other = pixels(0, images=9), pixels(1, images=9)
    (found,) = comparison.compare([one], [other], 80, seed=5)
    weights = np.random.default_rng(5).multinomial(9, [1 / 9] * 9, size=80)
    spread = []
    for drawn in weights:
        means = []
        for run in (one, other):
            ious = []
            for k in range(3):
                sums = [
                    sum(int(w) * int(part[i, k]) for i, w in enumerate(drawn))
                    for part in (run.shared, run.found, run.true)
                ]
                ious.append(100 * sums[0] / (sums[1] + sums[2] - sums[0]))
            means.append(sum(ious) / 3)
        spread.append(means[1] - means[0])
    row = next(row for row in found["numbers"] if row["name"] == "mIoU")
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(spread, [2.5, 97.5]).tolist())


def test_images_that_changed_most():
    one = pixels(0, images=30)
    shared = one.shared.copy()
    shared[17] = 0
    other = dataclasses.replace(one, shared=shared)
    (found,) = comparison.compare([one], [other], 10)
    assert [row["image"] for row in found["images"]] == ["17.png"]
    assert found["images"][0]["second"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ("a", "b", "d")}, "only in the first: c; only in the second: d"),
        ({"classes": ("a", "c", "b")}, "the same names in another order"),
        ({"images": ("0.png", "1.png", "9.png")}, r"1 only in the first \(2.png\), 1 only in"),
        ({"true": np.array([[9] * 3, [1000] * 3, [1000] * 3])}, r"truth differs in 1 of 3 .*0.png"),
    ],
)
def test_what_cannot_be_compared(change, said):
    one = pixels(0, images=3)
    with pytest.raises(InputError, match=said):
        comparison.compare([one], [dataclasses.replace(one, **change)], 3)


def test_other_kinds_cannot_be_compared():
    with pytest.raises(InputError, match="objects bbox in the first, pixels in the second"):
        comparison.compare([matched(*a_set(0))], [pixels(0)], 3)


def test_it_says_so_in_words():
    text = comparison.told(comparison.compare([pixels(0)], [pixels(1, gain=0.1)], 50))
    assert "mIoU" in text
    assert "excludes 0" in text
    assert "3 of 3 classes differ" in text
    equal = comparison.told(comparison.compare([pixels(0)], [pixels(0)], 50))
    assert "is the same in both runs" in equal
    assert "0 of 3 classes differ" in equal
