"""Whatever holds pictures as a row of them: files, folders, tables, addresses, videos, cameras.

A picture is read when its turn comes, so that a source may be larger than memory, or have no end.
Those of files, addresses and tables can be sent to another process, which reads them there.
"""

from __future__ import annotations

import functools
import glob
import http.client
import itertools
import numbers
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets import image_tables, images
from swin_dense.datasets.paths import require_file
from swin_dense.errors import InputError, MissingInputError

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
PAGES = ("http://", "https://")
STREAMS = ("rtsp://", "rtsps://", "rtmp://", "udp://")
SECONDS, BYTES = 30, 200 * 2**20  # a download may take between two answers, and be at most
TOTAL = 300  # seconds that it may take
REFUSED = (OSError, ValueError, http.client.HTTPException)  # what a fetch may end with
KINDS = (
    "an image, a folder of images, a pattern such as 'photos/**/*.jpg', a Parquet table of images, "
    "an address, a video, the number of a camera, a PIL image, an RGB array, or a list of these"
)
NO_ADDRESS = f"{{}}: addresses begin with {', '.join((*PAGES, *STREAMS))}."


@dataclass(frozen=True)
class Picture:
    """One picture of a source.

    Attributes:
        name: what tells it apart within its source: a path, an address, "clip.mp4#12" for the
            thirteenth frame; "0", "1", ... for pictures in memory.
        read: gives its pixels, (H, W, 3) uint8, RGB, upright, or raises an InputError.
        seconds: of a frame, from the start of its video.
        error: of a picture that is known not to be there, such as the rest of a video cut in half.
    """

    name: str
    read: Callable[[], np.ndarray]
    seconds: float | None = None
    error: InputError | None = None


class Source:
    """A row of pictures, to be gone through once or more often.

    Attributes:
        single: whether it is one picture by itself, not a row that happens to have one.
        endless: whether it has no end: a camera or a live stream.
        count: pictures in it, as far as is known before they are read.
    """

    def __init__(
        self,
        pictures: Callable[[], Iterator[Picture]],
        count: int | None,
        single: bool = False,
        endless: bool = False,
    ) -> None:
        self._pictures, self.count = pictures, count
        self.single, self.endless = single, endless

    def __iter__(self) -> Iterator[Picture]:
        return self._pictures()


