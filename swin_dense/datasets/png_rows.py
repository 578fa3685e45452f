"""Rows of a PNG, one band after the other, in the memory of a band.

Image libraries decode a PNG as a whole. Its rows are one stream of bytes that depends on nothing
but the row before, so a band of them with that row on top is a PNG by itself, which a library
decodes. See the PNG specification, https://www.w3.org/TR/png-3/, sections 5 and 9.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from swin_dense.datasets import images
from swin_dense.errors import InputError
from swin_dense.file_limits import ROW_PIXELS

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
DEPTHS = {  # bits of a sample
    GREY: (1, 2, 4, 8, 16),
    PALETTE: (1, 2, 4, 8),
    **dict.fromkeys((RGB, GREY_ALPHA, RGBA), (8, 16)),
}
END = 2**31  # pixels of a side, that no PNG has
# Filters know bytes alone: the distance between a byte and its left neighbour -> a kind of image
# (bits of a sample, colour) of that many bytes a pixel.
CARRIERS = {1: (8, GREY), 2: (16, GREY), 3: (8, RGB), 4: (8, RGBA), 6: (16, RGB), 8: (16, RGBA)}
READ = 2**18  # bytes of the file at once


class PngRows:
    """Read a PNG from its top to its bottom.

    Attributes:
        size: height and width in pixels.
        interlaced: whether its rows are not in order; such a one is not to be read here.
        orientation: as in EXIF, 1 is upright.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._chunks = self._after_signature()
        _, header = next(self._chunks, (b"", b""))
        if len(header) != 13:
            raise self._damaged("its header is none")
        width, height, self._bits, self._colour, *_, interlaced = struct.unpack(">IIBBBBB", header)
        if self._bits not in DEPTHS.get(self._colour, ()) or not 0 < width < END > height > 0:
            raise self._damaged("its header states no image")
        if width > ROW_PIXELS.most:
            raise InputError(f"{path}: {ROW_PIXELS.rule(width)}")
        self.size, self.interlaced = (height, width), bool(interlaced)
        bits = CHANNELS[self._colour] * self._bits
        self._row_bytes, self._step = (width * bits + 7) // 8, max(1, bits // 8)
        self._above = bytes(self._row_bytes)  # the row before the next one, without its filter
        self._extra: list[tuple[bytes, bytes]] = []  # palette and transparent colour
        self.orientation = 1
        self._left = self._first_pixels()
        self._inflate = zlib.decompressobj()

    def read(self, count: int) -> np.ndarray:
        """Return the next `count` rows: uint8 (count, W, 3), RGB, as `images.read_rgb` would.

        Raises:
            InputError: the file is cut off or damaged.
        """
        length = self._row_bytes + 1
        rows = self._filtered(count * length)
        first = b"\0" + self._above  # with no filter
        bits, colour = CARRIERS[self._step]
        carrier = _png(bits, colour, self._row_bytes // self._step, count + 1, first + rows)
        decoded = cv2.imdecode(np.frombuffer(carrier, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None:
            raise self._damaged("a row has a filter that there is not")
        pixels = decoded[1:]
        if (self._bits, self._colour) == (8, RGB) and not self._extra:
            self._above = _bytes(pixels[-1:]).tobytes()
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
        plain = np.zeros((count, length), np.uint8)
        plain[:, 1:] = _bytes(pixels)
        self._above = plain[-1, 1:].tobytes()
        content = plain.tobytes()
        whole = _png(self._bits, self._colour, self.size[1], count, content, self._extra)
        return images.decode_rgb(whole, str(self._path))

    def end(self) -> None:
        """Require that the file goes on to its end, behind the last row."""
        try:
            while (name := next(self._chunks)[0]) != b"IEND":
                if name == b"eXIf":
                    raise InputError(
                        f"{self._path}: this PNG says behind its pixels which side is up, too "
                        "late for who reads it once. Save it again with another program."
                    )
        except StopIteration:
            raise self._damaged("it lacks the closing IEND chunk") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _filtered(self, length: int) -> bytes:
        """Inflate the next bytes of the stream of rows."""
        found = []
        while length:
            while not self._left:
                name, self._left = next(self._chunks, (b"", b""))
                if name != b"IDAT":
                    raise self._damaged("rows are missing at its end")
            try:
                some = self._inflate.decompress(self._left, length)
            except zlib.error as error:
                raise self._damaged(str(error)) from error
            self._left = self._inflate.unconsumed_tail
            if self._inflate.eof and len(some) < length:
                raise self._damaged("rows are missing at its end")
            found.append(some)
            length -= len(some)
        return b"".join(found)

    def _first_pixels(self) -> bytes:
        """Read up to the first piece of the stream of rows, and return that."""
        for name, content in self._chunks:
            if name in (b"PLTE", b"tRNS"):
                self._extra.append((name, content))
            elif name == b"eXIf":
                exif = Image.Exif()
                with contextlib.suppress(*images.DECODING_FAILED):  # viewers ignore a broken note
                    exif.load(content)
                    self.orientation = exif.get(images.ORIENTATION, 1)
            elif name == b"IDAT":
                return content
        raise self._damaged("it has no pixels")

    def _after_signature(self) -> Iterator[tuple[bytes, bytes]]:
        """Give name and content of each chunk, pixels in pieces."""
        self._file.seek(len(SIGNATURE))
        while head := self._file.read(8):
            if len(head) < 8:
                raise self._damaged("it ends within a chunk")
            length, name = struct.unpack(">I4s", head)
            check = zlib.crc32(name)
            pieces = []
            for start in range(0, max(length, 1), READ):
                piece = self._file.read(min(READ, length - start))
                check = zlib.crc32(piece, check)
                if len(piece) < min(READ, length - start):
                    raise self._damaged("it ends within a chunk")
                if name == b"IDAT":
                    yield name, piece
                elif length <= READ:  # longer ones are notes, of no use here
                    pieces.append(piece)
            if self._file.read(4) != struct.pack(">I", check):
                raise self._damaged(f"the checksum of a chunk ({name!r}) does not fit")
            if name != b"IDAT":
                yield name, b"".join(pieces)

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"{self._path}: the image is cut off or damaged: it begins as a PNG, but {why}. Copy "
            "or download it again."
        )


def _bytes(pixels: np.ndarray) -> np.ndarray:
    """Return the bytes (h, row) of decoded pixels in the order of a PNG."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(">u2")
    return np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)


def _png(
    bits: int,
    colour: int,
    width: int,
    height: int,
    rows: bytes,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    """Write a PNG around rows (each with its filter before it), without compressing them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *(extra or ()), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b"")]
    parts = [SIGNATURE]
    for name, content in chunks:
        check = zlib.crc32(content, zlib.crc32(name))
        parts += [struct.pack(">I", len(content)), name, content, struct.pack(">I", check)]
    return b"".join(parts)
