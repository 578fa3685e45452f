"""What may be wrong with the masks of a COCO instance file, every one of them measured."""

from __future__ import annotations

import numpy as np

from swin_dense.datasets.coco_file import CocoFile
from swin_dense.datasets.coco_masks import (
    EMPTY,
    NONE,
    ODD,
    POLYGONS,
    RUNS,
    TEXT,
    Measures,
    measure,
)
from swin_dense.datasets.coco_problems import ids_of, one
from swin_dense.datasets.findings import ERROR, WARNING, Finding, kind, refuse
from swin_dense.datasets.paths import first_names
from swin_dense.file_limits import IMAGE_PIXELS, OUTLINE_PIXELS

OTHER_SIZE = kind(
    "mask-size-differs",
    ERROR,
    "A run-length mask has the height and width of its image.",
    "It would lie elsewhere, or be turned.",
)
UNUSABLE = kind(
    "mask-unusable",
    ERROR,
    "A model that learns masks is given one for each object.",
    "An object without a mask stops the training, or is learnt as background.",
)
NOT_DECODED = kind(
    "run-lengths-do-not-decode",
    ERROR,
    "Run lengths are whole numbers of 0 or more, or the characters that COCO packs them into.",
    "The decoder reads other pixels, or beyond the end of its memory.",
)
TOO_LONG = kind(
    "run-lengths-too-long",
    ERROR,
    "Run lengths add up to the height times the width of their image.",
    "The decoder would write beyond the mask: it stops the program, or worse, does not.",
)
TOO_SHORT = kind(
    "run-lengths-too-short",
    ERROR,
    "Run lengths add up to the height times the width of their image.",
    "The rest of the mask is whatever was in memory.",
)
EMPTY_MASK = kind(
    "mask-empty",
    WARNING,
    "A mask covers at least a pixel.",
    "The object has a box and nothing in it; the mask head learns to answer nothing.",
)
OUTSIDE_MASK = kind(
    "polygon-outside-image",
    WARNING,
    "Polygons end where their image does.",
    "What is outside is cut off; polygons far outside were made for another size or image.",
)
HUGE_MASK = kind(
    "polygon-coordinate-huge",
    ERROR,
    "The numbers of a polygon are pixels of its image.",
    "Filling a polygon of millions of pixels takes all memory, or all time.",
)
COSTLY = kind(
    "mask-too-costly",
    ERROR,
    f"A mask is drawn in an image of at most {IMAGE_PIXELS.usual:,} pixels, along outlines of at "
    f"most {OUTLINE_PIXELS.usual:,}.",
    "Drawing it takes all memory, or all time, of a file of some hundred bytes.",
)
OTHER_AREA = kind(
    "area-differs-from-mask",
    WARNING,
    "The area of an annotation is that of its mask, in pixels.",
    "Evaluation by size puts the object among small, medium or large by it.",
)
ELSEWHERE = kind(
    "box-differs-from-mask",
    WARNING,
    "The box of an annotation is the extent of its mask.",
    "Box and mask head are taught different places.",
)
SIDES = 1000  # times the height and width of its image, the longest outlines of a mask
HUGE = 1e6  # pixels beyond the image
FAR = (10, 0.1)  # pixels, share of the image's side: nearer than both is carelessness
TIMES, BEYOND = 3, 100  # an area differs by this factor, and by this many pixels
LEAST_OVERLAP = 0.2  # of box and extent, intersection over union


