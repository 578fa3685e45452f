"""Objects that were found in overlapping tiles, made those of the whole image.

Where several tiles see an object, the one that sees it best decides:

1. What lies off the borders of the tile in whose cell its middle is belongs to that tile; what
   others found there is dropped, also where that tile found nothing.
2. Of two whole objects of a class that are one (intersection over union above a half) the surer
   is kept. An object is whole if it keeps off the borders of its tile within the image.
3. A part that a whole object of its class covers by half or more is dropped.
4. Two of a class, a part and a part or a part and a whole, are one object if they agree where
   both tiles look: intersection over union there of a half or more. Each pixel of it is what the
   tile says that sees the pixel best; its score is the mean of the scores, weighted by area.

So an object up to the overlap is what one tile saw, and a larger one is put together.
Without masks, boxes stand for them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from swin_dense.openmmlab.engine.grid import Grid, Rectangle
from swin_dense.report.masks import Crop

SAME = 0.5  # share of pixels above which two are one object
MARGIN = 1 / 64  # of a tile's side: nearer to its border an object may go on behind it
Tile = tuple[int, int]


class Found(NamedTuple):
    """An object: class, score, box (left, top, right, bottom) and mask in the whole image."""

    label: int
    score: float
    box: tuple[float, float, float, float]
    mask: Crop | None

    @property
    def sides(self) -> Rectangle:
        """Return the rectangle of the pixels that it may have."""
        if self.mask is None:
            left, top, right, bottom = (round(side) for side in self.box)
            return Rectangle(left, top, max(right, left + 1), max(bottom, top + 1))
        height, width = self.mask.pixels.shape
        left, top = self.mask.left, self.mask.top
        return Rectangle(left, top, left + width, top + height)

    def area(self, within: Rectangle) -> int:
        """Count its pixels in a rectangle."""
        part = self.sides.cut(within)
        if part.empty:
            return 0
        if self.mask is None:
            return (part.right - part.left) * (part.bottom - part.top)
        return int(np.count_nonzero(_pixels(self.mask, part)))

    def shared(self, other: "Found", within: Rectangle) -> int:
        """Count the pixels in a rectangle that are of both."""
        part = self.sides.cut(other.sides).cut(within)
        if part.empty:
            return 0
        if self.mask is None or other.mask is None:
            return (part.right - part.left) * (part.bottom - part.top)
        both = _pixels(self.mask, part) & _pixels(other.mask, part)
        return int(np.count_nonzero(both))


class Seams:
    """Collects what tiles find; `joined` returns the objects of the whole image."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.margin = max(2.0, min(grid.tile) * MARGIN)
        self._everything = Rectangle(0, 0, grid.size[1], grid.size[0])
        self.found: list[Found] = []
        self._tile: list[Tile] = []
        self._whole: list[bool] = []
        self._of_tile: dict[Tile, list[int]] = defaultdict(list)

    def add(self, tile: Tile, objects: Iterable[Found]) -> None:
        """Take over what a tile found, in pixels of the whole image."""
        for one in objects:
            if not self._belongs_to_another(tile, one):
                self._of_tile[tile].append(len(self.found))
                self.found.append(one)
                self._tile.append(tile)
                self._whole.append(self._within(tile, one))

    def joined(self) -> list[Found]:
        """Return the objects, the surest first."""
        pairs = list(self._pairs())
        kept = self._without_doubles(pairs)
        kept = self._without_covered(pairs, kept)
        groups = self._groups(pairs, kept)
        united = [
            self.found[group[0]] if len(group) == 1 else self._united(group) for group in groups
        ]
        order = sorted(range(len(united)), key=lambda k: -united[k].score)
        return _surest([(united[k], len(groups[k]) > 1) for k in order], self._everything)

    def _within(self, tile: Tile, one: Found) -> bool:
        left, top, right, bottom = self.grid.inside(*tile, self.margin)
        box, sides = one.box, one.sides
        return (
            min(box[0], sides.left) >= left
            and min(box[1], sides.top) >= top
            and max(box[2], sides.right) <= right
            and max(box[3], sides.bottom) <= bottom
        )

    def _belongs_to_another(self, tile: Tile, one: Found) -> bool:
        """Say whether another tile sees all of it, and better, by more than a margin."""
        sides = one.sides if one.mask is not None and one.mask.pixels.size else one.box
        x, y = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
        owner = self.grid.owner(x, y)
        if owner == tile or not self._within(owner, one):
            return False
        left, top, right, bottom = self.grid.cell(*tile)
        away = max(left - x, x - right, top - y, y - bottom)
        return away > self.margin

    def _pairs(self) -> Iterator[tuple[int, int, Rectangle]]:
        """Give each two of one class that meet, of two tiles, and what both tiles see."""
        tiles = sorted(self._of_tile)
        for place, one in enumerate(tiles):
            frame = self.grid.frame(*one)
            for other in tiles[place + 1 :]:
                below = self.grid.frame(*other)
                if below.top >= frame.bottom:
                    break  # sorted by rows
                zone = frame.cut(below)
                if not zone.empty:
                    yield from self._meeting(self._of_tile[one], self._of_tile[other], zone)

    def _meeting(
        self, ones: list[int], others: list[int], zone: Rectangle
    ) -> Iterator[tuple[int, int, Rectangle]]:
        sides = [np.array([self.found[k].sides for k in row]) for row in (ones, others)]
        labels = [np.array([self.found[k].label for k in row]) for row in (ones, others)]
        low = np.maximum(sides[0][:, None, :2], sides[1][None, :, :2])
        high = np.minimum(sides[0][:, None, 2:], sides[1][None, :, 2:])
        meet = (low < high).all(-1) & (labels[0][:, None] == labels[1][None])
        for a, b in np.argwhere(meet).tolist():
            yield ones[a], others[b], zone

    def _without_doubles(self, pairs: list[tuple[int, int, Rectangle]]) -> set[int]:
        """Drop whole objects that are a surer one."""
        rivals = defaultdict(list)
        for a, b, _ in pairs:
            if self._whole[a] and self._whole[b] and self._same(a, b, self._everything):
                rivals[a].append(b)
                rivals[b].append(a)
        kept = set(range(len(self.found)))
        for k in sorted(rivals, key=lambda k: -self.found[k].score):
            if k in kept:
                kept.difference_update(rivals[k])
        return kept

    def _without_covered(self, pairs: list[tuple[int, int, Rectangle]], kept: set[int]) -> set[int]:
        """Drop parts that a whole object covers."""
        covered = set()
        for pair in pairs:
            if kept.issuperset(pair[:2]) and self._whole[pair[0]] != self._whole[pair[1]]:
                whole, part = sorted(pair[:2], key=lambda k: not self._whole[k])
                one = self.found[part]
                shared = one.shared(self.found[whole], self._everything)
                if shared >= SAME * max(1, one.area(self._everything)):
                    covered.add(part)
        return kept - covered

    def _groups(self, pairs: list[tuple[int, int, Rectangle]], kept: set[int]) -> list[list[int]]:
        """Put together what is one object."""
        parent = {k: k for k in kept}

        def root(k: int) -> int:
            while parent[k] != k:
                parent[k] = k = parent[parent[k]]
            return k

        for a, b, zone in pairs:
            parts = not (self._whole[a] and self._whole[b])
            if parts and a in kept and b in kept and self._same(a, b, zone):
                parent[root(b)] = root(a)
        groups = defaultdict(list)
        for k in sorted(kept):
            groups[root(k)].append(k)
        return list(groups.values())

    def _same(self, a: int, b: int, within: Rectangle) -> bool:
        return _same(self.found[a], self.found[b], within)

    def _united(self, group: list[int]) -> Found:
        """Make one object of its parts."""
        parts = [self.found[k] for k in group]
        areas = np.array([max(1, part.area(self._everything)) for part in parts])
        score = float(np.average([part.score for part in parts], weights=areas))
        if parts[0].mask is None:
            boxes = np.array([part.box for part in parts])
            left, top = boxes[:, :2].min(0).tolist()
            right, bottom = boxes[:, 2:].max(0).tolist()
            return Found(parts[0].label, score, (left, top, right, bottom), None)
        mask = _cropped(self._composed(group))
        height, width = mask.pixels.shape
        box = (mask.left, mask.top, mask.left + width, mask.top + height)
        return Found(parts[0].label, score, box, mask)

    def _composed(self, group: list[int]) -> Crop:
        """Lay masks together: what the tile of a cell says of it, where it has a part at all."""
        sides = np.array([self.found[k].sides for k in group])
        (left, top), (right, bottom) = sides[:, :2].min(0).tolist(), sides[:, 2:].max(0).tolist()
        around = Rectangle(left, top, right, bottom)
        canvas = np.zeros((bottom - top, right - left), bool)
        self._lay(canvas, around, group, around)
        by_tile = defaultdict(list)
        for k in group:
            by_tile[self._tile[k]].append(k)
        for tile, parts in by_tile.items():
            cell = self.grid.cell(*tile).cut(around)
            if not cell.empty:
                canvas[cell.top - top : cell.bottom - top, cell.left - left : cell.right - left] = 0
                self._lay(canvas, around, parts, cell)
        return Crop(top, left, canvas)

    def _lay(
        self, canvas: np.ndarray, around: Rectangle, group: list[int], within: Rectangle
    ) -> None:
        for k in group:
            part = self.found[k].sides.cut(within)
            mask = self.found[k].mask
            if not part.empty and mask is not None:
                rows = slice(part.top - around.top, part.bottom - around.top)
                columns = slice(part.left - around.left, part.right - around.left)
                canvas[rows, columns] |= _pixels(mask, part)


