"""Columns on disk, mapped into memory: what one process read is there for all others.

One file holds named arrays and a JSON header. It is written beside its place and moved there, so
that it is whole or absent, and a lock has other processes wait for the one that makes it. Where
nothing can be written, nothing is kept.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

try:
    import fcntl
except ImportError:  # Windows: two processes may both do the work, and the last one's file stays
    fcntl = None  # type: ignore[assignment]

MAGIC = b"swin_dense columns 1\n"
ALIGNED = 64  # bytes
UNUSED_DAYS = 30  # after which a file is removed when another one is written


def folder() -> Path | None:
    """Return the folder of this user's cache; None where there is no home to put it in."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "swin_dense" / "annotations"
    except RuntimeError:  # a user without a home
        return None


def load(path: Path) -> tuple[dict[str, np.ndarray], Any] | None:
    """Map a file: read-only arrays by name, and the header; None if it is absent or cut off."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.utime(path)  # it is in use
    except (OSError, ValueError):  # absent, or empty
        return None
    try:
        start = len(MAGIC)
        length = int.from_bytes(mapped[start : start + 8], "little")
        if mapped[:start] != MAGIC or mapped[-len(MAGIC) :] != MAGIC:
            return None
        head = msgspec.json.decode(mapped[start + 8 : start + 8 + length])
        arrays = {
            name: np.frombuffer(mapped, dtype, count=int(np.prod(shape)), offset=at).reshape(shape)
            for name, (dtype, shape, at) in head["arrays"].items()
        }
    except (ValueError, KeyError, TypeError, msgspec.MsgspecError):
        return None
    return arrays, head["more"]


def save(path: Path, arrays: Mapping[str, np.ndarray], more: Any) -> bool:
    """Write arrays and a header to a file at once; False where that cannot be done."""
    at = 0
    table = {}
    for name, values in arrays.items():
        table[name] = (values.dtype.str, values.shape, at)
        at += -(-values.nbytes // ALIGNED) * ALIGNED
    try:  # the places are known when the header's length is: leave room for longer numbers
        head = msgspec.json.encode({"arrays": table, "more": more})
        begin = -(-(len(MAGIC) + 8 + len(head) + 20 * len(table)) // ALIGNED) * ALIGNED
        table = {name: (kind, shape, begin + at) for name, (kind, shape, at) in table.items()}
        head = msgspec.json.encode({"arrays": table, "more": more})
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_unused(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            try:
                file.write(MAGIC + len(head).to_bytes(8, "little") + head)
                for name, values in arrays.items():
                    if values.size:  # a view without elements has no bytes to cast to
                        file.seek(table[name][2])
                        file.write(np.ascontiguousarray(values).data.cast("B"))
                file.seek(begin + at)
                file.write(MAGIC)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except (OSError, ValueError, TypeError, msgspec.MsgspecError):  # full, read-only, odd texts
        return False
    return True


def load_json(path: Path) -> Any:
    """Read a small JSON file; None if it is not there or not whole."""
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, ValueError, msgspec.MsgspecError):
        return None


def save_json(path: Path, content: Any) -> None:
    """Write a small JSON file at once, where that can be done."""
    with contextlib.suppress(OSError, ValueError, TypeError, msgspec.MsgspecError):
        data = msgspec.json.encode(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Have one process at a time make `path`; the lock ends with the process that holds it."""
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "wb")  # noqa: SIM115
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:  # a folder that cannot be written, or a file system without locks
        pass
    try:
        yield
    finally:
        if lock:
            lock.close()


def _remove_unused(place: Path) -> None:
    """Remove what nobody opened for a month, and what a stopped process left half-written."""
    now = time.time()
    for entry in os.scandir(place):
        days = 1 if entry.name.startswith(".new-") else UNUSED_DAYS
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < now - days * 86400:
                os.unlink(entry.path)
