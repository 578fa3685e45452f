"""What may be wrong with ids and boxes of a COCO instance file, as findings.

What may be wrong with fields is in `coco_fields`, with masks in `coco_mask_problems`, with the
files of the images in `image_names`. Letters: m annotations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from swin_dense.datasets.coco_file import CocoFile
from swin_dense.datasets.coco_json import repeated
from swin_dense.datasets.findings import ERROR, INFO, WARNING, Finding, Kind, kind
from swin_dense.datasets.paths import first_names

IMAGE_ID_TWICE = kind(
    "image-id-twice",
    ERROR,
    "No two images share an id.",
    "Of those with one id only the last would be seen.",
)
ANNOTATION_ID_TWICE = kind(
    "annotation-id-twice",
    ERROR,
    "No two annotations share an id.",
    "Of those with one id only the last would be seen.",
)
UNKNOWN_IMAGE = kind(
    "image-id-unknown",
    ERROR,
    "The image_id of an annotation is the id of an image.",
    "Which image the object is in cannot be told.",
)
UNKNOWN_CATEGORY = kind(
    "category-id-unknown",
    ERROR,
    "The category_id of an annotation is the id of a category.",
    "Which class the object has cannot be told.",
)
NORMALISED = kind(
    "boxes-normalised",
    ERROR,
    "Boxes are left, top, width, height in pixels.",
    "Shares of the image are read as boxes of less than a pixel, and every one is left out.",
)
CORNERS = kind(
    "boxes-look-like-corners",
    WARNING,
    "Boxes are left, top, width, height in pixels.",
    "Right and bottom read as width and height give boxes far too large: AP stays near 0.",
)
MOST_LEFT_OUT = kind(
    "most-boxes-left-out",
    ERROR,
    "What is trained on is at least one pixel wide and high, meets its image and has an area.",
    "The rest is learnt as background.",
)
EMPTY_BOX = kind(
    "box-empty",
    WARNING,
    "A box is at least one pixel wide and high.",
    "Smaller ones are left out of training and can hardly be found.",
)
PIXEL_BOX = kind(
    "box-single-pixel",
    WARNING,
    "A box is larger than one pixel.",
    "It is trained on, but most often it is a click by mistake.",
)
OUTSIDE_BOX = kind(
    "box-outside-image",
    WARNING,
    "A box meets its image.",
    "Those that do not are left out of training; they show that sizes or images are mixed up.",
)
BEYOND_BOX = kind(
    "box-beyond-image",
    WARNING,
    "A box ends where its image does.",
    "What is outside cannot be seen: the model learns to guess.",
)
HUGE_BOX = kind(
    "box-coordinate-huge",
    ERROR,
    "The numbers of a box are pixels of its image.",
    "Numbers in the millions make losses infinite.",
)
NO_AREA = kind(
    "area-not-positive",
    WARNING,
    "The area of an object is above 0.",
    "Objects without are left out of training.",
)
IGNORED = kind(
    "annotation-ignored",
    INFO,
    "An object to learn is not marked ignore.",
    "Those that are marked are left out of training.",
)
OBJECT_TWICE = kind(
    "object-listed-twice",
    WARNING,
    "An object is annotated once.",
    "A second one of the same class and box can never be found: it counts as missed.",
)

DROPPED = {
    "thin": "less than one pixel wide or high",
    "outside": "wholly outside their image",
    "area": "with an area of zero or less",
    "ignore": "marked ignore",
}
REASONS = tuple(DROPPED)
LEFT_OUT = {"thin": EMPTY_BOX, "outside": OUTSIDE_BOX, "area": NO_AREA, "ignore": IGNORED}
HUGE = 1e6  # pixels beyond the image
FACTOR = 0x9E3779B97F4A7C15  # odd: multiplying by it, modulo 2^64, loses nothing


def ids_of(coco: CocoFile, rows: np.ndarray) -> list[Any]:
    """Return the ids of some annotations, given by position or as a mask (m,)."""
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    ids = coco.ids
    return ids[rows].tolist() if isinstance(ids, np.ndarray) else [ids[i] for i in rows.tolist()]


def some(coco: CocoFile, rows: np.ndarray) -> str:
    """Name the first few of some annotations by their ids."""
    ids = ids_of(coco, rows)
    return f"ids {first_names([str(i) for i in ids[:3]] + ids[3:])}"


def link_findings(coco: CocoFile) -> list[Finding]:
    """Find ids that are shared, or that annotations name and no entry has."""
    found = []
    ids = coco.ids
    if isinstance(ids, np.ndarray):
        values, counts = np.unique(ids, return_counts=True)
        twice = values[counts > 1].tolist()
    else:
        twice = repeated(ids)
    for of, what, values in (
        (IMAGE_ID_TWICE, "images", repeated(coco.image_ids)),
        (ANNOTATION_ID_TWICE, "annotations", twice),
    ):
        if values:
            text = f"{len(values)} ids are shared by several {what}, the first are {values[:3]}."
            fix = f"Number the {what} anew: of those with one id only the last would be seen."
            found.append(of.found(text, fix, coco.path, values))
    for of, field, where, known, what in (
        (UNKNOWN_IMAGE, "image_id", coco.image < 0, coco.image_ids, "images"),
        (UNKNOWN_CATEGORY, "category_id", coco.category < 0, coco.category_ids, "categories"),
    ):
        if where.any():
            first = sorted(set(coco.unknown[field]), key=str)[:3]
            text = (
                f"{where.sum()} of {len(where)} annotations have a {field} that no entry of "
                f"{what} has as id: {first}, where ids are like {sorted(known, key=str)[:3]}."
            )
            fix = "Correct them or remove the annotations."
            found.append(of.found(text, fix, coco.path, ids_of(coco, where)))
    return found


def drop_reasons(coco: CocoFile) -> np.ndarray:
    """Return why mmdet's CocoDataset skips an annotation without a word: int8 (m,).

    The number is a position in REASONS; -1 for those it takes.
    """
    left, top, width, height = coco.box.T
    across, down = coco.widths[coco.image], coco.heights[coco.image]
    outside = (left + width <= 0) | (top + height <= 0) | (left >= across) | (top >= down)
    reason = np.full(len(coco.box), -1, np.int8)
    for name, where in (
        ("area", coco.area <= 0),
        ("outside", outside),
        ("thin", (width < 1) | (height < 1)),
        ("ignore", coco.ignore),
    ):
        reason[where] = REASONS.index(name)
    return reason


def reaching_out(coco: CocoFile) -> np.ndarray:
    """Tell which boxes reach more than a pixel beyond their image: bool (m,)."""
    left, top, width, height = coco.box.T
    across, down = coco.widths[coco.image] + 1, coco.heights[coco.image] + 1
    return (left < -1) | (top < -1) | (left + width > across) | (top + height > down)


def corner_hint(coco: CocoFile, chosen: np.ndarray) -> str:
    """Say so if boxes fit their images only as left, top, right, bottom; else return ""."""
    left, top, right, bottom = coco.box[chosen].T
    image = coco.image[chosen]
    beyond = int(reaching_out(coco)[chosen].sum())
    fits = (left < right) & (right <= coco.widths[image] + 1)
    fitting = int((fits & (top < bottom) & (bottom <= coco.heights[image] + 1)).sum())
    total = len(image)
    if beyond <= total / 4 or fitting < 0.95 * total:
        return ""
    return (
        f" {beyond} of {total} boxes reach outside their image as left, top, width, "
        f"height, but {fitting} fit as left, top, right, bottom: if they are that, subtract left "
        "from the third number and top from the fourth."
    )


def normalised(coco: CocoFile, chosen: np.ndarray) -> list[Finding]:
    """Find that every box lies within 0 to 1."""
    boxes = coco.box[chosen]
    whole = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    if not (whole.any() and ((boxes >= 0) & (boxes <= 1)).all()):
        return []
    first = [int(v) if v.is_integer() else v for v in boxes[0].tolist()]
    text = (
        f"every box lies within 0..1, the first is {first} of annotation "
        f"{coco.id_of(int(np.flatnonzero(chosen)[0]))}: these are normalised coordinates."
    )
    fix = (
        "COCO boxes are left, top, width, height in pixels: multiply the first and third number "
        "by the width of the image, the second and fourth by its height, and the area by both."
    )
    return [NORMALISED.found(text, fix, coco.path, ids_of(coco, chosen))]


def box_findings(coco: CocoFile, chosen: np.ndarray, trained: np.ndarray) -> list[Finding]:
    """Find single boxes that are odd.

    Args:
        chosen: (m,) which are of the classes to train on.
        trained: (m,) which of them reach the model.
    """
    found = []
    reason = drop_reasons(coco)
    for name, of in LEFT_OUT.items():
        where = chosen & (reason == REASONS.index(name))
        fix = "" if name == "ignore" else "Correct or remove them."
        found += one(coco, of, where, f"boxes are {DROPPED[name]}, and left out", fix)
    size = coco.box[:, 2:]
    found += one(
        coco,
        PIXEL_BOX,
        trained & (reason < 0) & (size <= 1).all(1),
        "boxes are of one pixel",
        "Look at them, and remove those that are no objects.",
    )
    far = (np.abs(coco.box) > HUGE + np.maximum(coco.widths, coco.heights)[coco.image, None]).any(1)
    found += one(
        coco, HUGE_BOX, chosen & far, "boxes have numbers in the millions", "Correct them."
    )
    out = trained & reaching_out(coco)
    found += one(coco, BEYOND_BOX, out, "boxes reach outside their image", "Cut them to it.")
    if out.any() and (hint := corner_hint(coco, chosen)):
        found.append(CORNERS.found(hint.strip(), "", coco.path, ids_of(coco, out)))
    again = listed_again(coco, np.flatnonzero(trained))
    found += one(
        coco,
        OBJECT_TWICE,
        again,
        "objects have the image, class and box of another one",
        "Remove one of each two.",
    )
    return found


def listed_again(coco: CocoFile, rows: np.ndarray) -> np.ndarray:
    """Return which of some annotations have image, class, crowd and box of an earlier one."""
    # Sorting by one number is many times as fast as by seven: only where that comes again are all
    # seven looked at.
    mixed = (coco.image[rows].astype(np.uint64) << 32) + coco.category[rows].astype(np.uint64)
    for side in coco.box[rows].T:
        mixed = mixed * np.uint64(FACTOR) + (side + 0.0).view(np.uint64)  # -0.0 is 0.0
    order = np.argsort(mixed)
    same = mixed[order][1:] == mixed[order][:-1]
    rows = rows[np.union1d(order[1:][same], order[:-1][same])]
    keys = np.column_stack(
        [coco.image[rows], coco.category[rows], coco.crowd[rows], coco.box[rows]]
    )
    order = np.lexsort(keys.T)
    same = (keys[order][1:] == keys[order][:-1]).all(1)
    return np.sort(rows[np.maximum(order[1:], order[:-1])[same]])


def one(coco: CocoFile, of: Kind, where: np.ndarray, text: str, fix: str) -> list[Finding]:
    rows = np.flatnonzero(where) if where.dtype == bool else where
    if not len(rows):
        return []
    what = f"{len(rows)} {text}: {some(coco, rows)}."
    return [of.found(what, fix, coco.path, ids_of(coco, rows))]
