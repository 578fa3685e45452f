"""A COCO instance file turned into columns: each entry is decoded once, by its types, and let go.

What is certain is repaired on the way and told in `Columns.findings`; entries with a wrong field
have no row. Letters: n images, m annotations, p parts of masks.
"""

from __future__ import annotations

import array
import ast
import dataclasses
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from swin_dense.datasets import coco_json
from swin_dense.datasets.coco_fields import Tally, is_side, short
from swin_dense.datasets.coco_json import BYTE_ORDER_MARK, LISTS, NOT_JSON, whole_id
from swin_dense.datasets.coco_masks import EMPTY, NONE, ODD, POLYGONS, RUNS, TEXT, mask_areas
from swin_dense.datasets.findings import INFO, WARNING, Finding, Kind, kind
from swin_dense.datasets.paths import first_names

CHUNK = 4096  # entries decoded before their numbers move into arrays
BYTES_LITERAL = re.compile(r"""b(['"]).*\1""", re.DOTALL)

ENCODING = kind(
    "file-not-utf-8",
    INFO,
    "JSON is UTF-8.",
    "It is read here, but many tools stop at the first byte.",
)
FLOAT_IDS = kind(
    "id-with-fraction",
    INFO,
    "Ids are whole numbers or texts.",
    "1.0 is read as 1 here; other tools may take them for two ids.",
)
MIXED_IDS = kind(
    "id-types-differ",
    INFO,
    "An id has one type wherever it stands.",
    "1 and '1' are matched here because it can mean nothing else; other tools lose the objects.",
)
AREA_ABSENT = kind(
    "area-absent",
    INFO,
    "An annotation states the area of its mask.",
    "It is computed from the mask, or the box where there is none; evaluation by size rests on it.",
)
CROWD_ABSENT = kind(
    "iscrowd-absent",
    INFO,
    "An annotation states iscrowd.",
    "Without it, it is taken for a single object.",
)
BYTES_AS_TEXT = kind(
    "counts-bytes-literal",
    WARNING,
    "The counts of a compressed mask are its characters alone.",
    "str(bytes) was written instead of bytes.decode(): b'...' decodes to another mask elsewhere.",
)
SHORT_PARTS = kind(
    "polygon-part-short",
    WARNING,
    "Each polygon of a mask has three points or more, two numbers each.",
    "Such parts are passed by, in training and evaluation alike; other tools read them as boxes.",
)

# The types that entries have as a rule; what differs is looked at by `_Rows._odd`.
Id = int | float | str
Flag = bool | int | float


class _Image(msgspec.Struct, gc=False):
    id: Id
    file_name: str
    width: int | float
    height: int | float


class _RunLengths(msgspec.Struct, gc=False):
    size: tuple[int | float, int | float]
    counts: str | list[float]


