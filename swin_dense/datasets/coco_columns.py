"""A COCO instance file turned into columns: each entry is decoded once, by its types, and let go.

What is certain is repaired on the way and told in `Columns.findings`; entries with a wrong field
have no row.
"""

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from swin_dense.datasets import coco_json, forks
from swin_dense.datasets.coco_fields import Tally, is_file_name, is_side
from swin_dense.datasets.coco_json import BYTE_ORDER_MARK, NOT_JSON, whole_id
from swin_dense.datasets.coco_rows import Id, Rows
from swin_dense.datasets.findings import INFO, Finding, kind, stop

# Entries decoded before their numbers move into arrays: as many as stay in a core's own memory.
CHUNK = 256
WORTH_A_PROCESS = 1 << 16  # entries: fewer are read before another process has begun

ENCODING = kind(
    "file-not-utf-8",
    INFO,
    "JSON is UTF-8.",
    "It is read here, but many tools stop at the first byte.",
)


class _Image(msgspec.Struct, gc=False):
    id: Id
    file_name: str
    width: int | float
    height: int | float


class _Panoptic(msgspec.Struct, gc=False):
    segments_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: msgspec.Raw


@dataclasses.dataclass
class Columns:
    """Hold what `coco_file.CocoFile` describes; `arrays` by name, the rest is small."""

    arrays: dict[str, np.ndarray]
    categories: dict[Any, str]
    image_ids: list[Any]
    file_names: list[str]
    ids: list[Any] | None  # of annotations, where they are no 64-bit numbers
    odd_masks: dict[int, str]  # annotation -> how an unusable segmentation begins
    unknown: dict[str, list[Any]]  # image_id, category_id -> ids that no entry has
    findings: list[Finding]


def read_columns(
    data: Any, path: str | Path, used: Callable[[Any, Any], None] = lambda first, last: None
) -> Columns:
    """Turn the bytes of an instance file into columns.

    Args:
        data: a buffer.
        used: told, now and then, the first and the last of entries whose bytes are no longer
            needed.

    Raises:
        FoundError: it is no instance file, or its categories cannot be used.
    """
    findings = []
    start = bytes(data[:4])
    mark = coco_json.mark_of(start)
    wide = mark or ("utf-16" if b"\0" in start else "")
    if wide and wide != "utf-8-sig":
        findings.append(ENCODING.found(f"the file is {wide}.", "Save it as UTF-8.", path))
        try:
            data = json.dumps(json.loads(bytes(data))).encode()
        except (ValueError, RecursionError):
            coco_json.parse(bytes(data), path)
            raise
    elif mark:
        data = memoryview(data)[3:]
        text = "the file begins with a UTF-8 byte order mark; it was passed by."
        findings.append(BYTE_ORDER_MARK.found(text, "Save it without.", path))
    collecting = gc.isenabled()
    gc.disable()  # nothing here is cyclic, and the collector would walk all of it again and again
    try:
        return _columns(_split(data, path), path, used, findings)
    except coco_json.EntryError as error:
        cause: Any = error.__cause__ or error
        raise stop(NOT_JSON, path, coco_json.not_json(bytes(data), cause)) from error
    except UnicodeDecodeError as error:
        text = f"the file is not UTF-8, as JSON has to be ({error}). Save it as UTF-8."
        raise stop(NOT_JSON, path, text) from error
    finally:
        if collecting:
            gc.enable()


def _split(data: Any, path: str | Path) -> dict[str, Any]:
    """Return the three lists: of undecoded entries, or of objects where only Python reads it."""
    try:
        content = msgspec.json.decode(data, type=_File)
        lists: dict[str, Any] = {
            "images": content.images,
            "annotations": content.annotations,
            "categories": coco_json.parse_part(content.categories),
        }
        if not isinstance(lists["categories"], list):
            raise ValueError("another format")
        if lists["annotations"]:
            first = msgspec.json.decode(lists["annotations"][0], type=_Panoptic)
            if first.segments_info is msgspec.UNSET:
                return lists
        else:
            return lists
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        if isinstance(error, RecursionError) or "truncated" in str(
            error
        ):  # the slow parser would say the same, with much memory
            raise stop(NOT_JSON, path, coco_json.not_json(bytes(data), error)) from error
        # NaN, another format, or no JSON: the slow parser tells them apart
    return coco_json.require_format(coco_json.parse(bytes(data), path), path)


def _columns(
    lists: dict[str, Any], path: str | Path, used: Callable, findings: list[Finding]
) -> Columns:
    categories = coco_json.categories_of(lists, path)
    images, tally = [], Tally("images")
    decode = msgspec.json.Decoder(_Image).decode
    for raw in lists["images"]:
        image = _image(raw, decode, tally)
        if image is not None:
            images.append(image)
    findings += tally.findings(len(lists["images"]), path)
    image_ids = [whole_id(image.id) for image in images]
    total = len(lists["annotations"])
    rows = _rows(lists["annotations"], image_ids, list(categories), used)
    lists.clear()
    arrays, ids = rows.finish()
    arrays["heights"] = np.array([image.height for image in images], np.int64)
    arrays["widths"] = np.array([image.width for image in images], np.int64)
    findings += rows.tally.findings(total, path)
    findings += rows.findings(path, any(type(image.id) is float for image in images))
    names = [image.file_name for image in images]
    return Columns(
        arrays, categories, image_ids, names, ids, rows.odd_masks, rows.unknown, findings
    )


def _rows(entries: list, image_ids: list, category_ids: list, used: Callable) -> Rows:
    """Read annotations, a share of them in each of some processes."""
    shares = max(1, min(forks.cores(), len(entries) // WORTH_A_PROCESS))
    ends = [len(entries) * i // shares for i in range(shares + 1)]

    def read(share: int) -> Rows:
        rows, begin, end = Rows(image_ids, category_ids), ends[share], ends[share + 1]
        for start in range(begin, end, CHUNK):
            chunk = entries[start : min(start + CHUNK, end)]
            rows.add(chunk)
            if isinstance(chunk[-1], msgspec.Raw):
                used(entries[begin], chunk[-1])
        return rows

    rows, *others = forks.each(read, shares)
    while others:
        rows.extend(others.pop(0))
    return rows


def _image(raw: Any, decode: Callable, tally: Tally) -> _Image | None:
    if isinstance(raw, msgspec.Raw):
        try:
            image = decode(raw)
            if (
                is_side(image.width)
                and is_side(image.height)
                and is_file_name(image.file_name)
                and coco_json.is_id(image.id)
            ):
                return image
        except msgspec.ValidationError:
            pass
        raw = coco_json.parse_part(raw)
    if not tally.add(raw):
        return None
    return _Image(raw["id"], raw["file_name"], raw["width"], raw["height"])