def find(source: Any) -> Source:
    """Find out what a source is; files are looked up, and opened later.

    Args:
        source: a path, a folder of images, a pattern with *, ? or [, a Parquet table of images
            (`image_tables`) or a folder of them, an http address of an image or a video, the
            address of a live stream, a video file, the number of a camera, a PIL image, an RGB
            array (H, W, 3) or several (N, H, W, 3), or a list of any of these; or a generator,
            which is gone through once, as its pictures are asked for.

    Raises:
        InputError: it is none of these; MissingInputError: there is nothing.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, bool) or source is None:
        raise InputError(f"a source of images is {KINDS}; got {source!r}.")
    if isinstance(source, numbers.Integral):
        return _camera(int(source))
    if isinstance(source, str | os.PathLike):
        return _named(str(source) if isinstance(source, str) else os.fspath(source))
    if isinstance(source, np.ndarray) and source.ndim == 4:
        return _row([find(image) for image in source])
    if isinstance(source, list | tuple):
        return _row([find(one) for one in source])
    if isinstance(source, Iterator):
        return Source(functools.partial(_numbered, map(_of_generator, source)), None)
    return _one("0", functools.partial(images.as_rgb, source))


def _of_generator(source: Any) -> Source:
    """Copy an array, which its generator may fill again; what is no source is one lost picture."""
    try:
        return find(source.copy() if isinstance(source, np.ndarray) else source)
    except InputError as error:
        lost = _lost(str(source)[:100], str(error))
        return Source(lambda: iter([lost]), 1)


def _one(name: str, read: Callable[[], np.ndarray]) -> Source:
    return Source(lambda: iter([Picture(name, read)]), 1, single=True)


def _row(parts: list[Source]) -> Source:
    """Join sources; pictures in memory are numbered through."""
    if endless := next((part for part in parts if part.endless), None):
        if len(parts) == 1:
            return endless
        raise InputError(
            "a camera or a live stream has no end, so nothing after it in a list would be reached. "
            "Give it by itself."
        )
    counts = [part.count for part in parts]
    count = None if None in counts else sum(c for c in counts if c is not None)
    return Source(lambda: _numbered(parts), count)


def _numbered(parts: Iterable[Source]) -> Iterator[Picture]:
    number = itertools.count()
    for part in parts:
        for picture in part:
            place = next(number)
            yield Picture(str(place), picture.read) if picture.name == "0" else picture


def _named(name: str) -> Source:
    scheme = name.lower()
    if scheme.startswith(PAGES):
        if Path(name.partition("?")[0].partition("#")[0]).suffix.lower() in VIDEOS:
            return _video(name)
        return _one(name, functools.partial(_fetched, name))
    if scheme.startswith(STREAMS):
        return _video(name, endless=True)
    path = Path(name)
    if "://" in name and not path.exists():
        raise InputError(NO_ADDRESS.format(name))
    if name.isascii() and name.isdecimal() and not path.exists():
        return _camera(int(name))
    if not path.exists() and glob.has_magic(name):
        return _files([Path(found) for found in _matching(name)])
    if path.is_dir():
        return _files(_in_folder(path))
    return _file(require_file(path, "image"))


def _in_folder(path: Path) -> list[Path]:
    """List the images in a folder; if there is none, its tables of images."""
    try:
        return images.find_images(path)
    except InputError:
        if tables := sorted(path.glob(f"*{image_tables.SUFFIX}")):
            return tables
        raise


def _matching(pattern: str) -> list[str]:
    """List the images, videos and tables that a pattern names, hidden ones left out."""
    known = (*images.SUFFIXES, *VIDEOS, image_tables.SUFFIX)
    found = [path for path in sorted(glob.glob(pattern, recursive=True)) if Path(path).is_file()]
    kept = [path for path in found if Path(path).suffix.lower() in known]
    once: dict[str, str] = {}  # a link to a folder around it would give its files many times
    for path in sorted(kept, key=len):
        once.setdefault(os.path.realpath(path), path)
    kept = sorted(once.values())
    if kept:
        return kept
    others = f" It names {len(found)} files of other kinds, {found[0]} first." if found else ""
    raise MissingInputError(
        f"{pattern}: no image, video or table has such a name.{others} * stands for any "
        "letters, ** for any folders."
    )


def _files(paths: list[Path]) -> Source:
    tables = [path for path in paths if _is_table(path)]
    others = [_file(path) for path in paths if not _is_table(path)]
    if not others:
        return _tables(tables)
    return _row([*others, _tables(tables)] if tables else others)


def _file(path: Path) -> Source:
    if not path.is_file():
        raise InputError(f"{path}: this is a pipe, a device or the like, no picture file.")
    if path.suffix.lower() in VIDEOS:
        return _video(str(path))
    if _is_table(path):
        return _tables([path])
    return _one(str(path), functools.partial(images.read_rgb, path))


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == image_tables.SUFFIX


def _tables(paths: list[Path]) -> Source:
    tables = [image_tables.Table(path) for path in paths]
    image_tables.require_names(tables)

    def pictures() -> Iterator[Picture]:
        return (_of_row(row) for table in tables for row in table)

    return Source(pictures, sum(table.count for table in tables))


def _of_row(row: image_tables.Row) -> Picture:
    if row.lack:
        return _lost(row.name, row.lack)
    if row.contents:
        return Picture(row.name, functools.partial(_decoded, row))
    if row.name.lower().startswith(PAGES):
        return Picture(row.name, functools.partial(_fetched, row.name))
    if "://" in row.name:
        return _lost(row.name, NO_ADDRESS.format(row.name))
    return Picture(row.name, functools.partial(images.read_rgb, row.name))


def _decoded(row: image_tables.Row) -> np.ndarray:
    return images.decode_rgb(row.read(), row.name)


def _fetched(address: str) -> np.ndarray:
    return images.decode_rgb(_downloaded(address), address)


def _downloaded(address: str) -> bytes:
    """Fetch an image, in memory."""
    try:
        whole = urllib.parse.quote(address, safe="%/:=&?~#+!$,;'@()*[]")
        request = urllib.request.Request(whole, headers={"User-Agent": "swin_dense"})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            data, end = bytearray(), time.monotonic() + TOTAL
            while len(data) <= BYTES and (some := answer.read1(2**20)):
                data += some
                if time.monotonic() > end:
                    raise TimeoutError(f"not done after {TOTAL} s")
            if answer.length:  # what it said is still to come
                raise http.client.IncompleteRead(bytes(data), answer.length)
    except REFUSED as error:
        raise InputError(
            f"{address}: it cannot be fetched ({error}). Look at the address in a browser."
        ) from error
    if len(data) > BYTES:
        raise InputError(
            f"{address}: more than {BYTES // 2**20} MB. Download it and give the file."
        )
    return bytes(data)


def _camera(number: int) -> Source:
    def pictures() -> Iterator[Picture]:
        lack = f"camera {number} cannot be opened. 0 is the first; is another program using it?"
        return _frames(number, f"camera {number}", lack)

    return Source(pictures, None, endless=True)


def _video(name: str, endless: bool = False) -> Source:
    lack = (
        f"{name}: this cannot be opened as a video. It may be damaged, or of a coding that this "
        "OpenCV does not have: ffmpeg -i IN -c:v libx264 OUT.mp4 writes one that it has."
    )
    return Source(lambda: _frames(name, name, lack), None, endless=endless)


def _frames(address: str | int, name: str, lack: str) -> Iterator[Picture]:
    """Decode a video frame by frame; rotated ones are upright."""
    import cv2

    capture = cv2.VideoCapture(address)
    try:
        for place in itertools.count():
            there, frame = capture.read()
            if not there:
                told = capture.get(cv2.CAP_PROP_FRAME_COUNT)
                if not place:
                    yield _lost(name, lack)
                elif told - place > max(2, 0.05 * told):  # the number it tells may be a guess
                    cut = f"{told:.0f} frames, {place} could be read. It is cut off or damaged"
                    yield _lost(name, f"{name}: the video says that it has {cut}: copy it again.")
                return
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            rgb = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            yield Picture(f"{name}#{place}", functools.partial(images.as_rgb, rgb), seconds)
    finally:
        capture.release()


def _lost(name: str, why: str) -> Picture:
    """Return what stands for pictures that are known not to be there."""
    error = InputError(why)
    return Picture(name, functools.partial(_refuse, error), error=error)


def _refuse(error: InputError) -> np.ndarray:
    raise error
