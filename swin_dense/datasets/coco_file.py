"""A COCO instance file, read once: as columns that all processes of a machine share.

`open_coco` is the one door to annotations of instances: the check, the training data and the
evaluation read the same columns, repaired where the meaning is certain (`findings` says what was).
They lie in a cache, named for the content of the file, and are mapped into memory from there.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets import column_cache
from swin_dense.datasets.coco_columns import Columns, read_columns
from swin_dense.datasets.coco_masks import POLYGONS, RUNS, TEXT
from swin_dense.datasets.findings import KINDS, Finding
from swin_dense.datasets.paths import require_file

FORMAT = 1  # of the columns; another one makes them anew
CACHED = 4 << 20  # bytes: smaller files are parsed as fast as they are looked up
REMEMBERED = 4  # files of this process
READ_AT_ONCE = 1 << 24  # bytes
SETTLED = 2  # seconds after which another write shows in a file's times


class CocoFile:
    """Hold the columns of an instance file. Nothing in it may be changed.

    Attributes:
        path: of the annotation file.
        key: names its content.
        image_ids: n ids as in the file, whole numbers or texts.
        file_names: n names as in the file; where the images are: `image_names.find`.
        heights, widths: int64 (n,) pixels.
        categories: id -> name, in the order of the file.
        ids: m ids of annotations, an int64 array or a list.
        image: int32 (m,) position in image_ids; -1 if the file has no such image.
        category: int32 (m,) position in categories; -1 if it has no such category.
        box: float64 (m, 4) left, top, width, height.
        area: float64 (m,) as stated, else computed.
        crowd, ignore: bool (m,).
        findings: what was wrong or repaired while reading; entries with a wrong field, which is
            an error, have no row.
    """

    def __init__(self, path: Path, key: str, columns: Columns, cached: Path | None = None):
        self.path, self.key, self.cached = path, key, cached
        self.categories, self.image_ids = columns.categories, columns.image_ids
        self.file_names, self.findings = columns.file_names, tuple(columns.findings)
        self.odd_masks, self.unknown = columns.odd_masks, columns.unknown
        self.columns = arrays = columns.arrays
        self.ids: Sequence[Any] | np.ndarray = arrays["ids"] if columns.ids is None else columns.ids
        self.heights, self.widths = arrays["heights"], arrays["widths"]
        self.image, self.category = arrays["image"], arrays["category"]
        self.box, self.area = arrays["box"], arrays["area"]
        self.crowd, self.ignore = arrays["crowd"], arrays["ignore"]
        self.category_ids = list(columns.categories)
        self._plain = columns

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def id_of(self, i: int) -> Any:
        """Return the id of an annotation as the file has it."""
        number = self.ids[i]
        return number.item() if isinstance(number, np.generic) else number

    def segmentation(self, i: int) -> list[list[float]] | dict[str, Any] | None:
        """Return the mask of an annotation as COCO writes it; None if it has none to use.

        Polygons: those of three points or more. Run lengths: "size" and "counts", the latter a
        text or whole numbers.
        """
        kind, arrays = self.columns["mask_kind"][i], self.columns
        first, last = arrays["parts"][i : i + 2].tolist()
        if kind == POLYGONS:
            ends = arrays["numbers_at"][first : last + 1].tolist()
            numbers = arrays["numbers"][ends[0] : ends[-1]].tolist()
            return [numbers[a - ends[0] : b - ends[0]] for a, b in itertools.pairwise(ends)]
        if kind == RUNS:
            begin, end = arrays["numbers_at"][first : first + 2].tolist()
            runs = arrays["numbers"][begin:end]
            whole = runs.astype(np.int64)
            counts: Any = (whole if (whole == runs).all() else runs).tolist()
        elif kind == TEXT:
            begin, end = arrays["texts_at"][i : i + 2].tolist()
            counts = arrays["texts"][begin:end].tobytes().decode("utf-8", "surrogatepass")
        else:
            return None
        return {"size": arrays["mask_size"][i].tolist(), "counts": counts}

    def as_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return all of it as COCO's JSON has it, for tools that ask for that."""
        ids, owners = self.image_ids, self.image.tolist()
        categories, boxes, areas = self.category.tolist(), self.box.tolist(), self.area.tolist()
        shapes = zip(self.heights.tolist(), self.widths.tolist(), strict=True)
        return {
            "images": [
                {"id": number, "file_name": name, "height": height, "width": width}
                for number, name, (height, width) in zip(ids, self.file_names, shapes, strict=True)
            ],
            "annotations": [
                {
                    "id": self.id_of(i),
                    "image_id": ids[owners[i]],
                    "category_id": self.category_ids[categories[i]],
                    "bbox": boxes[i],
                    "area": areas[i],
                    "iscrowd": int(self.crowd[i]),
                    "ignore": int(self.ignore[i]),
                    "segmentation": self.segmentation(i),
                }
                for i in np.flatnonzero((self.image >= 0) & (self.category >= 0)).tolist()
            ],
            "categories": [{"id": n, "name": name} for n, name in self.categories.items()],
        }

    def __deepcopy__(self, memo: dict) -> CocoFile:
        return self  # it never changes

    def __reduce__(self) -> tuple:
        """Have another process map the same columns, rather than send it a copy."""
        if self.cached is None:
            return CocoFile, (self.path, self.key, self._plain)
        return _reopen, (self.path, self.key, self.cached)