def _pixels(mask: Crop, part: Rectangle) -> np.ndarray:
    rows = slice(part.top - mask.top, part.bottom - mask.top)
    return mask.pixels[rows, part.left - mask.left : part.right - mask.left]


def _same(one: Found, other: Found, within: Rectangle) -> bool:
    shared = one.shared(other, within)
    return shared > 0 and shared >= SAME * (one.area(within) + other.area(within) - shared)


def _surest(rows: list[tuple[Found, bool]], everything: Rectangle) -> list[Found]:
    """Drop, of objects the surest first, those that are a surer one, if either was united."""
    united = [k for k, (_, joined) in enumerate(rows) if joined]
    dropped: set[int] = set()
    sides = np.array([one.sides for one, _ in rows]).reshape(-1, 4)
    labels = np.array([one.label for one, _ in rows])
    for k in united:
        low, high = np.maximum(sides[:, :2], sides[k, :2]), np.minimum(sides[:, 2:], sides[k, 2:])
        for other in np.flatnonzero((low < high).all(1) & (labels == labels[k])).tolist():
            first, last = sorted((k, other))
            if first == last or dropped & {first, last}:
                continue
            if _same(rows[first][0], rows[last][0], everything):
                dropped.add(last)
    return [one for k, (one, _) in enumerate(rows) if k not in dropped]


def _cropped(mask: Crop) -> Crop:
    """Leave out rows and columns around a mask that have nothing of it."""
    rows, columns = (np.flatnonzero(mask.pixels.any(axis)) for axis in (1, 0))
    if not len(rows):
        return Crop(0, 0, np.zeros((0, 0), bool))
    pixels = mask.pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Crop(mask.top + int(rows[0]), mask.left + int(columns[0]), pixels.copy())