def size_findings(coco: CocoFile, chosen: np.ndarray) -> list[Finding]:
    """Find run-length masks of another size than their image."""
    kinds, sizes = coco.columns["mask_kind"], coco.columns["mask_size"]
    stated = np.stack([coco.heights, coco.widths], 1)[coco.image]
    wrong = chosen & ((kinds == RUNS) | (kinds == TEXT)) & (sizes != stated).any(1)
    if not wrong.any():
        return []
    swapped = int((sizes[wrong] == stated[wrong][:, ::-1]).all(1).sum())
    remedy = "Correct the entries of the images, or make these masks anew."
    if swapped:
        remedy = (
            f"In {swapped} of them width and height are swapped: size is (height, width). Swap "
            "them in the masks or in the entries of the images, whichever is wrong."
        )
    first = int(np.flatnonzero(wrong)[0])
    (height, width), image = sizes[first].tolist(), int(coco.image[first])
    text = (
        f"{wrong.sum()} run-length masks have another size than their image. The first is that of "
        f"annotation {coco.id_of(first)}, {height} high and {width} wide; "
        f"{coco.file_names[image]} (id {coco.image_ids[image]}) is {coco.heights[image]} high and "
        f"{coco.widths[image]} wide."
    )
    return [OTHER_SIZE.found(text, remedy, coco.path, ids_of(coco, wrong))]


def mask_findings(coco: CocoFile, trained: np.ndarray) -> list[Finding]:
    """Find masks that cannot be learnt from, each one measured.

    Args:
        trained: (m,) which annotations reach the model, crowds among them.
    """
    kinds = coco.columns["mask_kind"]
    found = _unusable(coco, trained, trained & np.isin(kinds, (NONE, EMPTY, ODD)))
    rows = np.flatnonzero(trained & np.isin(kinds, (POLYGONS, RUNS, TEXT)))
    measures = measure(coco.columns, rows)
    image = coco.image[rows]
    height, width = coco.heights[image], coco.widths[image]
    packed = kinds[rows] != POLYGONS
    size = coco.columns["mask_size"][rows].astype(np.int64).prod(1)
    broken = packed & np.isnan(measures.filled)
    found += one(
        coco,
        NOT_DECODED,
        rows[broken],
        "run-length masks have counts that do not decode",
        "Encode them anew, with pycocotools.mask.encode and .decode() of the counts.",
    )
    for of, wrong, word in (
        (TOO_LONG, measures.filled > size, "more"),
        (TOO_SHORT, measures.filled < size, "fewer"),
    ):
        if (packed & wrong).any():
            i = int(np.flatnonzero(packed & wrong)[0])
            text = (
                f"run-length masks have counts that add up to {word} pixels than their size, the "
                f"first of {measures.filled[i]:.0f} where it is {size[i]}"
            )
            found += one(coco, of, rows[packed & wrong], text, "Encode them anew.")
    found += _polygon_findings(coco, rows, measures.extent, height, width)
    found += _costly(coco, rows, measures)
    found += one(
        coco, EMPTY_MASK, rows[measures.area == 0], "masks cover not one pixel", "Remove them."
    )
    stated, seen = coco.area[rows], measures.area
    apart = (np.abs(stated - seen) > BEYOND) & ((stated > TIMES * seen) | (seen > TIMES * stated))
    found += one(
        coco,
        OTHER_AREA,
        rows[apart & (seen > 0)],
        f"annotations state an area {TIMES} times that of their mask, or a third of it",
        "Compute the areas anew, in pixels.",
    )
    return found


def require_drawable(coco: CocoFile, rows: np.ndarray) -> None:
    """Require that masks can be drawn: those that an evaluation looks at, which was not examined.

    Args:
        rows: (m,) positions of annotations of images that the file has.

    Raises:
        FoundError: one takes all memory or all time, or has numbers that no decoder is made for.
    """
    kinds = coco.columns["mask_kind"]
    rows = np.unique(rows[np.isin(kinds[rows], (POLYGONS, RUNS, TEXT))])
    measures = measure(coco.columns, rows)
    image = coco.image[rows]
    found = _polygon_findings(coco, rows, measures.extent, coco.heights[image], coco.widths[image])
    found = [one for one in found if one.kind is HUGE_MASK] + _costly(coco, rows, measures)
    size = coco.columns["mask_size"][rows].astype(np.int64).prod(1)
    over = (kinds[rows] != POLYGONS) & ~(measures.filled <= size)
    text = "run-length masks have counts that do not decode, or to more pixels than their size"
    found += one(coco, TOO_LONG, rows[over], text, "Encode them anew.")
    refuse(coco.path, found)


