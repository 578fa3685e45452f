"""Images divided in two: each once, classes in both parts, groups together, the same for a seed."""

import itertools
import random

import pytest

from swin_dense.datasets import splits
from swin_dense.errors import InputError


def random_set(seed, most=24):
    """Return the classes of each of a few images; some show none."""
    generator = random.Random(seed)
    classes = "abcdefg"[: generator.randint(1, 7)]
    count = generator.randint(2, most)
    return [
        [c for k, c in enumerate(classes) if generator.random() < 1 / (k + 1.7)]
        for _ in range(count)
    ]


def lacks(shown, places, other):
    """Return the classes of two images or more that one part lacks, counted anew."""
    return {
        c
        for c in set(itertools.chain(*shown))
        if sum(c in found for found in shown) > 1
        and not any(c in shown[i] for i in places)
        and any(c in shown[i] for i in other)
    }


@pytest.mark.parametrize("seed", range(40))
def test_each_image_is_in_one_part_and_what_a_part_lacks_is_told(seed):
    shown = random_set(seed)
    found = splits.divide(shown, 0.23, seed)
    assert sorted(found.train + found.val) == list(range(len(shown)))
    assert found.train
    assert found.val
    assert set(found.only_train) == lacks(shown, found.val, found.train)
    assert set(found.only_val) == lacks(shown, found.train, found.val)
    assert found == splits.divide(shown, 0.23, seed)


def test_small_sets_have_every_class_in_both_wherever_that_can_be():
    """A search through all divisions of few images says where."""
    possible = 0
    for seed in range(150):
        shown = random_set(seed, most=8)
        everything = range(len(shown))
        settled = any(
            not lacks(shown, val, rest) and not lacks(shown, rest, val)
            for size in range(1, len(shown))
            for val in itertools.combinations(everything, size)
            for rest in [[i for i in everything if i not in val]]
        )
        found = splits.divide(shown, 0.3, seed)
        possible += settled
        assert settled != bool(found.only_train or found.only_val)
    assert possible > 100


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_the_share_holds_of_all_and_of_each_class(share):
    shown = [["a"]] * 60 + [["b"]] * 40 + [["a", "c"]] * 20 + [[]] * 80
    found = splits.divide(shown, share, 3)
    assert len(found.val) == pytest.approx(share * 200, abs=3)
    for name, count in (("a", 80), ("b", 40), ("c", 20)):
        assert sum(name in shown[i] for i in found.val) == pytest.approx(share * count, abs=1.5)


def test_many_rare_classes_do_not_swell_the_part():
    """Sixty classes of two to five images each, eight in an image: all in both, in little more."""
    generator = random.Random(1)
    shown = [[] for _ in range(100)]
    for name in range(60):
        for i in generator.sample(range(100), generator.randint(2, 5)):
            shown[i] += [name]
    found = splits.divide(shown, 0.35, 0)
    assert not found.only_train + found.only_val
    assert len(found.val) == 35


def test_a_class_of_one_image_is_learnt():
    for seed in range(20):
        found = splits.divide([["a"], ["a"], ["a"], ["b"]], 0.5, seed)
        assert 3 in found.train
        assert not found.only_train


def test_three_images_that_share_three_classes_cannot_be_divided():
    """By hand: whichever image is alone, the class of the two others is not in its part.

    What a model cannot learn is worse than what is not judged.
    """
    for seed in range(9):
        found = splits.divide([["a", "b"], ["b", "c"], ["a", "c"]], 0.3, seed)
        assert (len(found.val), len(found.only_train), found.only_val) == (1, 1, ())


def test_other_seeds_divide_otherwise():
    shown = [["a"]] * 30
    assert len({splits.divide(shown, 0.3, seed).val for seed in range(5)}) > 1


@pytest.mark.parametrize("seed", range(10))
def test_groups_stay_together(seed):
    groups = [i // 3 for i in range(32)]
    shown = [["a", "b"][: 1 + i % 2] for i in range(32)]
    found = splits.divide(shown, 0.3, seed, groups)
    assert not {groups[i] for i in found.train} & {groups[i] for i in found.val}
    assert not found.only_train + found.only_val
    assert 6 <= len(found.val) <= 13


@pytest.mark.parametrize(
    ("shown", "share", "groups", "says"),
    [
        ([["a"]], 0.2, None, "at least two images, it has 1"),
        ([["a"], ["a"]], 0.2, [1, 1], "at least two groups of images, it has 1"),
        ([["a"], ["a"]], 1.0, None, "more than 0 and less than 1"),
    ],
)
def test_what_cannot_be_divided(shown, share, groups, says):
    with pytest.raises(InputError, match=says):
        splits.divide(shown, share, 0, groups)


@pytest.mark.parametrize("count", [1, 7, 20, 23])
def test_a_subset_has_the_asked_number_in_order(count):
    shown = random_set(3, most=23) or []
    shown = (shown * 23)[:23]
    found = splits.subset(shown, count, 1)
    assert len(set(found)) == count
    assert list(found) == sorted(found)
    assert found == splits.subset(shown, count, 1)


def test_a_subset_of_half_has_each_class_of_two():
    shown = [["a"]] * 17 + [["b"]] * 2 + [["c"]] * 3
    found = splits.subset(shown, 11, 5)
    assert {c for i in found for c in shown[i]} == {"a", "b", "c"}


def test_a_subset_larger_than_the_set_is_refused():
    with pytest.raises(InputError, match="takes 3 images, the set has 2"):
        splits.subset([["a"], []], 3)
