"""Images larger than memory should hold, read from their top to their bottom in bands of rows.

TIFF and PNG are decoded band by band. Other kinds, and TIFF of rare codings, can only be decoded
as a whole: they take four bytes a pixel, and may have fewer pixels. What pixels mean is as in
`images.py`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from swin_dense.datasets import images
from swin_dense.datasets.paths import require_file
from swin_dense.datasets.png_rows import SIGNATURE, PngRows
from swin_dense.datasets.tiff_rows import MAGIC, Tag, TiffWindows
from swin_dense.errors import InputError
from swin_dense.file_limits import ROW_PIXELS

MOST = 2_500_000_000  # pixels, of what is read in bands, and
MOST_WHOLE = 600_000_000  # of what is held as a whole: 2.4 GB
# Pillow looks at the number of pixels where it finds out the kind of a file, not in these.
KINDS: tuple[tuple[bytes, type[Image.Image]], ...] = (
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (SIGNATURE, PngImagePlugin.PngImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    *((magic, TiffImageFile) for magic in MAGIC),
)
# Orientation (EXIF): whether rows and columns change places, then which are turned round.
TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class LargeImage:
    """An image that is read once, from top to bottom.

    Attributes:
        path: of the file.
        size: height and width in pixels, upright.
        georeference: of a GeoTIFF, tags that say where it lies.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        read: Callable[[int, int], np.ndarray],
        close: Callable[[], None],
        end: Callable[[], None] | None = None,
        georeference: list[Tag] | None = None,
    ) -> None:
        """Take what reads it.

        Args:
            read: `read(top, bottom)` gives rows.
            close: closes the file.
            end: is called after the last row.
        """
        self.path, self.size, self.georeference = path, size, georeference or []
        self.close = close
        self._read, self._end, self._next = read, end, 0

    def read(self, count: int) -> np.ndarray:
        """Return the next `count` rows: uint8 (count, W, 3), RGB, upright.

        Raises:
            InputError: the file is cut off or damaged.
        """
        rows = self._read(self._next, self._next + count)
        self._next += count
        if self._next == self.size[0] and self._end:
            self._end()
        return rows


def open_image(path: str | Path, level: int = 0, most_pixels: float | None = None) -> LargeImage:
    """Open an image file; its pixels are read later. Who opens it closes it.

    Args:
        level: of a TIFF with a pyramid, 0 is the largest.
        most_pixels: refuse larger images; 2.5e9 if None, 0.6e9 of those that are held as a whole.

    Raises:
        InputError: it is no image, cut off, or too large.
    """
    path = require_file(path, "image")
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(
            f"{path}: the image cannot be read ({error.strerror or error}). Look at its "
            "permissions and its disk."
        ) from error
    if start[:4] in MAGIC:
        return _tiff(path, level, most_pixels)
    if level:
        raise InputError(f"`level` {level}: {path} is no TIFF, which alone may have levels.")
    if start.startswith(SIGNATURE):
        rows = PngRows(path)
        if not rows.interlaced and rows.orientation == 1:
            _require_pixels(path, rows.size, most_pixels, MOST)
            return LargeImage(
                path, rows.size, lambda top, bottom: rows.read(bottom - top), rows.close, rows.end
            )
        rows.close()
    return _whole(path, most_pixels)


class _Stored(Protocol):
    def __call__(self, rows: slice, columns: slice) -> np.ndarray: ...


def _turned(size: tuple[int, int], orientation: int, read: _Stored) -> tuple[Any, Any]:
    """Return the upright size, and what reads upright rows of an image of that size as stored."""
    sideways, down, across = TURNS.get(orientation, TURNS[1])
    height, width = size[::-1] if sideways else size

    def rows(top: int, bottom: int) -> np.ndarray:
        part = slice(height - bottom, height - top) if down else slice(top, bottom)
        other = slice(0, width)
        found = read(other, part).swapaxes(0, 1) if sideways else read(part, other)
        found = found[::-1] if down else found
        return np.ascontiguousarray(found[:, ::-1] if across else found)

    return (height, width), rows


def _tiff(path: Path, level: int, most_pixels: float | None) -> LargeImage:
    try:
        tiff = TiffWindows(path, level)
    except ImportError as error:
        raise InputError(
            f"{path}: reading large TIFF files takes tifffile, which does not import ({error}). It "
            "is an extra of this project: pip install '.[large]' in the project's folder."
        ) from error
    try:
        tiff.require_whole()
        reason = tiff.whole_only
        if not reason:
            _require_pixels(path, tiff.size, most_pixels, MOST)
            _require_row(path, tiff.size)
            tiff.require_blocks()
            size, rows = _turned(tiff.size, tiff.orientation, tiff.read)
            return LargeImage(path, size, rows, tiff.close, None, tiff.georeference)
    except InputError:
        tiff.close()
        raise
    tiff.close()
    if level:
        raise InputError(
            f"`level` {level}: only the largest image of this TIFF can be read here ({reason})."
        )
    image = _whole(path, most_pixels, f" ({reason})")
    image.georeference = tiff.georeference
    return image


def _whole(path: Path, most_pixels: float | None, reason: str = "") -> LargeImage:
    """Have Pillow decode a file when its first rows are asked for."""
    with path.open("rb") as file:
        image = _opened(path, file.read(16))
    size = images.upright_size(image)
    _require_pixels(path, size, most_pixels, MOST_WHOLE, reason)
    # Pillow turns a TIFF when it is loaded, and no other kind.
    orientation = 1 if isinstance(image, TiffImageFile) else images.orientation(image)
    stored = size[::-1] if orientation in images.SIDEWAYS else size

    def read(rows: slice, columns: slice) -> np.ndarray:
        try:
            image.load()
        except images.DECODING_FAILED as error:
            raise InputError(
                f"{path}: the image is cut off or damaged: it does not decode to the "
                f"{size[1]}x{size[0]} pixels of its {image.format} header ({error}){reason}. Copy "
                "or download it again."
            ) from error
        part = image.crop((columns.start, rows.start, columns.stop, rows.stop))
        part.format = image.format
        return images.to_rgb(part, str(path))

    upright, rows = _turned(stored, orientation, read)
    return LargeImage(path, upright, rows, image.close)


def _opened(path: Path, start: bytes) -> Image.Image:
    kind = next((kind for magic, kind in KINDS if start.startswith(magic)), None)
    if kind is None:
        return images.open_image(path.read_bytes(), str(path))
    try:
        return kind(str(path))  # type: ignore[call-arg]
    except images.DECODING_FAILED as error:
        raise InputError(
            f"{path}: the image header is cut off or damaged ({error}). Copy the file again."
        ) from error


def _require_row(path: Path, size: tuple[int, int]) -> None:
    if max(size) > ROW_PIXELS.most:  # an image that is turned has its columns for rows
        raise InputError(f"{path}: {ROW_PIXELS.rule(max(size))}")


def _require_pixels(
    path: Path, size: tuple[int, int], asked: float | None, most: int, reason: str = ""
) -> None:
    height, width = size
    limit = most if asked is None else asked
    if height * width <= limit:
        return
    advice = "Raise it with `most_pixels` if the file is what you think it is"
    if most == MOST_WHOLE:
        advice += (
            f"; such a file{reason} is decoded as a whole, 4 bytes a pixel. A TIFF of tiles with "
            "deflate is read in bands: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE -co "
            "BIGTIFF=YES IN OUT.tif"
        )
    raise InputError(
        f"{path}: {width}x{height} pixels are {height * width:,}, at most {limit:,.0f} are looked "
        f"at. {advice}."
    )
