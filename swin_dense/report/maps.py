"""The parts of an evaluation's page about label maps, and about segments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets import colours, images
from swin_dense.report import confusion, page, pictures, records

WRONG, RIGHT = (214, 39, 60), (70, 120, 200)  # in the picture of differences
WORST = 8  # images
AT_ONCE = 4  # of them that show without being asked for


@dataclass
class WorstMap:
    """One of the worst images: its name and file, truth and what was found, (H, W) of labels."""

    name: str
    path: Path
    truth: np.ndarray
    found: np.ndarray


@dataclass
class WorstSegments:
    """One of the worst images: its name and file; both sides as ids (H, W) and a row of each id."""

    name: str
    path: Path
    truth: tuple[np.ndarray, list[dict[str, Any]]]
    found: tuple[np.ndarray, list[dict[str, Any]]]


@dataclass
class FoundMaps:
    """What an evaluation of label maps leaves.

    Attributes:
        confusion: (K, K) pixels, rows are the truth.
    """

    matched: records.Pixels
    confusion: np.ndarray
    worst: list[WorstMap] = field(default_factory=list)


@dataclass
class FoundSegments:
    """What an evaluation of segments leaves."""

    matched: records.Segments
    worst: list[WorstSegments] = field(default_factory=list)


def numbers_of_maps(found: FoundMaps) -> dict[str, Any]:
    """Return all that the page shows of label maps, as JSON can hold it."""
    matched = found.matched
    row, iou = matched.numbers(np.ones((1, len(matched.images)), np.int64))
    shared, given, true = (part.sum(0) for part in (matched.shared, matched.found, matched.true))
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy, precision = 100 * shared / true, 100 * shared / given
    return {
        "numbers": dict(zip(matched.names(), row[0].tolist(), strict=True)),
        "classes": {
            name: {
                "IoU": float(iou[0, k]),
                "recall": float(accuracy[k]),
                "precision": float(precision[k]),
                "pixels": int(true[k]),
                "share": float(true[k] / max(1, true.sum())),
            }
            for k, name in enumerate(matched.classes)
        },
        "confusion": found.confusion.tolist(),
        "worst": _lowest(matched, "mIoU", found.worst),
    }


def numbers_of_segments(found: FoundSegments) -> dict[str, Any]:
    """Return all that the page shows of segments, as JSON can hold it."""
    matched = found.matched
    row, pq = matched.numbers(np.ones((1, len(matched.images)), np.int64))
    total = matched.counts.sum(0)
    classes = {}
    for k, name in enumerate(matched.classes):
        overlap, hits, false, missed = total[k].tolist()
        seen = hits + false + missed > 0
        classes[name] = {
            "PQ": float(pq[0, k]),
            "SQ": 100 * overlap / hits if hits else 0.0 if seen else float("nan"),
            "RQ": 100 * hits / (hits + (false + missed) / 2) if seen else float("nan"),
            "hits": int(hits),
            "false": int(false),
            "missed": int(missed),
            "thing": bool(matched.thing[k]),
        }
    return {
        "numbers": dict(zip(matched.names(), row[0].tolist(), strict=True)),
        "classes": classes,
        "worst": _lowest(matched, "PQ", found.worst),
    }


def _lowest(
    matched: records.Pixels | records.Segments, name: str, kept: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return the images that are shown, with their scores."""
    scores = dict(zip(matched.images, matched.image_scores().tolist(), strict=True))
    return [{"image": one.name, name: scores[one.name]} for one in kept]


def sections_of_maps(found: FoundMaps, told: Mapping[str, Any]) -> list[tuple[str, page.Html]]:
    """Return headings and contents, from what `numbers_of_maps` returned."""
    classes = sorted(told["classes"].items(), key=lambda item: _last(item[1]["IoU"]))
    table = page.table(
        "By class, the worst first, in percent; recall is what mmseg calls the accuracy of a class",
        ["class", "IoU", "recall", "precision", "share of the pixels"],
        [
            [name, page.bar(row["IoU"] / 100, page.number(row["IoU"], 2))]
            + [page.number(row[key], 2) for key in ("recall", "precision")]
            + [f"{row['share']:.2%}"]
            for name, row in classes
        ],
    )
    mixed = confusion.table(
        found.matched.classes,
        found.confusion,
        "Percent of the pixels of each class (row) that were found as each class (column)",
    )
    parts: list[Any] = [
        page.paragraph(
            "Lowest mean IoU over the classes in the image: the image, its truth, what was found, "
            "and where they differ (red; pixels without truth are black)."
        )
    ]
    classes_there = _present(found)
    palette = colours.palette(len(found.matched.classes))
    names = [found.matched.classes[k] for k in classes_there]
    parts.append(page.key(names, [palette[k] for k in classes_there]))
    shown = [
        _drawn_map(one, found.matched.classes, row["mIoU"])
        for one, row in zip(found.worst, told["worst"], strict=True)
    ]
    parts.append(page.first_few(shown, AT_ONCE, "images"))
    return [
        ("Classes", table),
        ("Confusion", mixed),
        ("Worst images", page.join(parts)),
    ]


