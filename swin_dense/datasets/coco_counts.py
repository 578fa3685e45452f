"""Counts of a COCO instance file: what is trained on, what is left out, how classes are spread.

Letters: n images, m annotations.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from swin_dense.datasets import coco_problems
from swin_dense.datasets.coco_file import CocoFile
from swin_dense.datasets.coco_problems import (
    DROPPED,
    REASONS,
    corner_hint,
    drop_reasons,
    reaching_out,
)
from swin_dense.datasets.findings import ERROR, INFO, WARNING, Finding, kind

NOTHING_KEPT = kind(
    "nothing-to-train-on",
    ERROR,
    "A set has images with objects of the classes.",
    "There is nothing to learn or to find.",
)
NO_OBJECT = kind(
    "image-without-object",
    INFO,
    "Most images show an object.",
    "Those without are left out of training by the usual configs; in evaluation they count.",
)
SMALL_IMAGE = kind(
    "image-too-small",
    WARNING,
    "Images have at least filter_cfg.min_size pixels on each side.",
    "Smaller ones are left out of training.",
)
CLASS_WITHOUT = kind(
    "class-without-object",
    INFO,
    "Every class has objects in every split.",
    "A class without is not learnt, or not judged.",
)
ONLY_CROWDS = kind(
    "class-only-crowds",
    WARNING,
    "A class has single objects.",
    "Crowds are not learnt: the model never finds this class.",
)
IMBALANCE = kind(
    "class-imbalance",
    INFO,
    f"The most frequent class has less than {100} times the objects of the rarest.",
    "Rare classes are found less; repeat-factor sampling or class weights help.",
)
UNEVEN = 100  # objects of the most frequent class for one of the rarest
REASONS_WHY = (
    "{} have no annotation",
    "{} have no box of the classes",
    "{} have only crowds of the classes",
    "{} have only boxes that are left out",
)
SMALL, KEPT = -1, 4  # beside the positions in REASONS_WHY


@dataclasses.dataclass
class Summary:
    """What an annotation file and its image folder hold. All but the first two are counts."""

    annotation_file: str
    files: tuple[str, ...] = ()  # of the images, relative to their folder
    images: int = 0
    kept_images: int = 0  # with an object of the classes to train on
    small_images: int = 0  # left out: the shorter side is below min_side
    annotations: int = 0
    crowds: int = 0  # annotations of groups: no objects to learn
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)  # see DROPPED
    outside_boxes: int = 0  # not dropped, but reach more than a pixel beyond the image
    objects: dict[str, int] = dataclasses.field(default_factory=dict)  # per class
    images_with: dict[str, int] = dataclasses.field(default_factory=dict)  # per class
    areas: dict[str, int] = dataclasses.field(default_factory=dict)  # small, medium, large
    warnings: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)  # what was read leniently

    def describe(self, table: bool = True) -> str:
        """Return the counts as text: a line about the file, one per class, warning and note."""
        areas = ", ".join(f"{count} {name}" for name, count in self.areas.items())
        width = max([5, *map(len, self.objects)])
        rows = [
            f"{name:{width}} {count:>9} {self.images_with[name]:>9}"
            for name, count in self.objects.items()
        ]
        return "\n".join(
            [
                f"{self.annotation_file}: {self.images} images, {self.kept_images} of them with "
                f"objects; {self.annotations} annotations ({areas}; {self.crowds} crowds)",
                *([f"{'class':{width}} {'objects':>9} {'images':>9}", *rows] if table else []),
                *(f"warning: {text}" for text in self.warnings),
                *(f"note: {text}" for text in self.notes),
            ]
        )


def count(
    coco: CocoFile, summary: Summary, label: np.ndarray, names: list[str], min_side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fill in the counts.

    Args:
        label: (m,) position in names, or -1.

    Returns:
        how far the best annotation of each image came, (n,) as in REASONS_WHY, KEPT for an object
        to learn, SMALL for an image left out; and (m,) bool which annotations, crowds among them,
        reach the model.
    """
    reason, chosen = drop_reasons(coco), label >= 0
    small = np.minimum(coco.heights, coco.widths) < min_side
    trained = chosen & (reason < 0) & ~small[coco.image]
    step = np.where(reason >= 0, 3, np.where(coco.crowd, 2, KEPT))
    best = np.zeros(len(coco), np.int64)
    np.maximum.at(best, coco.image, np.where(chosen, step, 1))
    best[small] = SMALL
    objects = trained & ~coco.crowd
    counts = np.bincount(label[objects], minlength=len(names)).tolist()
    pairs = np.unique(label[objects].astype(np.int64) * max(len(coco), 1) + coco.image[objects])
    shows = np.bincount(pairs // max(len(coco), 1), minlength=len(names)).tolist()
    limits = np.searchsorted([32**2, 96**2], coco.area[objects], side="right")
    areas = np.bincount(limits, minlength=3).tolist()
    summary.dropped = {name: int((chosen & (reason == i)).sum()) for i, name in enumerate(REASONS)}
    summary.crowds = int((trained & coco.crowd).sum())
    summary.outside_boxes = int((trained & reaching_out(coco)).sum())
    summary.objects = dict(zip(names, counts, strict=True))
    summary.images_with = dict(zip(names, shows, strict=True))
    summary.areas = dict(zip(("small", "medium", "large"), areas, strict=True))
    summary.kept_images = int((best == KEPT).sum())
    summary.small_images = int(small.sum())
    return best, trained


def _left_out(summary: Summary) -> str:
    counts = [f"{count} {DROPPED[reason]}" for reason, count in summary.dropped.items() if count]
    return (
        f"{sum(summary.dropped.values())} of {summary.annotations} annotations are left out of "
        f"training: {', '.join(counts)}"
    )


def left_out_most(coco: CocoFile, summary: Summary, chosen: np.ndarray) -> list[Finding]:
    """Find that boxes are mostly dropped; those marked ignore are so on purpose."""
    marked = summary.dropped["ignore"]
    dropped = sum(summary.dropped.values()) - marked
    if dropped <= (chosen.sum() - marked) / 2:
        return []
    text = (
        f"{_left_out(summary)}. What is trained on is at least one pixel wide and high, meets its "
        "image and has an area above 0."
    )
    fix = (
        "Correct bbox (left, top, width, height in pixels) and area, or width and height of the "
        f"images.{corner_hint(coco, chosen)}"
    )
    rows = chosen & (drop_reasons(coco) >= 0)
    return [
        coco_problems.MOST_LEFT_OUT.found(text, fix, coco.path, coco_problems.ids_of(coco, rows))
    ]


def nothing_kept(
    coco: CocoFile, summary: Summary, best: np.ndarray, classes: list[str], min_side: int
) -> list[Finding]:
    if summary.kept_images:
        return []
    texts = dict(enumerate(REASONS_WHY)) | {SMALL: f"{{}} have a side below {min_side} pixels"}
    counts = "; ".join(t.format((best == i).sum()) for i, t in texts.items() if (best == i).any())
    remedy = "correct the classes or the annotations"
    if (best == SMALL).any():
        remedy += ", or lower min_size in filter_cfg"
    if not len(coco.box):
        remedy = (
            "a file without annotations is that of a test set: name another, or write results with "
            "format_only=True and outfile_prefix in the evaluator"
        )
    text = f"0 of {summary.images} images kept: {counts}. Classes: {classes}."
    return [NOTHING_KEPT.found(text, f"Training needs images with objects: {remedy}.", coco.path)]


def class_findings(
    coco: CocoFile, summary: Summary, label: np.ndarray, names: list[str]
) -> list[Finding]:
    """Find classes without objects, with crowds alone, and much rarer than others."""
    found = []
    never = [name for name, count in summary.objects.items() if not count]
    with_crowds = {names[i] for i in np.unique(label[coco.crowd & (label >= 0)]).tolist()}
    if crowded := [name for name in never if name in with_crowds]:
        text = f"classes with crowds and no single object: {', '.join(crowded)}."
        found.append(ONLY_CROWDS.found(text, "Annotate objects one by one.", coco.path, crowded))
    if never:
        text = f"classes without any object: {', '.join(never)}."
        found.append(CLASS_WITHOUT.found(text, "", coco.path, never))
    counts = {name: count for name, count in summary.objects.items() if count}
    if counts and max(counts.values()) >= UNEVEN * min(counts.values()):
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        rare = sorted(
            (n for n in counts if counts[n] * UNEVEN <= counts[most]), key=counts.__getitem__
        )
        text = (
            f"{most} has {counts[most]} objects, {least} {counts[least]}; {len(rare)} classes have "
            f"less than one for {UNEVEN} of {most}."
        )
        fix = "Sample images of rare classes more often (`repeat_factor` 0.001)."
        found.append(IMBALANCE.found(text, fix, coco.path, rare))
    return found


def warn(summary: Summary, min_side: int, box_hint: str) -> None:
    never = [name for name, count in summary.objects.items() if not count]
    small = summary.small_images
    left_out = summary.images - summary.kept_images - small
    outside = f"{summary.outside_boxes} boxes reach outside their image"
    for count, text in (
        (left_out, f"{left_out} of {summary.images} images have no object to train on"),
        (small, f"{small} of {summary.images} images are left out: a side below {min_side} pixels"),
        (sum(summary.dropped.values()), _left_out(summary)),
        (summary.outside_boxes, f"{outside}.{box_hint}" if box_hint else outside),
        (len(never), f"classes without any object: {', '.join(never)}"),
    ):
        if count:
            summary.warnings.append(text)