class _Annotation(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: Flag | msgspec.UnsetType = msgspec.UNSET
    ignore: Flag = 0
    segmentation: list[list[float]] | _RunLengths | None = None


class _Panoptic(msgspec.Struct, gc=False):
    segments_info: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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
    data: Any, path: str | Path, used: Callable[[Any], None] = lambda raw: None
) -> Columns:
    """Turn the bytes of an instance file into columns.

    Args:
        data: a buffer.
        used: told, now and then, the first bytes that are still needed.

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
        except ValueError:
            coco_json.parse(bytes(data), path)
            raise
    elif mark:
        data = memoryview(data)[3:]
        text = "the file begins with a UTF-8 byte order mark; it was passed by."
        findings.append(BYTE_ORDER_MARK.found(text, "Save it without.", path))
    lists = _split(data, path)
    try:
        return _columns(lists, path, used, findings)
    except UnicodeDecodeError as error:
        text = f"the file is not UTF-8, as JSON has to be ({error}). Save it as UTF-8."
        raise coco_json.stop(NOT_JSON, path, text) from error


def _split(data: Any, path: str | Path) -> dict[str, Any]:
    """Return the three lists: of undecoded entries, or of objects where only Python reads it."""
    try:
        content = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        lists: dict[str, Any] = {
            key: msgspec.json.decode(content[key], type=list[msgspec.Raw]) for key in LISTS
        }
        lists["categories"] = json.loads(bytes(content["categories"]))
        if lists["annotations"]:
            first = msgspec.json.decode(lists["annotations"][0], type=_Panoptic)
            if first.segments_info is msgspec.UNSET:
                return lists
        else:
            return lists
    except (KeyError, ValueError, msgspec.MsgspecError):
        pass  # NaN, another format, or no JSON: the slow parser tells them apart
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
    rows = _Rows(image_ids, list(categories))
    total = len(lists["annotations"])
    for start in range(0, total, CHUNK):
        chunk = lists["annotations"][start : start + CHUNK]
        rows.add(chunk)
        if isinstance(chunk[-1], msgspec.Raw):
            used(chunk[-1])
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


def _image(raw: Any, decode: Callable, tally: Tally) -> _Image | None:
    if isinstance(raw, msgspec.Raw):
        try:
            image = decode(raw)
            if (
                is_side(image.width)
                and is_side(image.height)
                and image.file_name
                and "\0" not in image.file_name
                and coco_json.is_id(image.id)
            ):
                return image
        except msgspec.ValidationError:
            pass
        raw = json.loads(bytes(raw))
    if not tally.add(raw):
        return None
    return _Image(raw["id"], raw["file_name"], raw["width"], raw["height"])


class _Rows:
    """Take annotations in, a chunk at a time, and give their columns."""

    def __init__(self, image_ids: Sequence[Any], category_ids: Sequence[Any]):
        self.tally = Tally("annotations")
        self.image_of = {number: i for i, number in enumerate(image_ids)}
        self.category_of = {number: i for i, number in enumerate(category_ids)}
        self.image_by_text = {str(number): i for number, i in self.image_of.items()}
        self.category_by_text = {str(number): i for number, i in self.category_of.items()}
        self.ids: list[Any] = []
        self.image, self.category = array.array("i"), array.array("i")
        self.box, self.area = array.array("d"), array.array("d")
        self.crowd, self.ignore, self.kind = (array.array("b") for _ in range(3))
        self.size = array.array("i")
        self.parts = array.array("i")  # how many each annotation has
        self.lengths = array.array("q")  # of parts
        self.numbers = array.array("d")
        self.texts = bytearray()
        self.text_lengths = array.array("i")
        self.odd_masks: dict[int, str] = {}
        self.notes: dict[Kind, list[Any]] = {}
        self.unknown: dict[str, list[Any]] = {"image_id": [], "category_id": []}
        self.decode = msgspec.json.Decoder(_Annotation).decode

    def note(self, found: Kind, number: Any) -> None:
        self.notes.setdefault(found, []).append(number)

    def add(self, chunk: Iterable[Any]) -> None:
        parts: list[Sequence[float]] = []
        for raw in chunk:
            entry = self._entry(raw)
            if entry is None:
                continue
            self._links(entry)
            self.box.extend(entry.bbox)
            if entry.area is None:
                self.note(AREA_ABSENT, len(self.ids) - 1)
            self.area.append(-1.0 if entry.area is None else entry.area)
            if entry.iscrowd is msgspec.UNSET:
                self.note(CROWD_ABSENT, len(self.ids) - 1)
                entry.iscrowd = 0
            self.crowd.append(int(entry.iscrowd))  # type: ignore[arg-type]
            self.ignore.append(int(entry.ignore))
            self._mask(entry, raw, parts)
        lengths = [len(part) for part in parts]
        self.lengths.extend(lengths)
        flat = itertools.chain.from_iterable(parts)
        self.numbers.frombytes(memoryview(np.fromiter(flat, np.float64, sum(lengths))).cast("B"))

    def _entry(self, raw: Any) -> _Annotation | None:
        if isinstance(raw, msgspec.Raw):
            try:
                entry = self.decode(raw)
                if (
                    (entry.iscrowd is msgspec.UNSET or entry.iscrowd in (0, 1))
                    and entry.ignore in (0, 1)
                    and all(
                        type(number) is not float or number.is_integer()
                        for number in (entry.id, entry.image_id, entry.category_id)
                    )
                ):
                    return entry
            except msgspec.ValidationError:
                pass
            raw = json.loads(bytes(raw))
        return self._odd(raw)

    def _odd(self, entry: Any) -> _Annotation | None:
        """Return an entry that has other types than usual; None, counted, if a field is wrong."""
        if not self.tally.add(entry):
            return None
        area, box = entry.get("area"), tuple(map(float, entry["bbox"]))
        return _Annotation(
            entry["id"],
            entry["image_id"],
            entry["category_id"],
            box,  # type: ignore[arg-type]
            None if area is None else float(area),
            entry.get("iscrowd", msgspec.UNSET),
            entry.get("ignore", 0),
            _mask_of(entry.get("segmentation")),
        )

    def _links(self, entry: _Annotation) -> None:
        """Note the id, and which image and category it is of; -1 for none."""
        number = len(self.ids)
        for value in (entry.id, entry.image_id, entry.category_id):
            if type(value) is float:
                self.note(FLOAT_IDS, number)
                break
        self.ids.append(whole_id(entry.id))
        image = self.image_of.get(entry.image_id, -1)
        category = self.category_of.get(entry.category_id, -1)
        if image < 0:
            image = self.image_by_text.get(str(whole_id(entry.image_id)), -1)
        elif category >= 0:
            self.image.append(image)
            self.category.append(category)
            return
        if category < 0:
            category = self.category_by_text.get(str(whole_id(entry.category_id)), -1)
        if (image >= 0 and entry.image_id not in self.image_of) or (
            category >= 0 and entry.category_id not in self.category_of
        ):
            self.note(MIXED_IDS, number)
        self.image.append(image)
        self.category.append(category)
        for field, place in (("image_id", image), ("category_id", category)):
            if place < 0:
                self.unknown[field].append(getattr(entry, field))

    def _mask(self, entry: _Annotation, raw: Any, parts: list[Sequence[float]]) -> None:
        """Sort the segmentation into its columns."""
        mask, number = entry.segmentation, len(self.ids) - 1
        what, count, size, text = NONE, 0, (0, 0), b""
        if isinstance(mask, list):
            good = [part for part in mask if len(part) >= 6 and len(part) % 2 == 0]
            if good:
                what, count = POLYGONS, len(good)
                parts.extend(good)
                if count != len(mask):
                    self.note(SHORT_PARTS, number)
            else:
                what = ODD if mask else EMPTY
        elif mask is not None:
            what, size, text = self._run_lengths(mask, number)
            if what == RUNS:
                count = 1
                parts.append(mask.counts)  # type: ignore[arg-type]
        if what == ODD:
            if isinstance(raw, msgspec.Raw):
                raw = json.loads(bytes(raw))
            self.odd_masks[number] = short(raw["segmentation"])
        self.kind.append(what)
        self.size.extend(size)
        self.parts.append(count)
        self.text_lengths.append(len(text))
        self.texts += text

    def _run_lengths(self, mask: _RunLengths, number: int) -> tuple[int, tuple[int, int], bytes]:
        nothing = ODD, (0, 0), b""
        if not mask.counts or not all(map(is_side, mask.size)):
            return nothing
        size = (int(mask.size[0]), int(mask.size[1]))
        if not isinstance(mask.counts, str):
            return RUNS, size, b""
        text = mask.counts
        if BYTES_LITERAL.fullmatch(text):
            try:
                text = ast.literal_eval(text).decode("ascii")
            except (ValueError, SyntaxError):
                return nothing
            self.note(BYTES_AS_TEXT, number)
        data = text.encode("utf-8", "surrogatepass")
        return (TEXT, size, data) if data else nothing

    def finish(self) -> tuple[dict[str, np.ndarray], list[Any] | None]:
        """Return the columns by name, and the ids where they are no 64-bit numbers."""
        m = len(self.ids)
        arrays = {
            "image": np.asarray(self.image),
            "category": np.asarray(self.category),
            "box": np.asarray(self.box).reshape(m, 4),
            "area": np.asarray(self.area),
            "crowd": np.asarray(self.crowd).astype(bool),
            "ignore": np.asarray(self.ignore).astype(bool),
            "mask_kind": np.asarray(self.kind),
            "mask_size": np.asarray(self.size).reshape(m, 2),
            "parts": _offsets(self.parts),
            "numbers_at": _offsets(self.lengths),
            "numbers": np.asarray(self.numbers),
            "texts_at": _offsets(self.text_lengths),
            "texts": np.asarray(memoryview(self.texts)),
        }
        ids: list[Any] | None = self.ids
        try:
            if all(type(number) is int for number in self.ids):
                arrays["ids"], ids = np.array(self.ids, np.int64), None
        except OverflowError:
            pass
        if without := self.notes.get(AREA_ABSENT):
            arrays["area"] = arrays["area"].copy()
            arrays["area"][without] = mask_areas(arrays, np.array(without))
        return arrays, ids

    def findings(self, path: str | Path, float_images: bool) -> list[Finding]:
        """Word what was repaired, the first ids with it."""
        if float_images:
            self.notes.setdefault(FLOAT_IDS, [])
        found, total = [], len(self.ids)
        for of, (text, fix) in NOTES.items():
            if of in self.notes:
                ids = [self.ids[number] for number in self.notes[of]]
                first = f"; ids {first_names([str(i) for i in ids])}" if ids else ""
                found.append(
                    of.found(text.format(f"{len(ids)} of {total}") + first + ".", fix, path, ids)
                )
        return found


NOTES = {
    FLOAT_IDS: ("ids are written with a fraction, as in 1.0, in {} annotations", ""),
    MIXED_IDS: (
        "{} annotations name an image or category by a number where its own id is a text, or the "
        "other way; they were matched as text",
        "",
    ),
    AREA_ABSENT: ("{} annotations state no area: it was computed from the mask or the box", ""),
    CROWD_ABSENT: ("{} annotations state no iscrowd: they count as single objects", ""),
    BYTES_AS_TEXT: (
        "{} compressed masks have counts written as b'...', bytes turned into a text; they were "
        "read without the b and the quotes",
        "Write counts.decode() next time.",
    ),
    SHORT_PARTS: (
        "{} annotations have, beside good ones, polygons of less than three points or an odd "
        "number of numbers; these parts are passed by in training and evaluation",
        "Remove them from the segmentation.",
    ),
}


def _mask_of(mask: Any) -> Any:
    """Return a segmentation of unusual types in the usual ones; [[]] for an unusable one."""
    if mask is None or mask == []:
        return mask
    try:
        if isinstance(mask, list):
            parts = msgspec.convert(mask, list[list[float]], strict=True)
            return parts if all(map(math.isfinite, itertools.chain(*parts))) else [[]]
        if isinstance(mask, dict):
            return msgspec.convert(mask, _RunLengths, strict=True)
    except (msgspec.ValidationError, OverflowError):
        pass
    return [[]]


def _offsets(lengths: array.array) -> np.ndarray:
    """Return where each begins, and where the last ends: (k + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.asarray(lengths), out=offsets[1:])
    return offsets
