"""Hand-made objects on hand-made ground, moved by known and by random amounts."""

import itertools

import numpy as np
import pytest

from swin_dense.datasets.instaboost import (
    BORDER,
    Limits,
    Move,
    boosted,
    draw,
    extents,
    moved,
    together,
)
from swin_dense.datasets.label_maps import IGNORE

GROUND = (40, 90, 160)
HEIGHT, WIDTH = 61, 84
LIMITS = Limits()


def pattern(height, width, seed=0):
    """No two pixels alike, as a rule, and none like the ground."""
    return np.random.default_rng(seed).integers(170, 256, (height, width, 3), dtype=np.uint8)


def scene(*boxes):
    """Flat ground with one patterned rectangle for each (x, y, width, height)."""
    image = np.full((HEIGHT, WIDTH, 3), GROUND, np.uint8)
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
    for i, (x, y, width, height) in enumerate(boxes):
        image[y : y + height, x : x + width] = pattern(height, width, seed=i)
        masks[i, y : y + height, x : x + width] = 1
    return image, masks


def boxes_of(masks):
    """The extents of masks, pixel by pixel."""
    found = []
    for mask in masks:
        pixels = [(x, y) for y, x in itertools.product(*map(range, mask.shape)) if mask[y, x]]
        xs, ys = zip(*pixels, strict=True)
        found.append((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return found


# A known move.


def test_a_shift_by_whole_pixels_is_exact():
    image, masks = scene((30, 20, 15, 9))
    found, seen, labels = moved(image, masks, [([0], Move(right=7, down=-4))])
    expected, places = scene((37, 16, 15, 9))
    assert np.array_equal(found, expected)
    assert np.array_equal(seen, places)
    assert (found.dtype, seen.dtype, labels) == (np.uint8, np.uint8, None)


def test_what_is_given_stays():
    image, masks = scene((30, 20, 15, 9))
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    before = image.copy(), masks.copy(), labels.copy()
    moved(image, masks, [([0], Move(right=7))], labels)
    assert all(np.array_equal(a, b) for a, b in zip(before, (image, masks, labels), strict=True))


def test_a_quarter_turn_is_clockwise_and_exact():
    image, masks = scene((30, 20, 15, 9))  # odd sides: the middle is that of a pixel
    masks[0, 20:24, 30:37] = 0  # no symmetry
    image[20:24, 30:37] = GROUND
    found, seen, _ = moved(image, masks, [([0], Move(turn=90))])
    expected = np.full_like(image, GROUND)
    expected[17:32, 33:42] = np.rot90(image[20:29, 30:45], -1)
    assert boxes_of(seen) == [(33, 17, 42, 32)]
    assert np.array_equal(seen[0, 17:32, 33:42], np.rot90(masks[0, 20:29, 30:45], -1))
    inside = seen[0].astype(bool)
    assert np.abs(found[inside].astype(int) - expected[inside]).max() <= 1
    assert (found[~inside] == GROUND).mean() > 0.99  # a rim of single pixels is mixed


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.2, 2.0])
def test_a_zoom_keeps_the_middle(zoom):
    image, masks = scene((30, 20, 20, 12))
    _, seen, _ = moved(image, masks, [([0], Move(zoom=zoom))])
    (x1, y1, x2, y2), *_ = boxes_of(seen)
    assert abs(x1 + x2 - 80) <= 1
    assert abs(y1 + y2 - 52) <= 1
    assert x2 - x1 == pytest.approx(20 * zoom, abs=1)
    assert y2 - y1 == pytest.approx(12 * zoom, abs=1)
    assert seen.sum() == pytest.approx(240 * zoom**2, rel=0.12)


def test_half_a_pixel_mixes_the_rim_only():
    image, masks = scene((30, 20, 15, 9))
    image[masks[0] > 0] = 240
    found, _, _ = moved(image, masks, [([0], Move(right=0.5))])
    # At the rim the object's colour is half ground, and covers half of what is under it.
    expected = [40] * 2 + [90] + [240] * 14 + [90] + [40] * 2
    assert found[24, 28:48, 0].tolist() == expected


