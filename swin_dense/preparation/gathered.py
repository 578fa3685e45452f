"""What a format's reader finds in a source: images with objects, or with a label map each."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from swin_dense.datasets.images import SUFFIXES, image_size
from swin_dense.errors import InputError
from swin_dense.file_limits import OUTLINE_PIXELS

BACKGROUND, IGNORE = "_background_", "__ignore__"  # LabelMe's names of what is no class
FARTHEST = 10**7  # pixels from the corner of an image
CIRCLE_POINTS = 72  # the area of such a polygon is 0.1 % below the circle's


@dataclasses.dataclass
class Thing:
    """One object of an image, in pixels.

    Args:
        label: the name of its class.
        box: left, top, width, height.
        masks: polygons [x0, y0, x1, ...], or one compressed run-length code, or None.
        crowd: a group that is no object to learn, and no mistake to find.
    """

    label: str
    box: tuple[float, float, float, float]
    masks: list[list[float]] | dict | None = None
    crowd: bool = False
    area: float | None = None
    more: dict[str, Any] = dataclasses.field(default_factory=dict)  # other fields of its entry

    def measure(self, height: int, width: int) -> float:
        """Return the area of its mask, else of its box, in pixels."""
        if self.area is not None:
            return self.area
        if self.masks is None:
            return self.box[2] * self.box[3]
        return float(rle.area(self.encoded(height, width)))

    def encoded(self, height: int, width: int) -> Any:
        """Return its mask, or the whole box, as one run-length code."""
        masks = self.masks
        if masks is None:
            x, y, w, h = self.box
            masks = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        if isinstance(masks, dict):
            return masks
        return rle.merge(rle.frPyObjects(masks, height, width))


@dataclasses.dataclass
class Picture:
    """One image.

    Args:
        path: its file; None where `data` holds its bytes.
        name: in the image folder of its part, with slashes.
        part: "train" or "val", "" where the source does not say.
        labels: gives its label map (H, W) of class numbers, where it has one.
        copied: the file of a label map that is right as it is.
    """

    path: Path | None
    name: str
    part: str = ""
    height: int = 0
    width: int = 0
    things: list[Thing] = dataclasses.field(default_factory=list)
    labels: Callable[[], np.ndarray] | None = None
    copied: Path | None = None
    data: bytes | None = None


@dataclasses.dataclass
class Gathered:
    """All that was found.

    Args:
        classes: names, in the order of the source.
        pictures: images with objects or label maps.
        files: to be placed as they are, with their names in the data root: a set in a known
            layout. Then there are no pictures.
        left_out: what was not taken over -> how often.
        notes: what else a user should know.
        table: for label maps, the lines of classes.txt; empty where the config knows them.
        folders: names of the folders of train and val.
    """

    classes: tuple[str, ...] = ()
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    files: list[tuple[Path, str]] = dataclasses.field(default_factory=list)
    left_out: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    notes: list[str] = dataclasses.field(default_factory=list)
    table: tuple[str, ...] = ()
    folders: dict[str, str] = dataclasses.field(
        default_factory=lambda: {"train": "train", "val": "val"}
    )

    @property
    def are_label_maps(self) -> bool:
        return any(p.labels or p.copied for p in self.pictures[:1])


def polygon_box(polygons: Iterable[Sequence[float]]) -> tuple[float, float, float, float]:
    """Return left, top, width, height around polygons [x0, y0, x1, ...]."""
    polygons = list(polygons)
    xs = [x for p in polygons for x in p[0::2]]
    ys = [y for p in polygons for y in p[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


class ShapeError(InputError):
    """A shape that cannot be drawn; the text says why, who reads the file says where."""


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Say in which file and shape what is raised within was found."""
    try:
        yield
    except ShapeError as error:
        raise InputError(f"{where}: {error}") from error


