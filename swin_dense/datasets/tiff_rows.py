"""Rows of a TIFF or BigTIFF, one band after the other: only its strips and tiles there are decoded.

tifffile decodes them; without imagecodecs it knows no compression but deflate, so that a file of
another one is left to a library that decodes it as a whole (`large_images.py`).
"""

import contextlib
import zlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from swin_dense.errors import InputError
from swin_dense.file_limits import BLOCK_BYTES

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
GREYS, COLOURS, YCBCR = (0, 1), 2, 6  # photometric interpretations; 0 is white at 0
UNPREMULTIPLIED, PREMULTIPLIED = 2, 1  # what a sample beyond the colours is
ORIENTATION = 274
PAGES = 1000  # of a file that are looked through for levels of a pyramid
NONE, DEFLATE = 1, (8, 32946, 50013)  # ways of compression
DEFLATED = 1032  # times its bytes, the most that a stream of deflate unpacks to
LOOKED_AT = 2**20  # bytes inflated at once
# How a GeoTIFF says where it lies: scale, tie points, transformation, keys and what they refer to.
GEOGRAPHY = (33550, 33922, 34264, 34735, 34736, 34737)
Tag = tuple[int, int, int, Any, bool]


class TiffWindows:
    """The pixels of one image of a TIFF, as stored.

    Attributes:
        size: height and width in pixels.
        orientation: as in EXIF, 1 is upright.
        levels: (height, width) of each level of its pyramid, the largest first.
        georeference: tags that say where it lies, as `tifffile.TiffWriter` takes them.
    """

    def __init__(self, path: Path, level: int = 0) -> None:
        """Open a file, its first image.

        Raises:
            InputError: it is damaged, or has no such level.
        """
        import tifffile

        self._path = path
        with _explained(path):
            self._tiff = tifffile.TiffFile(path)
            first: Any = self._tiff.pages[0]
            # Whose next pages are not looked for: of thousands, none is a level of a pyramid.
            series: Any = [] if self._has_many_pages() else self._tiff.series
            pages = [one.pages[0] for one in series[0].levels] if series else [first]
        self.levels = [(page.imagelength, page.imagewidth) for page in pages]
        if not 0 <= level < len(pages):
            sizes = ", ".join(f"{width}x{height}" for height, width in self.levels)
            raise InputError(f"`level` {level}: {path} has levels 0 to {len(pages) - 1} ({sizes}).")
        with _explained(path):
            self._page: Any = (pages[level] if level else first).aspage()
            tags: Any = self._page.tags
            self.orientation = int(tags.valueof(ORIENTATION, 1))
            found = [tags.get(code) for code in GEOGRAPHY if not level and tags.get(code)]
            self.georeference: list[Tag] = [
                (tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in found
            ]
        self.size = self._page.imagelength, self._page.imagewidth
        self._held: dict[int, np.ndarray] = {}  # decoded, and reaching behind what was read

    def _has_many_pages(self) -> bool:
        try:
            self._tiff.pages[PAGES]
        except IndexError:
            return False
        return True

    @property
    def whole_only(self) -> str:
        """Say why its parts cannot be decoded here; "" if they can."""
        page = self._page
        samples, extra = page.samplesperpixel, page.extrasamples
        colours = 1 if page.photometric in GREYS else 3
        kinds = (UNPREMULTIPLIED, PREMULTIPLIED)
        if page.dtype not in (np.uint8, np.uint16) or page.bitspersample not in (8, 16):
            return f"samples of {page.bitspersample} bits, {page.dtype}"
        if page.photometric not in (*GREYS, COLOURS, YCBCR):
            return f"colours stored as {getattr(page.photometric, 'name', page.photometric)}"
        if samples - len(extra) != colours or len(extra) > 1:
            return f"{samples} samples in a pixel"
        if extra and extra[0] not in kinds:
            return "a channel of no stated meaning"
        if page.photometric == YCBCR and int(page.compression) not in (6, 7):
            return "colours stored as YCBCR"
        try:
            decode = page.decode
            if "raise" in getattr(decode, "__name__", ""):
                decode(None, 0)
        except Exception as error:
            return str(error)
        return ""

    def require_whole(self) -> None:
        """Require that all pixels are in the file.

        Raises:
            InputError: the file ends before them.
        """
        page, length = self._page, self._path.stat().st_size
        with _explained(self._path):  # they may be texts
            sides = zip(page.dataoffsets, page.databytecounts, strict=False)
            end = max((offset + count for offset, count in sides), default=0)
        if end > length or not end:
            raise InputError(
                f"{self._path}: the image is cut off: its pixels end at byte {end}, the file has "
                f"{length} bytes. Copy or download it again."
            )

    def require_blocks(self) -> None:
        """Require that each strip or tile is of a size that is decoded at once.

        Raises:
            InputError: it is larger than the limit.
        """
        with _explained(self._path):
            if not self._is_plain and self._block_bytes > BLOCK_BYTES.most:
                self._too_large(self._block_bytes)

    @property
    def _is_plain(self) -> bool:
        """Tell whether rows are read from where they lie."""
        page = self._page
        return page.is_contiguous and page.planarconfig == 1 and int(page.compression) == NONE

    @property
    def _block_bytes(self) -> int:
        """Return the bytes of a strip or tile as decoded, by the header."""
        page, (height, width) = self._page, self.size
        high, wide = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, height), width)
        )
        samples = 1 if page.planarconfig == 2 else page.samplesperpixel
        return high * wide * samples * page.dtype.itemsize

    def _require_deflated(self, data: bytes) -> None:
        """Require that a block unpacks to no more than it should, which tifffile does not ask."""
        most = self._block_bytes
        if len(data) * DEFLATED <= max(most, BLOCK_BYTES.most):
            return  # it cannot
        inflate, count = zlib.decompressobj(), 0
        while data and not inflate.eof:
            count += len(inflate.decompress(data, LOOKED_AT))
            data = inflate.unconsumed_tail
            if count > most:
                raise InputError(
                    f"{self._path}: the TIFF is damaged, or made to fill the memory: a strip or "
                    f"tile of {most:,} bytes unpacks to more. Export it again."
                )

    def _too_large(self, count: int) -> NoReturn:
        raise InputError(
            f"{self._path}: {BLOCK_BYTES.rule(count)} Or write it in tiles: gdal_translate -co "
            "TILED=YES -co COMPRESS=DEFLATE -co BIGTIFF=YES IN OUT.tif"
        )

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Return pixels as uint8 (h, w, 3), RGB."""
        page = self._page
        with _explained(self._path):
            if self._is_plain:
                found = self._plain(rows)[:, columns]
            else:
                found = self._decoded(rows, columns)
        white_is_zero = page.photometric == 0
        return _to_rgb(found, white_is_zero, page.extrasamples)

    def close(self) -> None:
        """Close the file."""
        self._tiff.close()

    def _plain(self, rows: slice) -> np.ndarray:
        """Read rows that are not compressed."""
        page = self._page
        kind = page.dtype.newbyteorder(self._tiff.byteorder)
        shape = rows.stop - rows.start, page.imagewidth, page.samplesperpixel
        at = page.dataoffsets[0] + rows.start * shape[1] * shape[2] * kind.itemsize
        return np.fromfile(self._path, kind, int(np.prod(shape)), offset=at).reshape(shape)

    def _decoded(self, rows: slice, columns: slice) -> np.ndarray:
        page = self._page
        height, width = self.size
        high, wide = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, height), width)
        )
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        down, across = -(-height // high), -(-width // wide)
        shape = rows.stop - rows.start, columns.stop - columns.start, page.samplesperpixel
        found = np.zeros(shape, page.dtype)
        held, self._held = self._held, {}
        for plane in range(planes):
            channels = slice(plane, plane + 1) if planes > 1 else slice(None)
            for i in range(rows.start // high, -(-rows.stop // high)):
                for j in range(columns.start // wide, -(-columns.stop // wide)):
                    number = (plane * down + i) * across + j
                    part = held.pop(number, None)
                    part = self._segment(number) if part is None else part
                    if part is None:  # sparse: nothing is stored there
                        continue
                    top, left = i * high, j * wide
                    ys = slice(max(rows.start, top), min(rows.stop, top + part.shape[0]))
                    xs = slice(max(columns.start, left), min(columns.stop, left + part.shape[1]))
                    to = found[_moved(ys, rows.start), _moved(xs, columns.start), channels]
                    to[:] = part[_moved(ys, top), _moved(xs, left)]
                    if top + high > rows.stop or left + wide > columns.stop:
                        self._held[number] = part
        return found

    def _segment(self, number: int) -> np.ndarray | None:
        """Decode one strip or tile: (h, w, samples)."""
        page = self._page
        count = page.databytecounts[number]
        if not count:
            return None
        file = self._tiff.filehandle
        file.seek(page.dataoffsets[number])
        more = {}
        if int(page.compression) in (6, 7):
            more = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        data = file.read(count)
        if int(page.compression) in DEFLATE:
            self._require_deflated(data)
        part, _, _ = page.decode(data, number, **more)
        return None if part is None else part[0]


def _moved(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


def _to_rgb(found: np.ndarray, white_is_zero: bool, extra: tuple[int, ...]) -> np.ndarray:
    """Bring samples (h, w, 1 to 4) to uint8 (h, w, 3); transparent parts lie on white."""
    if found.dtype.itemsize == 2:
        found = ((found.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if extra:
        alpha, found = found[..., -1:].astype(np.uint16), found[..., :-1].astype(np.uint16)
        if white_is_zero:
            found = 255 - found
        share = found if extra[0] == PREMULTIPLIED else (found * alpha + 127) // 255
        found = np.minimum(share + 255 - alpha, 255).astype(np.uint8)
    elif white_is_zero:
        found = 255 - found
    if found.shape[2] == 1:
        found = np.repeat(found, 3, axis=2)
    return np.ascontiguousarray(found)


@contextlib.contextmanager
def _explained(path: Path) -> Any:
    """Turn what tifffile and its decoders raise at damaged files into one message."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: the TIFF is cut off or damaged ({type(error).__name__}: {error}). Copy or "
            "download it again."
        ) from error
