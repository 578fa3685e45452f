"""Results of many images on disk: a JSON line for each, to which a run that was ended is added.

A folder holds `predictions.jsonl` and `about.json`, which says what made them: results of other
weights are never added to it.
"""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from swin_dense.errors import InputError
from swin_dense.report.results import Result

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ROWS, ABOUT, LOCK = "predictions.jsonl", "about.json", ".lock"


class Journal:
    """The rows of a folder, open to be added to; a row is on disk as soon as it is added.

    Attributes:
        path: of the rows.
        done: names of the images whose rows are there.
        drawn: names of the pictures that they tell of.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Open a folder, which is made if it is not there.

        Rows of images that could not be read, and half a row, are taken out: they are tried again.

        Args:
            about: what decides the results; it must be what made the rows that are there.

        Raises:
            InputError: something else made them, they are damaged, or another run adds to them.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / ROWS
        self.done: set[str] = set()
        self.drawn: set[str] = set()
        with ExitStack() as opened:
            opened.enter_context(_locked(folder))
            _require_same(folder, about)
            kept = b"".join(line for line in self._lines() if self._is_result(line))
            if not self.path.exists() or len(kept) != self.path.stat().st_size:
                _write(self.path, kept)
            _write(folder / ABOUT, json.dumps(about, indent=1).encode() + b"\n")
            self._file = opened.enter_context(self.path.open("ab"))
            self._opened = opened.pop_all()

    def add(self, name: str, row: Mapping[str, Any]) -> None:
        """Add what was found in an image, or `{"error": ...}`."""
        text = json.dumps({"image": name, **row}, ensure_ascii=False)
        self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()
        self.done.add(name)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def _lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        whole, end, _ = self.path.read_bytes().rpartition(b"\n")
        return [line + b"\n" for line in whole.split(b"\n") if line.strip()] if end else []

    def _is_result(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
            name, failed = row["image"], "error" in row
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"{self.path}: a row is damaged ({error}): {line[:60]!r}. Remove that row, or "
                "choose another folder."
            ) from error
        if failed:
            return False
        self.done.add(name)
        self.drawn.update([row["drawn"]] if "drawn" in row else [])
        return True


def row_of(result: Result) -> dict[str, Any]:
    """Return what is written of a result, as plain values."""
    row = result.to_json()
    return row if result.seconds is None else {"seconds": round(result.seconds, 3), **row}


def _locked(folder: Path) -> Any:
    """Take the folder for this process, until the file is closed or the process ends."""
    file = (folder / LOCK).open("wb")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InputError(
                f"{folder}: another run is adding to it. Wait for its end, or take another folder."
            ) from error
        except OSError:
            pass  # a file system without locks
    return file


def _require_same(folder: Path, about: Mapping[str, Any]) -> None:
    path = folder / ABOUT
    if not path.exists():
        return
    try:
        before = json.loads(path.read_bytes())
        differing = [key for key in about if before.get(key) != about[key]]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: it cannot be read ({error}). Choose another folder.") from error
    if differing:
        key = differing[0]
        raise InputError(
            f"{folder}: the results in it were made with {key} {before.get(key)!r}, this run has "
            f"{about[key]!r}. Choose another folder, or remove this one."
        )


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
