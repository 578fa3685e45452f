"""Masks are measured as pycocotools decodes them, and as a loop over points has it."""

import numpy as np
import pytest
from pycocotools import mask as rle

from swin_dense.datasets import coco_masks
from swin_dense.datasets.coco_masks import decode_text, measure


def texts_of(masks):
    return [rle.encode(np.asfortranarray(mask, np.uint8))["counts"] for mask in masks]


def together(texts):
    starts = np.cumsum([0, *map(len, texts[:-1])])
    return np.frombuffer(b"".join(texts), np.uint8), starts


def test_packed_run_lengths_decode_as_pycocotools_packs_them():
    random = np.random.default_rng(0)
    runs = [[3], [0, 5], [7, 1, 2], [0, 1, 1, 1, 1], [2**31 - 9, 8, 70000, 1, 0, 4]]
    runs += [random.integers(0, 10 ** random.integers(1, 6), 37).tolist() for _ in range(50)]
    texts = [rle.frPyObjects({"counts": r, "size": [1, sum(r)]}, 1, sum(r))["counts"] for r in runs]
    found, right, starts = decode_text(*together(texts))
    assert right.all()
    for i, expected in enumerate(runs):
        assert found[starts[i] :][: len(expected)].tolist() == expected
    assert len(found) == sum(map(len, runs))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"Q", "says that more follows"),
        (b"1\x20", "a character below 0"),
        (b"1p", "a character above o"),
        (b"O", "a run of -1"),
        (b"PPPPPPPPPPPPPP1", "a number of more than 64 bits"),
    ],
)
def test_what_does_not_decode_is_alone_in_it(text, why):
    _, right, starts = decode_text(*together([b"52", text, b"34"]))
    whole = np.logical_and.reduceat(right, starts)
    assert whole.tolist() == [True, False, True], why


def columns_of(masks):
    """Columns by hand: of each mask a list of polygons, a list of runs or a text."""
    kinds = [
        coco_masks.TEXT
        if isinstance(m, bytes)
        else coco_masks.POLYGONS
        if isinstance(m[0], list)
        else coco_masks.RUNS
        for m in masks
    ]
    parts = [
        [] if k == coco_masks.TEXT else m if k == coco_masks.POLYGONS else [m]
        for k, m in zip(kinds, masks, strict=True)
    ]
    texts = [m if isinstance(m, bytes) else b"" for m in masks]
    flat = [part for some in parts for part in some]
    return {
        "mask_kind": np.array(kinds, np.int8),
        "parts": np.cumsum([0, *map(len, parts)]),
        "numbers_at": np.cumsum([0, *map(len, flat)]),
        "numbers": np.array([n for part in flat for n in part], float),
        "texts_at": np.cumsum([0, *map(len, texts)]),
        "texts": np.frombuffer(b"".join(texts), np.uint8),
    }


def by_hand(mask):
    """Area and extent of polygons, in loops over points."""
    area, xs, ys = 0.0, [], []
    for part in mask:
        points = list(zip(part[::2], part[1::2], strict=True))
        twice = 0.0
        for (x, y), (u, v) in zip(points, points[1:] + points[:1], strict=True):
            twice += x * v - u * y
        area += abs(twice) / 2
        xs += part[::2]
        ys += part[1::2]
    return area, [min(xs), min(ys), max(xs), max(ys)]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_areas_extents_and_sums(monkeypatch, block):
    monkeypatch.setattr(coco_masks, "BLOCK", block)
    random = np.random.default_rng(1)
    masks = []
    for i in range(60):
        bitmap = random.random((5 + i % 3, 7)) < 0.4
        lengths = 2 * random.integers(3, 9, 1 + i % 4)
        masks += [
            [random.uniform(-50, 900, n).tolist() for n in lengths],
            texts_of([bitmap])[0],
            [float(v) for v in (i, 2, 5, i, 1)],
        ]
    rows = np.array([i for i in range(len(masks)) if i % 7 != 5])
    found = measure(columns_of(masks), rows)
    for place, i in enumerate(rows):
        mask = masks[i]
        if isinstance(mask, bytes):
            size = [5 + i // 3 % 3, 7]
            assert found.filled[place] == size[0] * 7
            assert found.area[place] == rle.area({"counts": mask, "size": size})
        elif isinstance(mask[0], float):
            assert (found.filled[place], found.area[place]) == (sum(mask), mask[1] + mask[3])
        else:
            area, extent = by_hand(mask)
            assert found.area[place] == pytest.approx(area, rel=1e-12)
            assert found.extent[place].tolist() == extent
            assert np.isnan(found.filled[place])


def test_runs_that_are_none():
    found = measure(columns_of([[1.0, -2.0, 3.0], [1.0, 0.5], [4.0]]), np.arange(3))
    assert np.isnan(found.filled).tolist() == [True, True, False]
    nothing = measure(columns_of([[4.0]]), np.arange(0))
    assert nothing.area.shape == (0,)
    assert nothing.extent.shape == (0, 4)
