"""What may be wrong with the entries of a COCO instance file: fields, ids, images, boxes, masks.

Functions named after problems return one line per kind of mistake, none where all is well. The
others rely on the fields that `field_problems` tests: `coco_layout.check` asks it first.
"""

from __future__ import annotations

import collections
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from swin_dense.datasets.paths import first_names


def repeated(values: Iterable) -> list:
    """Return the values that come more than once."""
    return [value for value, count in collections.Counter(values).items() if count > 1]


# Fields: what each must be.


def _is_number(value: object) -> bool:
    # type, not isinstance: True is no number. The bound leaves out nan, inf and what overflows.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def _is_side(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_id(value: object) -> bool:
    return type(value) in (int, str) or (type(value) is float and value.is_integer())


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_flag(value: object) -> bool:
    return type(value) in (bool, int, float) and value in (0, 1)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_segment_id(value: object) -> bool:
    return type(value) is int and 0 < value < 256**3


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


FIELDS: dict[str, dict[str, tuple[Callable[[object], bool], str]]] = {
    "images": {
        "id": (_is_id, "a whole number or a text"),
        "file_name": (_is_file_name, "a text"),
        "width": (_is_side, "a number above 0"),
        "height": (_is_side, "a number above 0"),
    },
    "annotations": {
        "id": (_is_id, "a whole number or a text"),
        "image_id": (_is_id, "a whole number or a text"),
        "category_id": (_is_id, "a whole number or a text"),
        "bbox": (_is_box, "four finite numbers (left, top, width, height)"),
        "area": (_is_number, "a finite number"),
        "iscrowd": (_is_flag, "0 or 1"),
        "ignore": (_is_flag, "0 or 1"),
    },
    "panoptic annotations": {
        "image_id": (_is_id, "a whole number or a text"),
        "file_name": (_is_file_name, "a text"),
        "segments_info": (_is_list, "a list of segments"),
    },
    "segments": {
        "id": (_is_segment_id, "a whole number from 1 to 256^3 - 1 (R + 256 G + 256^2 B)"),
        "category_id": (_is_id, "a whole number or a text"),
        "iscrowd": (_is_flag, "0 or 1"),
    },
}
OPTIONAL = ("iscrowd", "ignore")  # without them it is 0


def field_problems(what: str, entries: list) -> list[str]:
    """Fields that are absent or not what FIELDS states; `what` is a key of it."""
    fields = FIELDS[what]
    odd = [entry for entry in entries if not isinstance(entry, dict)]
    if odd:
        return [
            f"{len(odd)} of {len(entries)} {what} are not JSON objects, the first is "
            f"{_short(odd[0])}. Each needs {', '.join(f for f in fields if f not in OPTIONAL)}: "
            "correct or remove them."
        ]
    problems = []
    for field, (is_right, rule) in fields.items():
        otherwise = 0 if field in OPTIONAL else None
        wrong = [entry for entry in entries if not is_right(entry.get(field, otherwise))]
        absent = [e for e in wrong if e.get(field) is None and field not in OPTIONAL]
        if absent:
            problems.append(
                f"{len(absent)} of {len(entries)} {what} lack {field!r}, the first is "
                f"{_short(absent[0], 120)}. Add the field."
            )
        elif wrong:
            where = "" if field == "id" else f" of the entry with id {_short(wrong[0].get('id'))}"
            problems.append(
                f"{len(wrong)} of {len(entries)} {what} have a {field!r} that is not {rule}, the "
                f"first is {_short(wrong[0][field])}{where}. Correct or remove them."
            )
    return problems


def _short(value: object, length: int = 80) -> str:
    return text if len(text := repr(value)) <= length else text[:length] + "..."


