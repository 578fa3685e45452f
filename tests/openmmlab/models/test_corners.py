"""Corners of objects against loops over places, and boxes laid over one another by hand."""

import math

import pytest
import torch

import swin_dense.openmmlab  # noqa: F401
from swin_dense.openmmlab.models.corners import CornerPools, corner_targets, radii, snap

STRIDE = 8
SIZE = (5, 7)  # places; 32 x 48 pixels lie between them


# Pools.


@pytest.mark.parametrize("directions", [("top", "left"), ("bottom", "right")])
def test_corner_pools_by_hand(directions):
    """Of all places below and to the right of one, or above and to the left of it."""
    torch.manual_seed(5)
    module = CornerPools(6, 4, directions, dict(type="GN", num_groups=2)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    vertical, horizontal = module.direction1_conv(x), module.direction2_conv(x)
    pooled = torch.empty_like(vertical)
    for i in range(5):
        for j in range(3):
            rows, columns = slice(i, None), slice(j, None)
            if directions[0] == "bottom":
                rows, columns = slice(0, i + 1), slice(0, j + 1)
            pooled[:, :, i, j] = vertical[:, :, rows, j].amax(2) + horizontal[
                :, :, i, columns
            ].amax(2)
    joined = module.aftpool_conv(pooled) + module.conv1(x)
    expected = module.conv2(joined.clamp(min=0))
    assert module.conv2.conv.kernel_size == (1, 1)
    assert module.aftpool_conv.act_cfg is module.conv1.act_cfg is None
    assert (expected >= 0).all()
    torch.testing.assert_close(module(x), expected)


# Targets.


def overlap(one, other):
    """IoU of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other))
    return width * height / (areas - width * height)


@pytest.mark.parametrize("sides", [(40.0, 40.0), (90.0, 17.0), (6.0, 200.0)])
def test_a_radius_keeps_seven_tenths(sides):
    """Both corners off by it, whether apart, towards each other or together; one just does."""
    width, height = sides
    box = torch.tensor([[3.0, 5.0, 3.0 + width, 5.0 + height]])
    radius = radii(box).item()
    x1, y1, x2, y2 = box[0].tolist()
    r = radius
    overlaps = [
        overlap((x1, y1, x2, y2), moved)
        for moved in (
            (x1 + r, y1 + r, x2 - r, y2 - r),
            (x1 - r, y1 - r, x2 + r, y2 + r),
            (x1 + r, y1 + r, x2 + r, y2 + r),
        )
    ]
    assert min(overlaps) == pytest.approx(0.7, abs=1e-5)


def test_nothing_has_no_radius():
    assert radii(torch.tensor([[3.0, 4.0, 3.0, 9.0], [2.0, 2.0, 2.0, 2.0]])).tolist() == [0, 0]
    assert radii(torch.empty(0, 4)).shape == (0,)


CORNERS = [
    ((11.0, 14.5), 13.0),  # nearest is (1, 2), others are within its radius
    ((14.0, 21.0), 10.0),  # (2, 3), meets the first
    ((45.0, 3.0), 2.0),  # (6, 0), alone
    ((47.9, 1.0), 2.0),  # (6, 0) too, from a little closer
    ((70.0, 41.0), 30.0),  # outside the map; (6, 4), far from it
    ((1.0, 30.0), 0.0),  # (0, 4), of an object without an area
]


def by_hand(corners):
    """Heat and offset, place by place."""
    heat, offset = torch.zeros(SIZE), torch.zeros(2, *SIZE)
    claimed = {}
    for (x, y), radius in corners:
        sigma = (2 * radius + 1) / 6
        distances = {}
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                d = math.dist((x, y), (column * STRIDE, row * STRIDE))
                distances[row, column] = d
                if d < radius:
                    bump = math.exp(-d * d / (2 * sigma * sigma))
                    heat[row, column] = max(heat[row, column].item(), bump)
        place = min(distances, key=distances.get)
        if distances[place] < claimed.get(place, (math.inf,))[0]:
            claimed[place] = distances[place], x, y
    for (row, column), (_, x, y) in claimed.items():
        heat[row, column] = 1
        offset[:, row, column] = torch.tensor([x / STRIDE - column, y / STRIDE - row])
    return heat, offset


@pytest.mark.parametrize("chosen", [range(6), [1], [0, 1], [3, 2], [4], [5]])
def test_targets_by_hand(chosen):
    corners = [CORNERS[i] for i in chosen]
    points = torch.tensor([point for point, _ in corners])
    radius = torch.tensor([radius for _, radius in corners])
    heat, offset = corner_targets(points, radius, SIZE, STRIDE)
    expected_heat, expected_offset = by_hand(corners)
    torch.testing.assert_close(heat, expected_heat)
    torch.testing.assert_close(offset, expected_offset)


def test_the_places_named_above_are_the_nearest():
    heat, offset = by_hand(CORNERS)
    places = {(2, 1), (3, 2), (0, 6), (4, 6), (4, 0)}
    assert {tuple(p) for p in (heat == 1).nonzero().tolist()} == places
    assert ((heat > 0) & (heat < 1)).sum() >= 4
    assert offset[:, 0, 6].tolist() == pytest.approx([47.9 / 8 - 6, 1 / 8])


def test_no_object_no_corner():
    heat, offset = corner_targets(torch.empty(0, 2), torch.empty(0), SIZE, STRIDE)
    assert heat.shape == SIZE
    assert offset.shape == (2, *SIZE)
    assert not heat.any()
    assert not offset.any()


# Where they are found.


def test_points_go_where_the_hottest_of_four_places_says():
    heat, offset = torch.full((4, 6), -9.0), torch.zeros(2, 4, 6)
    heat[2, 3], offset[:, 2, 3] = 1.0, torch.tensor([0.25, -0.5])
    heat[1, 1] = 5.0
    points = torch.tensor(
        [
            [17.0, 15.9],  # places (2..3, 1..2), of which (3, 2) is hot: (3.25, 1.5) * 8
            [31.9, 23.9],  # (3..4, 2..3): the same
            [15.9, 8.0],  # (1..2, 1..2): (1, 1) without an offset
            [47.0, 31.0],  # (5, 3) becomes (4..5, 2..3): all as hot, then the first of them
            [-3.0, -1.0],  # (0..1, 0..1)
        ]
    )
    found = snap(points, heat, offset, STRIDE)
    assert found.tolist() == [[26, 12], [26, 12], [8, 8], [32, 16], [8, 8]]


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (2, 2)])
def test_small_maps(size):
    """Against a search over the window, cut at the map's border."""
    torch.manual_seed(7)
    heat, offset = torch.randn(size), torch.randn(2, *size)
    points = torch.rand(29, 2) * 40 - 5
    found = snap(points, heat, offset, STRIDE)
    for (x, y), place in zip(points.tolist(), found, strict=True):
        column, row = (
            max(0, min(math.floor(at / STRIDE), count - 2))
            for at, count in zip((x, y), size[::-1], strict=True)
        )
        window = [
            (i, j)
            for i in range(row, min(row + 2, size[0]))
            for j in range(column, min(column + 2, size[1]))
        ]
        i, j = max(window, key=lambda at: heat[at].item())
        expected = (torch.tensor([j, i]) + offset[:, i, j]) * STRIDE
        torch.testing.assert_close(place, expected)


def test_no_box_no_corner():
    assert snap(torch.empty(0, 2), torch.randn(3, 2), torch.randn(2, 3, 2), 8).shape == (0, 2)
