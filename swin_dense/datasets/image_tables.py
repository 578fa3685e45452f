"""Tables of images in Parquet files: a column of paths, or one of whole image files with names.

A table may be larger than memory: names are read first, and each image when its turn comes.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swin_dense.errors import InputError, extra_of_ours

SUFFIX = ".parquet"
IMAGES_AT_ONCE, NAMES_AT_ONCE = 16, 10_000  # rows that are read in one go
BUFFER = 2**20  # bytes; without one pyarrow holds a column of a whole row group
RULE = (
    "a table of images has a column `path` (image files or addresses; relative ones are looked up "
    "from the table's folder), or `image` (the bytes of image files) with their names in `name`"
)


def require_pyarrow() -> Any:
    """Import pyarrow.

    Raises:
        InputError: it does not import; with what to do.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        text = f"parquet: pyarrow does not import ({error}). {extra_of_ours('parquet')}"
        raise InputError(text) from error
    return pyarrow


class Row(NamedTuple):
    """An image of a table.

    Attributes:
        name: its path or address, or what the table calls it.
        number: of the row, from 0.
        contents: the image files that the table holds; None where `name` says where the file is.
        lack: why there is no image, if so.
    """

    name: str
    number: int
    contents: Contents | None
    lack: str | None = None

    def read(self) -> bytes:
        """Return the image file that the table holds.

        Raises:
            InputError: it holds none in this row, or is damaged.
        """
        data = self.contents.read(self.number) if self.contents else None
        if not data:
            raise InputError(f"{self.name}: the table has no image in row {self.number}.")
        return data


class Table:
    """A table that names or holds images.

    Attributes:
        count: its rows.
        contents: the image files, if it holds them.
    """

    def __init__(self, path: Path) -> None:
        """Look at the columns.

        Raises:
            InputError: it is no table of images, or damaged.
        """
        self.path = path
        with _opened(path) as file:
            self.count = file.metadata.num_rows
            self.names, image = _columns(path, file.schema_arrow)
        self.contents = Contents(path, image) if image else None

    def __iter__(self) -> Iterator[Row]:
        """Yield an image for each row."""
        for number, name in enumerate(self.each_name()):
            if not name:
                lack = f"{self.path}: row {number} has no {self.names}."
                yield Row(f"{self.path}#{number}", number, self.contents, lack)
            elif self.contents is None and "://" not in name:
                yield Row(str(self.path.parent / name), number, None)
            else:
                yield Row(name, number, self.contents)

    def each_name(self) -> Iterator[str | None]:
        """Yield what the table says in the column of names."""
        with _opened(self.path) as file, _told(self.path):
            for some in file.iter_batches(batch_size=NAMES_AT_ONCE, columns=[self.names]):
                yield from (_leaf(value.as_py()) for value in some.column(0))


def require_names(tables: Sequence[Table]) -> None:
    """Check the names of images that tables hold: of two with one name, one would be lost.

    Raises:
        InputError: two have the same one.
    """
    first: dict[str, tuple[Path, int]] = {}
    for table in tables:
        for number, name in enumerate(table.each_name() if table.contents else ()):
            path, row = first.setdefault(name or f"{table.path}#{number}", (table.path, number))
            if (path, row) != (table.path, number):
                raise InputError(
                    f"{table.path}: row {number} is called {name!r}, as row {row} of {path}. "
                    f"Results are known by the image's name: give each a {table.names} of its own."
                )


class Contents:
    """The images that a table holds, read forward as far as rows are asked for in their order.

    It can be sent to other processes, which read the table themselves.
    """

    def __init__(self, path: Path, column: str) -> None:
        self.path, self.column = path, column
        self._lock = threading.Lock()
        self._file: Any = None
        self._batches: Iterator[Any] = iter(())
        self._group, self._start = -1, 0
        self._some: Any = ()

    def __reduce__(self) -> Any:
        return _contents, (self.path, self.column)

    def read(self, row: int) -> bytes | None:
        """Return the image file of a row; None if the table has none there."""
        with self._lock, _told(self.path):
            if not self._start <= row < self._start + len(self._some):
                self._go_to(row)
            return _leaf(self._some[row - self._start].as_py())

    def _go_to(self, row: int) -> None:
        if self._file is None:
            self._file = _opened(self.path)
        group, first = 0, 0
        while row >= first + self._file.metadata.row_group(group).num_rows:
            first += self._file.metadata.row_group(group).num_rows
            group += 1
        if group != self._group or row < self._start:
            self._batches = self._file.iter_batches(
                IMAGES_AT_ONCE, row_groups=[group], columns=[self.column], use_threads=False
            )
            self._group, self._start, self._some = group, first, ()
        while row >= self._start + len(self._some):
            self._start += len(self._some)
            self._some = next(self._batches).column(0)


@functools.lru_cache(maxsize=8)
def _contents(path: Path, column: str) -> Contents:
    """Return one reader for all rows of a table that come to this process."""
    return Contents(path, column)


def _columns(path: Path, schema: Any) -> tuple[str, str | None]:
    """Return the column of names, and that of image files if there is one."""
    types = require_pyarrow().types

    def is_text(kind: Any) -> bool:
        if kind is not None and types.is_dictionary(kind):
            kind = kind.value_type
        return kind is not None and (types.is_string(kind) or types.is_large_string(kind))

    def is_bytes(kind: Any) -> bool:
        return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))

    kinds = {field.name: field.type for field in schema}
    image = kinds.get("image")
    names = [name for name in ("name", "path") if name in kinds and is_text(kinds[name])]
    if image is not None and types.is_struct(image):  # as data sets of Hugging Face hold them
        inner = {field.name: field.type for field in image}
        if is_bytes(inner.get("bytes")) and (names or is_text(inner.get("path"))):
            return (names or ["image.path"])[0], "image.bytes"
    elif image is not None and is_bytes(image) and names:
        return names[0], "image"
    elif image is None and "path" in names:
        return "path", None
    there = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    raise InputError(f"{path}: {RULE}; this one has {there[:300] or 'no columns'}.")


def _leaf(value: Any) -> Any:
    """Return what a column holds, or its only field."""
    return next(iter(value.values())) if isinstance(value, dict) else value


def _opened(path: Path) -> Any:
    parquet = require_pyarrow().parquet
    with _told(path):
        return parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say which table it is that cannot be read."""
    try:
        yield
    except (OSError, require_pyarrow().ArrowException) as error:
        reason = (str(error).splitlines() or ["damaged"])[0][:200]
        raise InputError(
            f"{path}: the table cannot be read ({reason}). Write or copy it again."
        ) from error