def test_a_group_moves_as_one():
    image, masks = scene((30, 20, 15, 9), (40, 25, 12, 8))
    masks[0] &= ~masks[1] & 1
    found, seen, _ = moved(image, masks, [([0, 1], Move(right=-5, down=3))])
    assert np.array_equal(seen[:, 3:, :-5], masks[:, :-3, 5:])
    whole = masks.any(0)
    assert np.array_equal(found[3:, :-5][whole[:-3, 5:]], image[whole])


# One object before another.


def test_the_smaller_one_covers_the_larger_one():
    image, masks = scene((20, 15, 30, 20), (60, 20, 10, 8))
    moves = [([1], Move(right=-15)), ([0], Move(right=1))]
    found, seen, _ = moved(image, masks, moves)
    small, large = seen[1].astype(bool), seen[0].astype(bool)
    assert boxes_of(seen) == [(21, 15, 51, 35), (45, 20, 55, 28)]
    assert not (small & large).any()
    assert large.sum() == 600 - 6 * 8  # columns 45 to 50
    assert np.array_equal(found[20:28, 45:55], image[20:28, 60:70])


def test_one_that_stays_is_covered_too_and_keeps_its_pixels_elsewhere():
    image, masks = scene((40, 20, 6, 6), (20, 15, 18, 20))
    found, seen, _ = moved(image, masks, [([1], Move(right=5))])  # up to column 43
    assert boxes_of(seen) == [(43, 20, 46, 26), (25, 15, 43, 35)]
    assert np.array_equal(found[20:26, 43:46], image[20:26, 43:46])


def test_an_object_may_be_hidden():
    image, masks = scene((30, 20, 4, 4), (60, 18, 10, 8))
    moves = [([0], Move(right=1)), ([1], Move(right=-31))]
    _, seen, _ = moved(image, masks, moves)
    assert seen[0].any()  # the smaller one lies above
    _, seen, _ = moved(image, masks, moves[1:])
    assert not seen[0].any()
    assert seen[1].sum() == 80


# At the border of the image.


@pytest.mark.parametrize(
    "move", [Move(right=500), Move(down=-500), Move(zoom=1e-3, right=0.5, down=0.5)]
)
def test_one_that_would_leave_stays_with_its_group(move):
    image, masks = scene((30, 20, 15, 9), (3, 3, 4, 4))
    found, seen, _ = moved(image, masks, [([0, 1], move)])
    assert np.array_equal(found, image)
    assert np.array_equal(seen, masks)


def test_part_of_an_object_may_leave():
    image, masks = scene((5, 20, 15, 9))
    found, seen, _ = moved(image, masks, [([0], Move(right=-10))])
    assert boxes_of(seen) == [(0, 20, 10, 29)]
    assert np.array_equal(found[20:29, :10], image[20:29, 10:20])
    assert (found[:, 10:] == GROUND).all()


def test_an_object_that_fills_the_image_leaves_nothing_to_fill_with():
    image = pattern(HEIGHT, WIDTH)
    found, seen, _ = moved(image, np.ones((1, HEIGHT, WIDTH), np.uint8), [([0], Move(zoom=1.1))])
    assert found.shape == image.shape
    assert seen.all()


def random_draws(box, count=300, **changes):
    random = np.random.default_rng(3)
    limits = Limits(**changes)
    return [draw(box, (HEIGHT, WIDTH), limits, random) for _ in range(count)]


def test_moves_stay_within_their_limits():
    drawn = random_draws((20, 25, 50, 40))  # 30 x 15
    for key, low, high in (
        ("right", -2, 2),
        ("down", -1, 1),
        ("zoom", 0.8, 1.2),
        ("turn", -1, 1),
    ):
        values = [getattr(move, key) for move in drawn]
        assert low <= min(values) < 0.95 * low + 0.05 * high
        assert 0.95 * high + 0.05 * low < max(values) <= high


