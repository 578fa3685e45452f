"""Open a source: a folder as it is, or archives unpacked aside, under one folder."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError, MissingInputError
from swin_dense.preparation import archives

# Folders that mean something: not to be gone into, where they are alone.
KEPT = {
    "annotations", "images", "labels", "masks", "train", "val", "train2017", "val2017",
    "Annotations", "JPEGImages", "VOCdevkit", "leftImg8bit", "gtFine",
}  # fmt: skip


def opened(source: Path, patterns: Sequence[str], aside: Path, say: Callable[[str], None]) -> Path:
    """Return the folder of the set's files; archives are unpacked into `aside` first.

    Args:
        source: a folder, an archive, or a folder of archives.
        patterns: names of the format's official archives; of others, a folder is unpacked only
            if it holds nothing else.

    Raises:
        InputError: nothing is there, or an archive has a fault.
    """
    if not source.exists():
        official = f" The official files are {', '.join(patterns)}." if patterns else ""
        raise MissingInputError(f"{source}: there is no such file or folder.{official}")
    if source.is_file() and not archives.is_archive(source):
        raise InputError(
            f"{source}: a source is a folder or an archive ({' '.join(archives.SUFFIXES)}). Name "
            "the folder that this file is in."
        )
    packed = [source] if source.is_file() else _packed(source, patterns)
    if not packed:
        return _innermost(source)
    for link in aside.iterdir() if aside.is_dir() else ():
        if link.is_symlink():  # of a run before: unpacking must not write into the source
            link.unlink()
    for path in packed:
        archives.unpack(path, aside, say)
    if source.is_dir():  # what lies beside the archives belongs to the set
        for path in source.iterdir():
            if path not in packed and not path.name.startswith(".") and path.is_dir():
                _beside(path, aside / path.name)
    return _innermost(aside)


def _packed(folder: Path, patterns: Sequence[str]) -> list[Path]:
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    found = [p for p in entries if archives.is_archive(p)]
    if patterns:
        return [p for p in found if any(fnmatch.fnmatch(p.name, pattern) for pattern in patterns)]
    if found and len(found) < len(entries):
        if not any(p.is_dir() for p in entries):
            others = first_names([p.name for p in entries if p not in found])
            raise InputError(f"{folder}: archives beside {others}. Name one archive.")
        return []
    return found


def _beside(path: Path, link: Path) -> None:
    if not link.exists() and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.resolve(), link, target_is_directory=True)


def _innermost(folder: Path) -> Path:
    """Go into folders that hold one folder and nothing else, as archives often do."""
    while True:
        entries = [p for p in folder.iterdir() if not p.name.startswith(".")]
        entries = [p for p in entries if p.name not in archives.JUNK]
        if len(entries) != 1 or not entries[0].is_dir() or entries[0].name in KEPT:
            return folder
        folder = entries[0]