def _costly(coco: CocoFile, rows: np.ndarray, measures: Measures) -> list[Finding]:
    """Find masks of many pixels, and polygons that go to and fro; nan compares as False."""
    image = coco.image[rows]
    height, width = coco.heights[image], coco.widths[image]
    pixels = np.maximum(height * width, coco.columns["mask_size"][rows].astype(np.int64).prod(1))
    most = np.minimum(OUTLINE_PIXELS.most, SIDES * (height + width))
    found = []
    for over, limit, count in (
        (pixels > IMAGE_PIXELS.most, IMAGE_PIXELS, pixels),
        (measures.outline > most, OUTLINE_PIXELS, measures.outline),
    ):
        if over.any():
            i = int(np.flatnonzero(over)[0])
            rule = limit.rule(int(count[i]) if count[i] < 1e18 else None)
            if count[i] <= limit.most:
                rule = (
                    f"{count[i]:,.0f} pixels along the outlines, at most {SIDES} times the height "
                    f"and width of the image, {most[i]:,}, are drawn. Correct it."
                )
            text = "masks take too much to be drawn, the first has "
            found += one(coco, COSTLY, rows[over], text + rule.rstrip("."), "")
    return found


def _unusable(coco: CocoFile, trained: np.ndarray, wrong: np.ndarray) -> list[Finding]:
    if not wrong.any():
        return []
    first = int(np.flatnonzero(wrong)[0])
    begins = {NONE: "none", EMPTY: "[]"}
    shown = begins.get(int(coco.columns["mask_kind"][first])) or coco.odd_masks[first]
    ids = ids_of(coco, wrong)
    text = (
        f"{len(ids)} of {trained.sum()} annotations to train on have no usable segmentation, "
        f"and this model learns masks: ids {first_names([str(i) for i in ids])}; "
        f"the first has {shown}."
    )
    fix = (
        "A mask is a list of polygons [x, y, x, y, x, y, ...] of three points or more, or run "
        "lengths with counts and size. Remove these annotations, add their masks, or train a "
        "detector without mask head."
    )
    return [UNUSABLE.found(text, fix, coco.path, ids)]


def _polygon_findings(
    coco: CocoFile, rows: np.ndarray, extent: np.ndarray, height: np.ndarray, width: np.ndarray
) -> list[Finding]:
    """Find polygons outside their image, and away from their box; nan compares as False."""
    left, top, right, bottom = extent.T
    beyond_x, beyond_y = np.maximum(-left, right - width), np.maximum(-top, bottom - height)
    huge = np.maximum(beyond_x, beyond_y) > HUGE
    far = (beyond_x > np.maximum(FAR[0], FAR[1] * width)) | (
        beyond_y > np.maximum(FAR[0], FAR[1] * height)
    )
    found = one(
        coco, HUGE_MASK, rows[huge], "polygons have numbers in the millions", "Correct them."
    )
    found += one(
        coco,
        OUTSIDE_MASK,
        rows[far & ~huge],
        "polygons reach far outside their image",
        "Correct them, or the sizes of the images.",
    )
    x, y, w, h = coco.box[rows].T
    across = np.minimum(right, x + w) - np.maximum(left, x)
    down = np.minimum(bottom, y + h) - np.maximum(top, y)
    common = np.maximum(across, 0) * np.maximum(down, 0)
    union = w * h + (right - left) * (bottom - top) - common
    away = (common < LEAST_OVERLAP * union) & (union > BEYOND) & ~coco.crowd[rows]
    found += one(
        coco,
        ELSEWHERE,
        rows[away],
        "boxes hardly meet the extent of their polygons",
        "Boxes are left, top, width, height: compute them anew from the masks.",
    )
    return found