def test_what_the_border_cuts_goes_on_being_cut():
    sides = {"left": (0, 20, 30, 40), "top": (30, 3, 50, 30)}
    sides |= {"right": (40, 20, WIDTH - BORDER + 1, 40), "bottom": (30, 20, 50, HEIGHT)}
    for side, box in sides.items():
        drawn = random_draws(box)
        assert all(move.turn == 0 and move.zoom >= 1 for move in drawn)
        along, across = ("right", "down") if side in ("left", "right") else ("down", "right")
        sign = -1 if side in ("left", "top") else 1
        assert all(sign * getattr(move, along) >= 0 for move in drawn), side
        assert min(getattr(move, across) for move in drawn) < 0
        assert max(getattr(move, across) for move in drawn) > 0
    whole = random_draws((0, 0, WIDTH, HEIGHT))
    assert {(move.right, move.down) for move in whole} == {(0.0, 0.0)}


def test_an_object_at_the_border_still_touches_it():
    image, masks = scene((0, 20, 15, 9))
    for seed in range(10):
        _, seen, _ = boosted(image, masks, LIMITS, np.random.default_rng(seed))
        assert boxes_of(seen)[0][0] == 0


# What fills the hole, and what the label map says.


def test_the_hole_is_filled_from_around_it():
    image, masks = scene((30, 20, 10, 10))
    image[:, 42:] = 200  # another ground on the right
    found, seen, _ = moved(image, masks, [([0], Move(down=25))])
    hole = masks[0].astype(bool) & ~seen[0].astype(bool)
    assert hole.sum() == 100
    filled = found[hole].astype(int)
    assert (filled >= np.array(GROUND) - 2).all()
    assert (filled <= 202).all()
    assert np.abs(found[20:30, 30:33].astype(int) - GROUND).max() <= 12


def test_labels_move_with_their_object():
    image, masks = scene((30, 20, 15, 9))
    labels = np.full((HEIGHT, WIDTH), 3, np.uint8)
    labels[20:29, 30:45] = 7
    labels[20:29, 40:45] = 8
    _, seen, found = moved(image, masks, [([0], Move(right=7, down=-4))], labels)
    expected = np.full_like(labels, 3)
    expected[20:29, 30:45] = IGNORE
    expected[16:25, 37:52] = labels[20:29, 30:45]
    assert np.array_equal(found, expected)
    assert seen[0].sum() == 135


# Groups, chance and sizes.


def test_boxes_that_overlap_in_a_chain_are_together():
    boxes = [(0, 0, 10, 10), (30, 0, 40, 10), (9, 9, 20, 20), (19, 0, 31, 12), (40, 0, 50, 10)]
    assert together(boxes) == [[0, 1, 2, 3], [4]]
    assert together([]) == []
    assert together([(0, 0, 5, 5), (5, 0, 10, 5)]) == [[0], [1]]  # side by side


def test_the_same_seed_gives_the_same_image():
    image, masks = scene((20, 15, 16, 12), (50, 20, 20, 30), (64, 40, 9, 9))
    one, two, three = (boosted(image, masks, LIMITS, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(one[0], two[0])
    assert np.array_equal(one[1], two[1])
    assert not np.array_equal(one[0], three[0])


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (61, 84)])
def test_any_size(size):
    image = pattern(*size)
    masks = np.zeros((2, *size), np.uint8)
    masks[0, 0, 0] = masks[1, -1, -1] = 1
    found, seen, _ = boosted(image, masks, LIMITS, np.random.default_rng(0))
    assert found.shape == image.shape
    assert seen.shape == masks.shape
    assert seen.any((1, 2)).sum() >= 1


def test_nothing_to_move():
    image, masks = scene()
    found, seen, _ = boosted(image, masks, LIMITS, np.random.default_rng(0))
    assert np.array_equal(found, image)
    assert len(seen) == 0


def test_extents_are_counted_pixel_by_pixel():
    mask = np.zeros((7, 9), np.uint8)
    mask[2, 3] = mask[5, 1] = 1
    assert extents(mask) == (1, 2, 4, 6) == boxes_of([mask])[0]
