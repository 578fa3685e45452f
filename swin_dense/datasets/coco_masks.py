"""Masks of a COCO instance file, measured without drawing one: areas, extents, sums of run lengths.

All of it works on the columns of `coco_file.CocoFile`, a block at a time, so that a file of any
size needs little memory. Letters: m annotations, p parts, k numbers or characters of a block.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

# What the segmentation of an annotation is: absent, polygons, run lengths as numbers or as text,
# an empty list, or something that is no mask.
NONE, POLYGONS, RUNS, TEXT, EMPTY, ODD = range(6)
BLOCK = 1 << 20  # numbers looked at together
LOWEST, HIGHEST = 48, 111  # characters of compressed run lengths: six bits each, from "0"
LONGEST = 12  # characters of one number that still fits 64 bits


@dataclasses.dataclass
class Measures:
    """Hold what masks cover, for each annotation asked for; nan where there is no such mask."""

    area: np.ndarray  # (m,) pixels: of polygons the sum of their parts, even where these overlap
    extent: np.ndarray  # (m, 4) left, top, right, bottom of polygons
    filled: np.ndarray  # (m,) sum of run lengths; nan if they do not decode
    outline: np.ndarray  # (m,) pixels along the outlines of polygons, which who draws goes through


def measure(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> Measures:
    """Measure the masks of some annotations.

    Args:
        columns: mask_kind, parts, numbers_at, numbers, texts_at and texts, see `CocoFile`.
        rows: (m,) ascending positions of annotations.
    """
    m = len(rows)
    found = Measures(*(np.full(shape, np.nan) for shape in (m, (m, 4), m, m)))
    kinds = columns["mask_kind"][rows]
    parts, at = columns["parts"], columns["numbers_at"]
    where = np.flatnonzero(kinds == POLYGONS)
    for block in _blocks(where, at[parts[rows[where] + 1]] - at[parts[rows[where]]]):
        with np.errstate(over="ignore", invalid="ignore"):  # infinite is over every limit
            of_polygons = _polygons(columns, rows[block])
        found.area[block], found.extent[block], found.outline[block] = of_polygons
    where = np.flatnonzero(kinds == RUNS)
    for block in _blocks(where, at[parts[rows[where] + 1]] - at[parts[rows[where]]]):
        values, starts = _gather(
            columns["numbers"], at[parts[rows[block]]], at[parts[rows[block]] + 1]
        )
        right = (values >= 0) & (values == np.floor(values))
        found.filled[block], found.area[block] = _sums(values, right, starts)
    where = np.flatnonzero(kinds == TEXT)
    at = columns["texts_at"]
    for block in _blocks(where, at[rows[where] + 1] - at[rows[where]]):
        characters, starts = _gather(columns["texts"], at[rows[block]], at[rows[block] + 1])
        found.filled[block], found.area[block] = _sums(*decode_text(characters, starts))
    return found


def mask_areas(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Return the areas of some annotations' masks, of their boxes where there is no mask: (m,)."""
    areas = measure(columns, rows).area
    boxes = columns["box"][rows]
    return np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas)


