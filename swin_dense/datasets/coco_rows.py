"""Annotations of a COCO instance file, a chunk at a time, into rows of columns.

Letters: n images, m annotations, p parts of masks.
"""

from __future__ import annotations

import array
import ast
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from swin_dense.datasets import coco_json
from swin_dense.datasets.coco_fields import Tally, is_side, short
from swin_dense.datasets.coco_json import whole_id
from swin_dense.datasets.coco_masks import EMPTY, NONE, ODD, POLYGONS, RUNS, TEXT, mask_areas
from swin_dense.datasets.findings import INFO, KINDS, WARNING, Finding, Kind, kind
from swin_dense.datasets.paths import first_names

BYTES_LITERAL = re.compile(r"""b(['"]).*\1""", re.DOTALL)

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
# The types that entries have as a rule; what differs is looked at by `Rows._entry`.
Id = int | float | str
Flag = bool | int | float


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


COLUMNS = (
    *("image", "category", "box", "area", "crowd", "ignore", "kind", "size"),
    *("parts", "lengths", "numbers", "texts", "text_lengths"),
)


class Rows:
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
        self.notes: dict[Kind, list[int]] = {}
        self.unknown: dict[str, list[Any]] = {"image_id": [], "category_id": []}
        self.decode = msgspec.json.Decoder(_Annotation).decode

    def note(self, found: Kind, number: int) -> None:
        """Remember that an annotation, given by its position, was repaired."""
        self.notes.setdefault(found, []).append(number)

    def add(self, chunk: Sequence[Any]) -> None:
        """Take entries in: all at once as a rule, one by one where one of them is unusual."""
        if self.tally.is_full:
            return
        try:
            entries = list(map(self.decode, chunk))
            usual = _are_usual(entries)
        except (msgspec.ValidationError, TypeError):  # TypeError: the slow parser's objects
            usual = False
        if not usual:
            pairs = [(self._entry(raw), raw) for raw in chunk]
            entries = [entry for entry, _ in pairs if entry is not None]
            chunk = [raw for entry, raw in pairs if entry is not None]
        self._links(entries)
        self._masks(entries, chunk)
        start = len(self.ids)
        self.ids.extend(map(whole_id, [entry.id for entry in entries]))
        self.box.extend(itertools.chain.from_iterable([entry.bbox for entry in entries]))
        areas: list[Any] = [entry.area for entry in entries]
        crowds: list[Any] = [entry.iscrowd for entry in entries]
        for of, values, absent, instead in (
            (AREA_ABSENT, areas, None, 0.0),
            (CROWD_ABSENT, crowds, msgspec.UNSET, 0),
        ):
            if absent in values:
                where = [i for i, value in enumerate(values) if value is absent]
                self.notes.setdefault(of, []).extend(start + i for i in where)
                values[:] = [instead if value is absent else value for value in values]
        self.area.extend(areas)  # type: ignore[arg-type]
        self.crowd.extend(map(int, crowds))  # type: ignore[arg-type]
        self.ignore.extend([int(entry.ignore) for entry in entries])

    def _entry(self, raw: Any) -> _Annotation | None:
        if isinstance(raw, msgspec.Raw):
            try:
                entry = self.decode(raw)
                if _are_usual([entry]):
                    return entry
            except msgspec.ValidationError:
                pass
            raw = coco_json.parse_part(raw)
        if not self.tally.add(raw):
            return None
        area, box = raw.get("area"), tuple(map(float, raw["bbox"]))
        return _Annotation(
            raw["id"],
            raw["image_id"],
            raw["category_id"],
            box,  # type: ignore[arg-type]
            None if area is None else float(area),
            raw.get("iscrowd", msgspec.UNSET),
            raw.get("ignore", 0),
            _mask_of(raw.get("segmentation")),
        )

    def _links(self, entries: Sequence[_Annotation]) -> None:
        """Find the image and the category of each; -1 for none."""
        start = len(self.ids)
        mixed: set[int] = set()
        fractions: set[int] = set()
        for field, known, by_text, column in (
            ("image_id", self.image_of, self.image_by_text, self.image),
            ("category_id", self.category_of, self.category_by_text, self.category),
        ):
            values = [getattr(entry, field) for entry in entries]
            found: list[Any] = list(map(known.get, values))
            if None in found:
                for i, value in enumerate(values):
                    if found[i] is None:
                        found[i] = by_text.get(str(whole_id(value)), -1)
                        if found[i] == -1:
                            self.unknown[field].append(value)
                        else:
                            mixed.add(i)
            column.extend(found)  # type: ignore[arg-type]
            if float in set(map(type, values)):
                fractions.update(i for i, value in enumerate(values) if type(value) is float)
        for of, places in ((MIXED_IDS, mixed), (FLOAT_IDS, fractions)):
            if places:
                self.notes.setdefault(of, []).extend(start + i for i in sorted(places))

    def _masks(self, entries: Sequence[_Annotation], raws: Sequence[Any]) -> None:
        """Sort the segmentations into their columns."""
        start, total = len(self.ids), len(entries)
        masks: list[Any] = [entry.segmentation for entry in entries]
        kinds = np.full(total, POLYGONS, np.int8)
        sizes, text_lengths = np.zeros((total, 2), np.int32), np.zeros(total, np.int32)
        for i, mask in enumerate(masks):
            if type(mask) is not list:
                kinds[i], sizes[i], text = self._run_lengths(mask, start + i)
                masks[i] = [mask.counts] if kinds[i] == RUNS else []
                text_lengths[i] = len(text)
                self.texts += text
        counts = np.fromiter(map(len, masks), np.int32, total)
        parts = list(itertools.chain.from_iterable(masks))
        lengths = np.fromiter(map(len, parts), np.int64, len(parts))
        owners = np.repeat(np.arange(total), counts)
        wrong = ((lengths < 6) | (lengths % 2 == 1)) & (kinds[owners] == POLYGONS)
        empty = (counts == 0) & (kinds == POLYGONS)
        if wrong.any() or empty.any():
            for i in np.union1d(owners[wrong], np.flatnonzero(empty)).tolist():
                good = [part for part in masks[i] if len(part) >= 6 and len(part) % 2 == 0]
                if good:
                    self.note(SHORT_PARTS, start + i)
                else:
                    kinds[i] = ODD if masks[i] else EMPTY
                counts[i] = len(good)
            parts = [part for part, bad in zip(parts, wrong.tolist(), strict=True) if not bad]
            lengths = lengths[~wrong]
        for i in np.flatnonzero(kinds == ODD).tolist():
            raw = raws[i]
            entry = coco_json.parse_part(raw) if isinstance(raw, msgspec.Raw) else raw
            self.odd_masks[start + i] = short(entry["segmentation"])
        self.kind.frombytes(kinds.tobytes())
        self.size.frombytes(sizes.tobytes())
        self.text_lengths.frombytes(text_lengths.tobytes())
        self.parts.frombytes(counts.tobytes())
        self.lengths.frombytes(lengths.tobytes())
        for part in parts:
            self.numbers.fromlist(part)

    def _run_lengths(
        self, mask: _RunLengths | None, number: int
    ) -> tuple[int, tuple[int, int], bytes]:
        """Return the kind of a mask that is no polygon, its size and its packed counts."""
        nothing = NONE if mask is None else ODD, (0, 0), b""
        if mask is None or not mask.counts or not all(map(is_side, mask.size)):
            return nothing
        size = (int(mask.size[0]), int(mask.size[1]))
        if not isinstance(mask.counts, str):
            return RUNS, size, b""
        text = mask.counts
        if BYTES_LITERAL.fullmatch(text):
            try:
                text = ast.literal_eval(text).decode("ascii")
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return nothing
            self.note(BYTES_AS_TEXT, number)
        data = text.encode("utf-8", "surrogatepass")
        return (TEXT, size, data) if data else nothing

    def extend(self, other: Rows) -> None:
        """Take in rows that come after these; the other ones are used up."""
        start = len(self.ids)
        self.ids += other.ids
        self.tally.extend(other.tally)
        for name in COLUMNS:
            column, more = getattr(self, name), memoryview(getattr(other, name)).cast("B")
            (column.extend if column is self.texts else column.frombytes)(more)
            setattr(other, name, None)  # half of a large set need not be there twice
        self.odd_masks |= {start + number: text for number, text in other.odd_masks.items()}
        for of, numbers in other.notes.items():
            self.notes.setdefault(of, []).extend(start + number for number in numbers)
        for field, values in other.unknown.items():
            self.unknown[field] += values

    def __reduce__(self) -> tuple:
        """Send what was taken in, without what only helps to take in more."""
        state = {name: getattr(self, name) for name in ("ids", "tally", "odd_masks", "unknown")}
        state |= {name: np.asarray(memoryview(getattr(self, name))) for name in COLUMNS}
        notes = [(of.code, numbers) for of, numbers in self.notes.items()]
        return _received, (state, notes)

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


def _received(state: dict[str, Any], notes: list[tuple[str, list[int]]]) -> Rows:
    rows = Rows((), ())
    vars(rows).update(state, notes={KINDS[code]: numbers for code, numbers in notes})
    return rows


def _are_usual(entries: Sequence[_Annotation]) -> bool:
    """Tell whether flags are 0 or 1 and ids whole, as far as types do not say so."""
    for field in ("iscrowd", "ignore"):
        if not {getattr(entry, field) for entry in entries} <= {0, 1, msgspec.UNSET}:
            return False
    for field in ("id", "image_id", "category_id"):
        values = [getattr(entry, field) for entry in entries]
        if float in set(map(type, values)) and not all(map(coco_json.is_id, values)):
            return False
    return True


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