def link_problems(images: list, annotations: list, categories: Mapping[int, str]) -> list[str]:
    """Ids that are shared, or that annotations name and no entry has."""
    problems = []
    for what, entries in (("images", images), ("annotations", annotations)):
        twice = repeated(entry["id"] for entry in entries)
        if twice:
            problems.append(
                f"{len(twice)} ids are shared by several {what}, the first are {twice[:3]}. Number "
                f"the {what} anew: of those with one id only the last would be seen."
            )
    for field, known in (
        ("image_id", {image["id"] for image in images}),
        ("category_id", set(categories)),
    ):
        unknown = [entry[field] for entry in annotations if entry[field] not in known]
        if unknown:
            some = sorted(set(unknown), key=str)[:3]
            what = "images" if field == "image_id" else "categories"
            problems.append(
                f"{len(unknown)} of {len(annotations)} annotations have a {field} that no entry of "
                f"{what} has as id: {some}, where ids are like {sorted(known, key=str)[:3]} (a "
                "number and a text differ). Correct them or remove the annotations."
            )
    return problems


def image_problems(images: list, image_dir: Path, what: str = "images") -> list[str]:
    """Files that are not there, with one scan of each folder; or an empty list.

    Args:
        images: entries with a file_name.
        what: what messages call the files.
    """
    if not images:
        return [f"the list of {what} is empty. Name the file of another split, or export it again."]
    by_folder = collections.defaultdict(list)
    for image in images:
        folder, name = os.path.split(image["file_name"])
        by_folder[folder].append(name)
    absent: list[str] = []
    hint = ""
    for folder, names in by_folder.items():
        place = image_dir / folder
        there = {entry.name for entry in os.scandir(place)} if place.is_dir() else set()
        gone = [name for name in names if name not in there]
        absent += [os.path.join(folder, name) for name in gone]
        if gone and not hint:
            hint = _absent_hint(gone, there, place, image_dir)
    if not absent:
        return []
    return [
        f"{len(absent)} of {len(images)} {what} are not in {image_dir}: {first_names(absent)}. "
        + (hint or f"Name the folder that file_name starts from, or copy the {what}.")
    ]


def _absent_hint(gone: list[str], there: set[str], place: Path, image_dir: Path) -> str:
    """Say what to correct: the folder, the case or the suffix; "" if no such file is near."""
    if not place.is_dir():
        flat = any((image_dir / name).is_file() for name in gone[:50])
        but = f", but {image_dir} has {gone[0]}" if flat else ""
        return f"There is no folder {place}{but}. Correct file_name."
    stems = {os.path.splitext(name)[0]: name for name in there}
    folded = {name.casefold(): name for name in there}
    for name in gone[:50]:
        if name.casefold() in folded:
            return f"The folder has {folded[name.casefold()]}: correct upper and lower case."
        stem, suffix = os.path.splitext(name)
        if stem in stems and suffix != os.path.splitext(stems[stem])[1]:
            return f"The folder has {stems[stem]}: correct the suffix in file_name."
    for inside in [entry.name for entry in os.scandir(place) if entry.is_dir()]:
        if (place / inside / gone[0]).is_file():
            return f"The folder {place / inside} has {gone[0]}: name that folder."
    beside = [Path(".."), *(Path("..") / n.name for n in place.parent.iterdir() if n.is_dir())]
    for relative in beside:
        if (place / relative / gone[0]).is_file():
            other = (place / relative).resolve()
            return f"The folder {other} has {gone[0]}: name that folder."
    return ""


# Boxes: those left out of training, and those that seem to be something else.

DROPPED = {
    "thin": "less than one pixel wide or high",
    "outside": "wholly outside their image",
    "area": "with an area of zero or less",
    "ignore": "marked ignore",
}


def drop_reason(entry: dict, image: dict) -> str | None:
    """Why mmdet's CocoDataset skips an annotation without a word: a key of DROPPED, or None."""
    if entry.get("ignore"):
        return "ignore"
    left, top, width, height = entry["bbox"]
    if width < 1 or height < 1:
        return "thin"
    if left + width <= 0 or top + height <= 0 or left >= image["width"] or top >= image["height"]:
        return "outside"
    return "area" if entry["area"] <= 0 else None