def from_polygons(label: str, polygons: list[list[float]]) -> Thing:
    """Make an object of polygons.

    Raises:
        ShapeError: drawing them would take all memory or all time.
    """
    outline = 0.0
    for polygon in polygons:
        points = np.array(polygon, np.float64).reshape(-1, 2)
        if not (np.abs(points) <= FARTHEST).all():
            raise ShapeError(
                f"the numbers of a polygon are pixels, at most {FARTHEST:,}; one has "
                f"{np.abs(points).max():g}. Correct it."
            )
        outline += float(np.abs(points - np.roll(points, -1, 0)).max(1).sum())
    if outline > OUTLINE_PIXELS.most:
        raise ShapeError(OUTLINE_PIXELS.rule(int(outline)))
    return Thing(label, polygon_box(polygons), polygons)


def from_mask(label: str, mask: np.ndarray, crowd: bool = False) -> Thing:
    """Make an object of a mask (H, W) of zeros and others."""
    code = rle.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    box = tuple(float(side) for side in rle.toBbox(code))
    counts = code["counts"].decode("ascii")
    return Thing(label, box, {"size": list(code["size"]), "counts": counts}, crowd)  # type: ignore[arg-type]


def ellipse(x: float, y: float, rx: float, ry: float, turned: float = 0.0) -> list[float]:
    """Return the polygon of an ellipse around (x, y), turned by degrees, clockwise as seen."""
    c, s = math.cos(math.radians(turned)), math.sin(math.radians(turned))
    points = []
    for i in range(CIRCLE_POINTS):
        angle = 2 * math.pi * i / CIRCLE_POINTS
        dx, dy = rx * math.cos(angle), ry * math.sin(angle)
        points += [x + c * dx - s * dy, y + s * dx + c * dy]
    return points


def turned_box(box: Sequence[float], degrees: float) -> list[float]:
    """Return the polygon of a box (left, top, right, bottom), turned clockwise as seen."""
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return [
        v
        for px, py in corners
        for v in (x + c * (px - x) - s * (py - y), y + s * (px - x) + c * (py - y))
    ]


def merged(things: Sequence[Thing], height: int, width: int) -> Thing:
    """Make one object of several: the shapes of a group."""
    if len(things) == 1:
        return things[0]
    lists = [t.masks for t in things]
    if all(isinstance(m, list) for m in lists):
        return from_polygons(things[0].label, [p for m in lists for p in m])  # type: ignore[union-attr]
    codes = [t.encoded(height, width) for t in things]
    return from_mask(things[0].label, rle.decode(rle.merge(codes)), things[0].crowd)


def images_below(folder: Path) -> dict[str, Path]:
    """List the images in a folder and those inside it, by their name in it; hidden ones are not."""
    found = {}
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


class Finder:
    """Find the file of an image by what an annotation calls it, in a folder and those inside."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.by_name = images_below(root)
        self.by_last: dict[str, list[str]] = {}
        self.by_stem: dict[str, list[str]] = {}
        for name in self.by_name:
            self.by_last.setdefault(Path(name).name, []).append(name)
            self.by_stem.setdefault(Path(name).stem, []).append(name)

    def find(self, called: str, beside: Path | None = None) -> str | None:
        """Return the name of the image in the root; None if there is none.

        Args:
            called: a path, perhaps of another machine, with slashes of either kind.
            beside: the annotation file.

        Raises:
            InputError: several images could be meant.
        """
        name = called.replace("\\", "/").strip()
        for folder in ([beside.parent] if beside else []) + [self.root]:
            relative = os.path.relpath(Path(folder, name), self.root).replace(os.sep, "/")
            if relative in self.by_name:
                return relative
        last = name.rsplit("/", 1)[-1]
        found = (
            self.by_last.get(last) or self.by_stem.get(last) or self.by_stem.get(Path(last).stem)
        )
        if not found:
            return None
        tail = [n for n in found if n == name or n.endswith("/" + name) or name.endswith("/" + n)]
        if len(found) > 1 and len(tail) != 1:
            raise InputError(
                f"{beside or self.root}: the image {called!r} could be {found[0]} or {found[1]} of "
                f"{self.root}. Give images of different folders different names."
            )
        return (tail or found)[0]


def measured(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image file as it is read."""
    return image_size(path)
