"""Annotation files as JSON: whether a file is one, of which format, and which categories it has."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from swin_dense.datasets.findings import ERROR, INFO, kind, stop
from swin_dense.datasets.paths import require_file

LISTS = ("images", "annotations", "categories")
MARKS = {  # what a text may begin with -> how it is written
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}

LONGEST_NAME = 4096  # characters of a file or category: no system has longer paths
NOT_JSON = kind(
    "file-not-json",
    ERROR,
    "An annotation file is a whole JSON text.",
    "Nothing can be read from it.",
)
OTHER_FORMAT = kind(
    "file-of-other-format",
    ERROR,
    "An annotation file is a JSON object with the lists images, annotations and categories.",
    "Another format has other fields, or the same fields with another meaning.",
)
BAD_CATEGORIES = kind(
    "categories-unusable",
    ERROR,
    "Every category has an id and a name, and no two share one.",
    "Which class an object has cannot be told.",
)
BYTE_ORDER_MARK = kind(
    "byte-order-mark",
    INFO,
    "JSON is UTF-8 without a byte order mark.",
    "It is read here, but many tools stop at the first byte.",
)


def load(annotation_file: str | Path, panoptic: bool = False) -> dict:
    """Read an annotation file and check that it has the lists of its format.

    Args:
        panoptic: whether annotations are lists of segments instead of single objects.
    """
    path = require_file(annotation_file, "annotation file")
    return require_format(parse(path.read_bytes(), path), path, panoptic)


def parse(data: bytes, path: str | Path) -> Any:
    """Parse JSON of any encoding, with NaN and Infinity as Python's parser reads them."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise stop(NOT_JSON, path, not_json(data, error)) from error


class EntryError(Exception):
    """A part of a file cannot be read; its cause says why."""


def parse_part(data: Any) -> Any:
    """Parse one entry of a file, or one list, which a quicker parser found odd.

    Raises:
        EntryError: it is nested too deep, or a number has thousands of digits.
    """
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise EntryError(str(error)) from error


def too_deep(error: Exception) -> str:
    """Return what is said of lists that lie too deep in one another; "" of other errors."""
    if not isinstance(error, RecursionError):
        return ""
    return f"lists and objects lie more than about {sys.getrecursionlimit()} deep in one another"


def require_format(content: object, path: str | Path, panoptic: bool = False) -> dict:
    """Return the content if it has the lists of its format.

    Raises:
        FoundError: it is of another format; the message says which and what to do.
    """
    form, other = ("panoptic", "instance") if panoptic else ("instance", "panoptic")
    rule = f"COCO {form} format is a JSON object with the lists images, annotations, categories"
    if isinstance(content, list):
        seems = "a bare list"
        if content and isinstance(content[0], dict) and "score" in content[0]:
            seems = "a list of detections, as COCO results files are"
        text = f"{rule}; this is {seems}. Name the ground truth file instead."
        raise stop(OTHER_FORMAT, path, text)
    if not isinstance(content, dict):
        raise stop(OTHER_FORMAT, path, f"{rule}; this is a bare {type(content).__name__}.")
    if not panoptic and "annotations" not in content and {"images", "categories"} <= set(content):
        content = {**content, "annotations": []}  # of a test set: results are written, not judged
    absent = [key for key in LISTS if not isinstance(content.get(key), list)]
    if not absent:
        first = content["annotations"][:1]
        if any(isinstance(e, dict) and ("segments_info" in e) != panoptic for e in first):
            how = "without" if panoptic else "with"
            text = (
                f"{rule}; this is COCO {other} format (annotations {how} segments_info). "
                f"Name the file of {'segments' if panoptic else 'instances'} instead, or use a "
                f"config for {'instances' if panoptic else 'panoptic segmentation'}."
            )
            raise stop(OTHER_FORMAT, path, text)
        return content
    remedy = f"Export the set in COCO {form} format."
    if {"shapes", "imagePath"} & content.keys():
        remedy = "This is a LabelMe file, of one image: convert the folder of them to COCO format."
    elif any(str(key).startswith("_via") for key in content):
        remedy = "This is a VGG Image Annotator project: export it in COCO format."
    text = f"{rule}; {absent} absent, found {sorted(content)[:8]}. {remedy}"
    raise stop(OTHER_FORMAT, path, text)


def not_json(data: bytes, error: Exception) -> str:
    """Say what a file is that is no JSON."""
    start = data[:200].strip()
    if not start:
        return "the annotation file is empty. Export or copy it again."
    if start.startswith(b"<"):
        return "this is XML, as Pascal VOC has it, not JSON. Convert the set to COCO format."
    first_line = start.splitlines()[0].split()
    if len(first_line) >= 5 and all(word.replace(b".", b"").isdigit() for word in first_line):
        return "this is a text file of numbers, as YOLO has it. Convert the set to COCO format."
    if isinstance(error, UnicodeDecodeError):
        return f"the file is not UTF-8, as JSON has to be ({error}). Save it as UTF-8."
    if deep := too_deep(error):
        return f"{deep}, more than is read. Export it again."
    return (
        f"the file is not JSON, or cut off ({error}; {len(data)} bytes). Export or copy it again."
    )


def mark_of(data: bytes) -> str:
    """Return how a text that begins with a byte order mark is written; "" without a mark."""
    return next((name for mark, name in MARKS.items() if data.startswith(mark)), "")


def categories_of(content: dict, path: str | Path) -> dict[Any, str]:
    """Category id -> name of a loaded file; its categories are entries with ids and names."""
    entries = content["categories"]

    def refuse(text: str) -> None:
        raise stop(BAD_CATEGORIES, path, text)

    if not entries:
        refuse("the list of categories is empty. Export it with its classes.")
    for entry in entries:
        if not isinstance(entry, dict) or not {"id", "name"} <= entry.keys():
            refuse(f"every category needs id and name, got {entry!r:.200}. Add them.")
        if not is_id(entry["id"]) or not isinstance(entry["name"], str):
            refuse(f"a category has a number as id, a text as name, got {entry!r:.200}.")
        if len(entry["name"]) > LONGEST_NAME:
            refuse(f"a name has at most {LONGEST_NAME} characters, got {len(entry['name']):,}.")
    for key in ("id", "name"):
        twice = repeated([entry[key] for entry in entries])
        if twice:
            shared = [entry for entry in entries if entry[key] == twice[0]]
            refuse(
                f"no two categories may have the same {key}, got {shared}. Merge them or "
                "rename one."
            )
    return {whole_id(entry["id"]): entry["name"] for entry in entries}


def is_id(value: object) -> bool:
    """Tell whether a value names an entry: a whole number, written 7 or 7.0, or a text."""
    return type(value) in (int, str) or (type(value) is float and value.is_integer())


def whole_id(value: Any) -> Any:
    """Return 7 for 7.0, and everything else as it is."""
    return int(value) if type(value) is float else value


def repeated(values: Any) -> list:
    """Return the values that come more than once, in the order of their first place."""
    values = list(values)
    if len(values) == len(set(values)):
        return []
    count: dict[Any, int] = {}
    for value in values:
        count[value] = count.get(value, 0) + 1
    return [value for value, times in count.items() if times > 1]