def reaches_out(box: list, image: dict) -> bool:
    """Tell whether a box reaches more than a pixel beyond its image."""
    left, top, width, height = box
    across, down = image["width"] + 1, image["height"] + 1
    return left < -1 or top < -1 or left + width > across or top + height > down


def corner_hint(annotations: list, images: Mapping) -> str:
    """Say so if boxes fit their images only as left, top, right, bottom; else return ""."""
    beyond = fitting = 0
    for entry in annotations:
        image, (left, top, right, bottom) = images[entry["image_id"]], entry["bbox"]
        beyond += reaches_out(entry["bbox"], image)
        fitting += left < right <= image["width"] + 1 and top < bottom <= image["height"] + 1
    if beyond <= len(annotations) / 4 or fitting < 0.95 * len(annotations):
        return ""
    return (
        f" {beyond} of {len(annotations)} boxes reach outside their image as left, top, width, "
        f"height, but {fitting} fit as left, top, right, bottom: if they are that, subtract left "
        "from the third number and top from the fourth."
    )


# Masks.


def _rle_size(mask: object) -> tuple | None:
    """(height, width) as a run-length mask states them; None for what is none."""
    size = mask.get("size") if isinstance(mask, dict) else None
    is_size = isinstance(size, list) and len(size) == 2 and all(map(_is_side, size))
    return tuple(size) if is_size else None  # type: ignore[arg-type]


def mask_size_problems(annotations: list, images: Mapping) -> list[str]:
    """Run-length masks of another size than their image."""
    wrong, swapped = [], 0
    for entry in annotations:
        size = _rle_size(entry.get("segmentation"))
        image = images[entry["image_id"]]
        if size and size != (image["height"], image["width"]):
            wrong.append((entry["id"], size, image))
            swapped += size == (image["width"], image["height"])
    if not wrong:
        return []
    number, (height, width), image = wrong[0]
    remedy = "Correct the entries of the images, or make these masks anew."
    if swapped:
        remedy = (
            f"In {swapped} of them width and height are swapped: size is (height, width). Swap "
            "them in the masks or in the entries of the images, whichever is wrong."
        )
    return [
        f"{len(wrong)} run-length masks have another size than their image. The first is that of "
        f"annotation {number}, {height} high and {width} wide; {image['file_name']} (id "
        f"{image['id']}) is {image['height']} high and {image['width']} wide. {remedy}"
    ]


def mask_problems(annotations: list) -> list[str]:
    """Annotations that mmdet's loader of masks stumbles over, or passes by."""
    wrong = [entry for entry in annotations if not _is_mask(entry.get("segmentation"))]
    if not wrong:
        return []
    first = wrong[0].get("segmentation")
    return [
        f"{len(wrong)} of {len(annotations)} annotations to train on have no usable segmentation, "
        f"and this model learns masks: ids {first_names([str(entry['id']) for entry in wrong])}; "
        f"the first has {'none' if first is None else _short(first)}. A mask is a list of "
        "polygons [x, y, x, y, x, y, ...] of three points or more, or run lengths with counts and "
        "size. Remove these annotations, add their masks, or train a detector without mask head."
    ]


def _is_mask(mask: object) -> bool:
    if isinstance(mask, list):  # mmdet passes by single polygons that are too short or odd
        lengths = [len(part) if _is_numbers(part) else None for part in mask]
        return None not in lengths and any(n and n >= 6 and n % 2 == 0 for n in lengths)
    if not isinstance(mask, dict) or not (counts := mask.get("counts")):
        return False
    return _rle_size(mask) is not None and (isinstance(counts, str) or _is_numbers(counts))


def _is_numbers(values: object) -> bool:
    try:
        return isinstance(values, list) and math.isfinite(math.fsum(values))
    except (TypeError, ValueError, OverflowError):  # of a text or list, of inf, of huge numbers
        return False