def _blocks(where: np.ndarray, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Cut positions into runs of about BLOCK numbers each."""
    if len(where):
        cuts = np.flatnonzero(np.diff(np.cumsum(sizes) // BLOCK)) + 1
        yield from np.split(where, cuts)


def _gather(
    values: np.ndarray, begins: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values from each begin to its end, one after another, and where each starts."""
    lengths = ends - begins
    starts = np.cumsum(lengths) - lengths
    if len(begins) and ends[-1] - begins[0] == lengths.sum():  # they lie side by side: no copy
        return values[begins[0] : ends[-1]], starts
    places = np.repeat(begins - starts, lengths) + np.arange(lengths.sum())
    return values[places], starts


def _polygons(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return area (m,), extent (m, 4) and outline (m,) of annotations that are polygons."""
    parts, at = columns["parts"], columns["numbers_at"]
    first, last = parts[rows], parts[rows + 1]
    numbers, _ = _gather(columns["numbers"], at[first], at[last])
    which, part_starts = _gather(np.arange(len(at) - 1), first, last)
    points = (at[which + 1] - at[which]) // 2  # of each part
    starts = np.cumsum(points) - points
    x, y = numbers[0::2], numbers[1::2]
    following = np.arange(1, len(x) + 1)
    following[starts + points - 1] = starts  # the last point is followed by the first
    # About its first point, so that a polygon far from the corner loses no digits.
    dx, dy = x - np.repeat(x[starts], points), y - np.repeat(y[starts], points)
    twice = np.add.reduceat(dx * dy[following] - dx[following] * dy, starts)
    area = np.add.reduceat(np.abs(twice) / 2, part_starts)
    of_rows = starts[part_starts]
    steps = np.maximum(np.abs(dx[following] - dx), np.abs(dy[following] - dy))
    outline = np.add.reduceat(steps, of_rows)
    extent = [
        np.minimum.reduceat(x, of_rows),
        np.minimum.reduceat(y, of_rows),
        np.maximum.reduceat(x, of_rows),
        np.maximum.reduceat(y, of_rows),
    ]
    return area, np.stack(extent, axis=1), outline


def _sums(runs: np.ndarray, right: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum of all run lengths of each mask, and of every second one, its area.

    Args:
        runs: (k,) of all masks.
        right: (k,) whether each decoded.
        starts: (m,) where each mask begins.
    """
    runs = runs.astype(np.float64)
    order = np.arange(len(runs)) - np.repeat(starts, np.diff(starts, append=len(runs)))
    whole = np.logical_and.reduceat(right, starts)
    filled = np.add.reduceat(runs, starts)
    area = np.add.reduceat(np.where(order % 2 == 1, runs, 0.0), starts)
    return np.where(whole, filled, np.nan), np.where(whole, area, np.nan)


def decode_text(
    characters: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode compressed run lengths of several masks together.

    The format is that of pycocotools' common/maskApi.c: a number is written five bits a character,
    lowest first, bit 6 saying that more follow, the last one's bit 5 being the sign; from the
    fourth number on it is the difference to the last but one.

    Args:
        characters: (k,) uint8, of one mask after another; no mask is empty.
        starts: (m,) where each begins.

    Returns:
        run lengths, whether each one decoded, and where each mask's begin.
    """
    ends = np.append(starts[1:], len(characters))
    code = characters.astype(np.int64) - LOWEST
    right = (characters >= LOWEST) & (characters <= HIGHEST)
    more = right & (code & 0x20 != 0)
    cut = more[ends - 1]  # the text stops within a number
    last = ~more
    last[ends - 1] = True
    stops = np.flatnonzero(last)
    begins = np.append(0, stops[:-1] + 1)
    place = np.arange(len(code)) - np.repeat(begins, stops - begins + 1)
    shift = np.minimum(5 * place, 60)
    values = np.add.reduceat((code & 0x1F) << shift, begins)
    negative = code[stops] & 0x10 != 0
    length = stops - begins + 1
    values = np.where(negative, values - (1 << np.minimum(5 * length, 62)), values)
    good = np.logical_and.reduceat(right, begins) & (length <= LONGEST)
    number_at = np.searchsorted(begins, starts)
    good[np.append(number_at[1:], len(begins))[cut] - 1] = False
    counts = np.diff(number_at, append=len(begins))
    order = np.arange(len(begins)) - np.repeat(number_at, counts)
    runs = values.copy()
    for parity in (1, 0):
        chosen = np.flatnonzero((order % 2 == parity) & (order > 0))
        if len(chosen):
            sums = np.cumsum(np.where(good[chosen], values[chosen], 0))
            mask_of = np.searchsorted(number_at, chosen, side="right") - 1
            head = np.append(True, mask_of[1:] != mask_of[:-1])
            before = np.where(head, sums - values[chosen] * good[chosen], 0)
            runs[chosen] = sums - before[head][np.cumsum(head) - 1]
    return runs, good & (runs >= 0), number_at