_remembered: collections.OrderedDict[Any, CocoFile] = collections.OrderedDict()


def open_coco(path: str | Path) -> CocoFile:
    """Read a COCO instance file, or map what was read of it before.

    Raises:
        FoundError: it is no such file, or its categories cannot be used. Entries that cannot be
            used are in `findings`.
    """
    path = require_file(path, "annotation file")
    state = os.stat(path)
    large = state.st_size >= CACHED
    # A small file may be written twice within a tick of the clock, a large one takes longer.
    known = (str(path), state.st_ino, state.st_size, state.st_mtime_ns) if large else None
    if known in _remembered:
        _remembered.move_to_end(known)
        return _remembered[known]
    place = column_cache.folder() if large else None
    if place is None:
        data = path.read_bytes()
        key = _name(hashlib.blake2b(data))
        if (str(path), key) in _remembered:
            return _remembered[str(path), key]
        return _remember(known or (str(path), key), CocoFile(path, key, read_columns(data, path)))
    found = _noted(path, place)
    if found is None:
        with column_cache.alone(_note(path, place)):  # one process reads it, the others wait
            found = _noted(path, place) or _make(path, place)
    return _remember(known, found)


def _make(path: Path, place: Path) -> CocoFile:
    """Parse a file and keep its columns on disk, or in memory where that cannot be written."""
    began, state = time.time(), _state(path)
    data, key = _read(path)
    cached = place / f"{key}.columns"

    def note() -> None:
        if state == _state(path) and state[-1] < (began - SETTLED) * 1e9:
            column_cache.save_json(_note(path, place), {"key": key, "state": state})

    if found := _cached(path, key, cached):  # a copy of another file, or only touched
        note()
        return found
    base, given_back = np.frombuffer(data, np.uint8).ctypes.data, 0

    def used(first: Any, last: Any) -> None:
        nonlocal given_back
        begin, end = (np.frombuffer(raw, np.uint8).ctypes.data - base for raw in (first, last))
        begin = max(-(-begin // READ_AT_ONCE) * READ_AT_ONCE, given_back)
        end = end // READ_AT_ONCE * READ_AT_ONCE
        if end > begin and hasattr(data, "madvise"):
            data.madvise(mmap.MADV_DONTNEED, begin, end - begin)
            given_back = end

    columns = read_columns(data, path, used)
    header = {
        "categories": list(columns.categories.items()),
        "image_ids": columns.image_ids,
        "file_names": columns.file_names,
        "ids": columns.ids,
        "odd_masks": list(columns.odd_masks.items()),
        "unknown": columns.unknown,
        "findings": [(f.kind.code, f.what, f.fix, f.ids) for f in columns.findings],
    }
    if column_cache.save(cached, columns.arrays, header):
        del columns
        found = _cached(path, key, cached)
        if found is not None:
            note()
            return found
        data, key = _read(path)
        columns = read_columns(data, path)
    return CocoFile(path, key, columns)


def _cached(path: Path, key: str, cached: Path) -> CocoFile | None:
    found = column_cache.load(cached)
    if found is None:
        return None
    arrays, header = found
    columns = Columns(
        arrays,
        dict(map(tuple, header["categories"])),
        header["image_ids"],
        header["file_names"],
        header["ids"],
        dict(map(tuple, header["odd_masks"])),
        header["unknown"],
        [
            Finding(KINDS[code], what, fix, str(path), tuple(ids))
            for code, what, fix, ids in header["findings"]
        ],
    )
    return CocoFile(path, key, columns, cached)


def _reopen(path: Path, key: str, cached: Path) -> CocoFile:
    return _cached(path, key, cached) or open_coco(path)


def _noted(path: Path, place: Path) -> CocoFile | None:
    """Return a file that was read before and not written since, as its inode says."""
    note = column_cache.load_json(_note(path, place))
    if not note or note.get("state") != _state(path):
        return None
    return _cached(path, note["key"], place / f"{note['key']}.columns")


def _state(path: Path) -> list[int]:
    state = os.stat(path)
    return [FORMAT, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _note(path: Path, place: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(os.path.abspath(path)), digest_size=16).hexdigest()
    return place / f"{name}.note"


def _remember(known: Any, found: CocoFile) -> CocoFile:
    _remembered[known] = found
    while len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)
    return found


def _name(digest: Any) -> str:
    return f"{digest.hexdigest()[:40]}-{FORMAT}"


def _read(path: Path) -> tuple[mmap.mmap, str]:
    """Read a file into memory of its own, which can be given back piece by piece."""
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # Of this process alone: what it gives back is free, and what a fork of it gives back stays.
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
        data = mmap.mmap(-1, max(size, 1), **private)
        got = 0
        while got < size and (count := file.readinto(memoryview(data)[got : got + READ_AT_ONCE])):
            digest.update(memoryview(data)[got : got + count])
            got += count
    return data, _name(digest)
