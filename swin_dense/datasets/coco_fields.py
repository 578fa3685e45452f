"""Fields of the entries of COCO files: what each must be, and how often one is not."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from swin_dense.datasets.coco_json import LONGEST_NAME, is_id
from swin_dense.datasets.findings import ERROR, Finding, kind

LARGEST_SIDE = 2**31 - 1
MANY = 100_000  # entries with a wrong field, after which others are not looked at
OPTIONAL = ("area", "iscrowd", "ignore")  # without them: computed, or 0

NO_OBJECT = kind(
    "entry-not-object",
    ERROR,
    "Every entry of images and annotations is a JSON object.",
    "An entry that is not has no fields.",
)
FIELD_ABSENT = kind(
    "field-absent",
    ERROR,
    "Images have id, file_name, width and height; annotations id, image_id, category_id and bbox.",
    "Without it, where the object is or what it is cannot be told.",
)
FIELD_WRONG = kind(
    "field-wrong",
    ERROR,
    "Sizes, boxes and areas are numbers, names are texts, ids are one of both.",
    "A text where a number is meant stops the training, often after hours.",
)
NOT_FINITE = kind(
    "number-not-finite",
    ERROR,
    "Every number is finite.",
    "NaN and infinity turn the loss into NaN.",
)


def _is_number(value: object) -> bool:
    # type, not isinstance: True is no number. The bound leaves out nan, inf and what overflows.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def is_side(value: Any) -> bool:
    """Tell whether a value is a height or width: a whole number of pixels, written 7 or 7.0."""
    return _is_number(value) and 0 < value <= LARGEST_SIDE and value == int(value)


def is_file_name(value: object) -> bool:
    """Tell whether a value can name a file."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and "\0" not in value


def is_flag(value: object) -> bool:
    """Tell whether a value is 0 or 1, or false or true."""
    return type(value) in (bool, int, float) and value in (0, 1)


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_segment_id(value: object) -> bool:
    return type(value) is int and 0 < value < 256**3


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


FIELDS: dict[str, dict[str, tuple[Callable[[object], bool], str]]] = {
    "images": {
        "id": (is_id, "a whole number or a text"),
        "file_name": (is_file_name, "a text that can name a file"),
        "width": (is_side, "a number above 0 (whole pixels)"),
        "height": (is_side, "a number above 0 (whole pixels)"),
    },
    "annotations": {
        "id": (is_id, "a whole number or a text"),
        "image_id": (is_id, "a whole number or a text"),
        "category_id": (is_id, "a whole number or a text"),
        "bbox": (_is_box, "four finite numbers (left, top, width, height)"),
        "area": (_is_number, "a finite number"),
        "iscrowd": (is_flag, "0 or 1"),
        "ignore": (is_flag, "0 or 1"),
    },
    "panoptic annotations": {
        "image_id": (is_id, "a whole number or a text"),
        "file_name": (is_file_name, "a text that can name a file"),
        "segments_info": (_is_list, "a list of segments"),
    },
    "segments": {
        "id": (_is_segment_id, "a whole number from 1 to 256^3 - 1 (R + 256 G + 256^2 B)"),
        "category_id": (is_id, "a whole number or a text"),
        "iscrowd": (is_flag, "0 or 1"),
    },
}


class Tally:
    """Count the entries with a wrong field, and remember the first of each.

    Args:
        what: a key of FIELDS.
    """

    def __init__(self, what: str):
        self.what = what
        self.bare: list[Any] = []  # [number of entries that are no objects, the first]
        self.absent: dict[str, list[Any]] = {}  # field -> [count, the first entry]
        self.wrong: dict[str, list[Any]] = {}
        self.infinite: set[str] = set()
        self.count = 0  # of those that are wrong

    @property
    def is_full(self) -> bool:
        return self.count >= MANY

    def add(self, entry: object) -> bool:
        """Count an entry; True if nothing is wrong with it."""
        if not isinstance(entry, dict):
            self.bare = [self.bare[0] + 1, self.bare[1]] if self.bare else [1, entry]
            self.count += 1
            return False
        right = True
        for field, (is_right, _) in FIELDS[self.what].items():
            value = entry.get(field)
            if field in OPTIONAL and (field not in entry or (field == "area" and value is None)):
                continue
            if is_right(value):
                continue
            right = False
            place = self.absent if value is None and field not in OPTIONAL else self.wrong
            place.setdefault(field, [0, entry])[0] += 1
            if _has_infinity(value):
                self.infinite.add(field)
        self.count += not right
        return right

    def extend(self, other: Tally) -> None:
        """Take in what was counted of entries that come after these."""
        self.count += other.count
        if other.bare:
            count, first = self.bare or (0, other.bare[1])
            self.bare = [count + other.bare[0], first]
        for mine, yours in ((self.absent, other.absent), (self.wrong, other.wrong)):
            for field, (count, entry) in yours.items():
                mine.setdefault(field, [0, entry])[0] += count
        self.infinite |= other.infinite

    def findings(self, total: int, file: Any = "") -> list[Finding]:
        """Return a finding for each field, of `total` entries."""
        what, fields = self.what, FIELDS[self.what]
        if self.is_full:
            what += f" (looked at up to {MANY} that are wrong)"
        if self.bare:
            count, first = self.bare
            return [
                NO_OBJECT.found(
                    f"{count} of {total} {what} are not JSON objects, the first is {short(first)}.",
                    f"Each needs {', '.join(f for f in fields if f not in OPTIONAL)}: "
                    "correct or remove them.",
                    file,
                )
            ]
        found = []
        for field, (_, rule) in fields.items():
            if field in self.absent:
                count, entry = self.absent[field]
                text = (
                    f"{count} of {total} {what} lack {field!r}, the first is {short(entry, 120)}."
                )
                ids = [entry["id"]] if is_id(entry.get("id")) else []
                found.append(FIELD_ABSENT.found(text, "Add the field.", file, ids))
            elif field in self.wrong:
                count, entry = self.wrong[field]
                where = "" if field == "id" else f" of the entry with id {short(entry.get('id'))}"
                text = (
                    f"{count} of {total} {what} have a {field!r} that is not {rule}, the first is "
                    f"{short(entry[field])}{where}."
                )
                of = NOT_FINITE if field in self.infinite else FIELD_WRONG
                ids = [entry["id"]] if is_id(entry.get("id")) else []
                found.append(of.found(text, "Correct or remove them.", file, ids))
        return found


def short(value: object, length: int = 80) -> str:
    """Return the value as a text of at most about `length` characters."""
    return text if len(text := repr(value)) <= length else text[:length] + "..."


def _has_infinity(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(type(v) is float and not math.isfinite(v) for v in values)
