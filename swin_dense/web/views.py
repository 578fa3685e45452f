"""Choose what to show of a result: what is sure enough, of some classes, as a picture and rows."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from swin_dense.datasets import colours
from swin_dense.report import pictures
from swin_dense.report.results import Instances, LabelMap, Result, Segments

WIDEST = 1920  # pixels of the longer side of a picture that is shown


class Row(NamedTuple):
    """What is told of an object, a segment or a class.

    Attributes:
        colour: that it has in the picture, RGB, 0 to 255.
        score: 0 to 1; None in a label map.
        box: left, top, right, bottom in pixels, of an object.
        share: of the image's pixels, 0 to 1; None of a model without masks.
    """

    colour: tuple[int, int, int]
    name: str
    score: float | None
    box: tuple[float, float, float, float] | None
    share: float | None


@dataclass(frozen=True)
class View:
    """What is shown of a result.

    Attributes:
        result: with what is shown alone; a label map is always whole.
        picture: (H, W, 3) uint8, RGB, what is shown drawn over the image.
        rows: what is shown, the surest or largest first.
        names: of all classes that there are in the whole result, shown or not.
        weaker: of the same classes, how many are left out because they are less sure.
    """

    result: Result
    picture: np.ndarray
    rows: tuple[Row, ...]
    names: tuple[str, ...]
    weaker: int


def view(result: Result, least: float, names: Collection[str] | None) -> View:
    """Choose what is at least so sure and of these classes, all of them if None."""
    if isinstance(result, Instances):
        return _of_instances(result, least, names)
    if isinstance(result, Segments):
        return _of_segments(result, least, names)
    assert isinstance(result, LabelMap)
    return _of_label_map(result, names)


def _of_instances(result: Instances, least: float, names: Collection[str] | None) -> View:
    wanted = np.array([names is None or name in names for name in result.names], bool)
    sure = result.scores >= least
    shown = result.some(wanted & sure)
    palette = colours.palette(len(result.classes))
    pixels = result.size[0] * result.size[1]
    shares = [None] * len(shown) if shown.masks is None else (shown.masks.areas / pixels).tolist()
    rows = tuple(
        Row(palette[label], name, score, tuple(box), share)
        for name, label, score, box, share in zip(
            shown.names,
            shown.labels.tolist(),
            shown.scores.tolist(),
            shown.boxes.tolist(),
            shares,
            strict=True,
        )
    )
    present = tuple(dict.fromkeys(result.names))
    return View(shown, _fitted(shown.draw()), rows, present, int((wanted & ~sure).sum()))


def _of_segments(result: Segments, least: float, names: Collection[str] | None) -> View:
    wanted = [row for row in result.rows if names is None or row.name in names]
    kept = tuple(row for row in wanted if row.score >= least)
    ids = np.where(np.isin(result.ids, [row.id for row in kept]), result.ids, 0)
    shown = replace(result, ids=ids, rows=kept)
    palette = colours.palette(len(result.classes))
    rows = tuple(
        Row(palette[row.label], row.name, row.score, None, row.area / ids.size) for row in kept
    )
    present = tuple(dict.fromkeys(row.name for row in result.rows))
    return View(shown, _fitted(shown.draw()), rows, present, len(wanted) - len(kept))


def _of_label_map(result: LabelMap, names: Collection[str] | None) -> View:
    palette = colours.palette(len(result.classes))
    regions = sorted(result, key=lambda region: -region.area)
    shown = [region for region in regions if names is None or region.name in names]
    segments = np.where(
        np.isin(result.labels, [region.label for region in shown]), result.labels + 1, 0
    )
    picture = pictures.segment_overlay(
        result.image,
        segments,
        [{"id": region.label + 1, "class": region.name} for region in shown],
        dict(zip(result.classes, palette, strict=True)),
    )
    rows = tuple(
        Row(palette[region.label], region.name, None, None, region.area / result.labels.size)
        for region in shown
    )
    present = tuple(region.name for region in regions)
    return View(result, _fitted(picture), rows, present, 0)


def _fitted(picture: np.ndarray) -> np.ndarray:
    """Shrink a picture to what a page needs."""
    image = Image.fromarray(picture)
    image.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    return np.asarray(image)