def sections_of_segments(
    found: FoundSegments, told: Mapping[str, Any]
) -> list[tuple[str, page.Html]]:
    """Return headings and contents, from what `numbers_of_segments` returned."""
    classes = sorted(told["classes"].items(), key=lambda item: _last(item[1]["PQ"]))
    unseen = [name for name, row in classes if row["PQ"] != row["PQ"]]
    table = page.table(
        "By class, the worst first, in percent, then how many segments",
        ["class", "PQ", "SQ", "RQ", "hits", "false", "missed", "kind"],
        [
            [name, page.bar(row["PQ"] / 100, page.number(row["PQ"], 2))]
            + [page.number(row[key], 2) for key in ("SQ", "RQ")]
            + [row[key] for key in ("hits", "false", "missed")]
            + ["thing" if row["thing"] else "stuff"]
            for name, row in classes
            if row["PQ"] == row["PQ"]
        ],
    )
    shown = []
    shades = colours.palette(len(found.matched.classes))
    palette = dict(zip(found.matched.classes, shades, strict=True))
    for one, row in zip(found.worst, told["worst"], strict=True):
        name, score = one.name, f"PQ {page.number(row['PQ'], 1)}"
        rgb = images.as_rgb(one.path)
        sides = (one.truth, one.found)
        drawn = [pictures.segment_overlay(rgb, *side, palette) for side in sides]
        counts = [len(rows) for _, rows in sides]
        side_by_side = page.pictures(
            [
                (drawn[0], f"truth: {counts[0]} segments", f"{name}, the true segments"),
                (drawn[1], f"found: {counts[1]}, {score}", f"{name}, what was found"),
            ]
        )
        shown.append(page.join([page.heading(name), side_by_side]))
    lead = page.paragraph("Lowest PQ within the image: truth to the left, found to the right.")
    remark = f"{len(unseen)} classes are neither in the truth nor found."
    return [
        ("Classes", page.join([table, page.paragraph(remark, soft=True) if unseen else ""])),
        ("Worst images", page.join([lead, page.first_few(shown, AT_ONCE, "images")])),
    ]


def _last(value: float) -> float:
    return value if value == value else 1e9


def _present(found: FoundMaps) -> list[int]:
    """Return the labels that the pictures show."""
    seen = [np.unique(part) for one in found.worst for part in (one.truth, one.found)]
    labels = np.unique(np.concatenate(seen)) if seen else np.zeros(0, int)
    return [int(label) for label in labels if 0 <= label < len(found.matched.classes)]


def _painted(rgb: np.ndarray, labels: np.ndarray, palette: Any) -> np.ndarray:
    """Lay the colours of the classes over an image; the page has their legend."""
    shades = np.asarray(palette, np.float32)[labels]
    mixed = rgb * (1 - pictures.STRENGTH) + shades * pictures.STRENGTH
    return mixed.round().astype(np.uint8)


def _drawn_map(one: WorstMap, classes: Sequence[str], value: float) -> page.Html:
    """Show an image, its truth, what was found and the difference."""
    name, score = one.name, f"mIoU {page.number(value, 1)}"
    rgb = images.as_rgb(one.path)
    palette = [*colours.palette(len(classes)), (0, 0, 0)]
    truth, found = (
        np.where((part >= 0) & (part < len(classes)), part, len(classes)).astype(np.int64)
        for part in (one.truth, one.found)
    )
    differs = (truth != found) & (truth < len(classes))
    grey = np.repeat(rgb.mean(2, keepdims=True), 3, 2)
    shown = 0.45 * grey + 0.55 * np.where(differs[..., None], WRONG, RIGHT)
    shown[truth == len(classes)] = 0
    wrong = differs.sum() / max(1, (truth < len(classes)).sum())
    told = f"{wrong:.1%} of the pixels differ"
    return page.join(
        [
            page.heading(name),
            page.pictures(
                [
                    (rgb, score, f"{name}, the image"),
                    (_painted(rgb, truth, palette), "truth", f"{name}, truth"),
                    (_painted(rgb, found, palette), "found", f"{name}, found"),
                    (shown.round().astype(np.uint8), told, f"{name}, where both differ: {told}"),
                ]
            ),
        ]
    )
