"""Unpack archives: names checked, room asked for first, each file whole, to be gone on with."""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from swin_dense.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
# Pictures hardly shrink. Beyond this factor, and this size, an archive is made to fill a disk.
MOST_FACTOR, LARGE = 100, 2**30
BLOCK = 2**20
SECONDS = 5.0  # between two lines of progress
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, zlib.error, NotImplementedError)


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of an archive; `name` is relative, with slashes."""

    name: str
    size: int
    entry: Any


def is_archive(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def unpack(path: Path, to: Path, say: Callable[[str], None]) -> int:
    """Unpack an archive into a folder; what is there with the right size is passed by.

    Each file is written aside and then moved to its name, so that a name means a whole file.

    Returns:
        how many files were written.

    Raises:
        InputError: a name leads out of the folder, there is a link or no room, or it is damaged.
    """
    with _opened(path) as archive:
        members = _members(path, archive)
        todo = [m for m in members if _size(to / m.name) != m.size]
        total = sum(m.size for m in members)
        _require_room(path, to, todo, total)
        more = f", {len(members) - len(todo):,} of them there already" if len(todo) < len(members) \
            else ""  # fmt: skip
        say(f"{path.name}: {len(members):,} files, {_amount(total)} unpacked{more}")
        done, last = 0, time.monotonic()
        for count, member in enumerate(todo, 1):
            _write(path, archive, member, to / member.name)
            done += member.size
            if time.monotonic() - last > SECONDS:
                last = time.monotonic()
                say(f"  {count:,} of {len(todo):,} files, {_amount(done)}")
    return len(todo)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                yield archive
        else:
            with tarfile.open(path) as tar:
                yield tar
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the system: no room, no right
        raise InputError(
            f"{path}: the archive is cut off or damaged ({error}). Copy or download it again; what "
            "is unpacked already is kept."
        ) from error


def _members(path: Path, archive: zipfile.ZipFile | tarfile.TarFile) -> list[Member]:
    found: dict[str, Member] = {}
    for written, size, kind, entry in _entries(archive):
        name = _checked(path, written)
        if kind == "folder" or _is_junk(name):
            continue
        if kind != "file":
            raise InputError(
                f"{path}: {written!r} is {kind}, and only files and folders are unpacked. Pack it "
                "again with what links lead to (tar --dereference), or unpack it yourself."
            )
        if name in found and found[name].size != size:
            raise InputError(
                f"{path}: it has two files {name!r} of different size. Pack it again, or unpack "
                "it yourself and name the folder."
            )
        found[name] = Member(name, size, entry)
    if not found:
        raise InputError(f"{path}: the archive holds no file. Copy or download it again.")
    return list(found.values())


def _entries(archive: zipfile.ZipFile | tarfile.TarFile) -> Iterator[tuple[str, int, str, Any]]:
    """Yield name, size, kind and handle of each entry."""
    if isinstance(archive, zipfile.ZipFile):
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            kind = "folder" if entry.is_dir() else "file"
            if stat.S_ISLNK(mode):
                kind = "a link"
            elif entry.flag_bits & 1:
                kind = "encrypted"
            yield entry.filename, entry.file_size, kind, entry
    else:
        for member in archive:
            kind = "file" if member.isfile() else "folder" if member.isdir() else "a device"
            if member.islnk() or member.issym():
                kind = "a link"
            yield member.name, member.size, kind, member


def _checked(path: Path, written: str) -> str:
    """Return the name with slashes; refuse one that could lead out of the folder."""
    name = written.replace("\\", "/")
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\0" in name or (parts and parts[0][1:2] == ":"):
        raise InputError(
            f"{path}: {written!r} leads out of the folder that the archive is unpacked into. Such "
            "archives are made to overwrite other files; get it from another source."
        )
    return PurePosixPath(*parts).as_posix() if parts else "."


def _is_junk(name: str) -> bool:
    return any(part in JUNK or part.startswith("._") for part in PurePosixPath(name).parts)


def _require_room(path: Path, to: Path, todo: list[Member], total: int) -> None:
    packed = path.stat().st_size
    if total > LARGE and total > MOST_FACTOR * packed:
        raise InputError(
            f"{path}: {_amount(packed)} would become {_amount(total)}, {total // packed} times as "
            "much. Pictures do not shrink like that: this looks like an archive made to fill a "
            "disk. If you trust it, unpack it yourself and name the folder."
        )
    there = to
    while not there.exists():
        there = there.parent
    free, needed = shutil.disk_usage(there).free, sum(m.size for m in todo)
    if needed > free:
        raise InputError(
            f"{path}: unpacked it needs {_amount(needed)} more, {there} has {_amount(free)} free. "
            "Make room, or choose another folder."
        )


def _write(
    path: Path, archive: zipfile.ZipFile | tarfile.TarFile, member: Member, target: Path
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    opened: IO[bytes] | None
    if isinstance(archive, zipfile.ZipFile):
        opened = archive.open(member.entry)
    else:
        opened = archive.extractfile(member.entry)
    assert opened is not None
    with opened as content, aside.open("wb") as file:
        shutil.copyfileobj(content, file, BLOCK)
    if aside.stat().st_size != member.size:
        aside.unlink()
        raise InputError(f"{path}: {member.name} is cut off. Copy or download the archive again.")
    os.replace(aside, target)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _amount(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"
