"""A large image as a grid of overlapping tiles, all of one size.

Each pixel is in the cell of one tile: of those that see it, the one whose borders within the image
are farthest. Letters: i j row and column of a tile in the grid.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from swin_dense.errors import InputError

SMALLEST = 32  # pixels: the coarsest stride of models


class Rectangle(NamedTuple):
    """Sides in pixels; the last two are behind it."""

    left: int
    top: int
    right: int
    bottom: int

    def cut(self, other: "Rectangle") -> "Rectangle":
        """Return what is in both; its sides are in disorder if there is nothing."""
        return Rectangle(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )

    @property
    def empty(self) -> bool:
        """Say whether there is nothing in it."""
        return self.left >= self.right or self.top >= self.bottom


@dataclass(frozen=True)
class Grid:
    """Where tiles begin.

    Attributes:
        size: height and width of the image in pixels.
        tile: height and width of every tile.
        rows, columns: first row and first column of the tiles in each row and column of the grid.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((i, j) for i in range(len(self.rows)) for j in range(len(self.columns)))

    def frame(self, i: int, j: int) -> Rectangle:
        """Return what a tile sees."""
        top, left = self.rows[i], self.columns[j]
        return Rectangle(left, top, left + self.tile[1], top + self.tile[0])

    def cell(self, i: int, j: int) -> Rectangle:
        """Return what a tile sees best."""
        top, bottom = _cell(self.rows, self.tile[0], self.size[0], i)
        left, right = _cell(self.columns, self.tile[1], self.size[1], j)
        return Rectangle(left, top, right, bottom)

    def owner(self, x: float, y: float) -> tuple[int, int]:
        """Return the tile in whose cell a point is."""
        return _owner(self.rows, self.tile[0], y), _owner(self.columns, self.tile[1], x)

    def inside(self, i: int, j: int, margin: float) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom of what lies off a tile's borders with other tiles."""
        left, top, right, bottom = self.frame(i, j)
        height, width = self.size
        return (
            left + margin if left else -math.inf,
            top + margin if top else -math.inf,
            right - margin if right < width else math.inf,
            bottom - margin if bottom < height else math.inf,
        )


def lay(size: tuple[int, int], tile: int, overlap: int) -> Grid:
    """Spread tiles evenly over an image of (height, width), each over its neighbours.

    Args:
        tile: side of a tile in pixels; an image's shorter side may be less.
        overlap: pixels that neighbours share at least.

    Raises:
        InputError: a tile is too small, or no larger than the overlap.
    """
    for name, value, least in (("tile", tile, SMALLEST), ("overlap", overlap, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"`{name}`: a whole number of pixels from {least}, got {value!r}.")
    if overlap >= tile:
        raise InputError(
            f"`overlap`: {overlap} pixels are not less than a tile's {tile}. A quarter of the tile "
            "is usual; objects up to the overlap are seen whole by some tile."
        )
    height, width = (min(side, tile) for side in size)
    rows, columns = (starts(side, tile, overlap) for side in size)
    return Grid(size, (height, width), rows, columns)


def starts(side: int, tile: int, overlap: int) -> tuple[int, ...]:
    """Return where tiles begin along a side: evenly."""
    if side <= tile:
        return (0,)
    count = -(-(side - overlap) // (tile - overlap))
    return tuple(k * (side - tile) // (count - 1) for k in range(count))


def _cell(begins: tuple[int, ...], tile: int, side: int, k: int) -> tuple[int, int]:
    return (
        _between(begins, tile, k) if k else 0,
        _between(begins, tile, k + 1) if k + 1 < len(begins) else side,
    )


def _between(begins: tuple[int, ...], tile: int, k: int) -> int:
    """Return the middle of what tile k and the one before it share."""
    return (begins[k] + begins[k - 1] + tile) // 2


def _owner(begins: tuple[int, ...], tile: int, at: float) -> int:
    return sum(at >= _between(begins, tile, k) for k in range(1, len(begins)))
