"""Pictures of every common kind as 8-bit RGB arrays, the same for training and for a demo.

What a file means, decided once: the orientation tag is obeyed, transparent parts lie on white,
16 bits are scaled to 8 (never clipped), of several frames or pages the first is taken, colour
profiles are ignored. Half a file is an error, not a picture with a grey end.
"""

from __future__ import annotations

import collections
import functools
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from swin_dense.datasets.paths import require_file
from swin_dense.errors import InputError, MissingInputError
from swin_dense.file_limits import IMAGE_PIXELS

# Of the kinds that Pillow knows, those that it decodes itself: it hands EPS to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "DIB", "TGA", "JPEG2000", "AVIF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

PNG_END = b"IEND\xaeB\x60\x82"
IMAGE_WIDTH, IMAGE_LENGTH, ORIENTATION = 0x0100, 0x0101, 0x0112
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap height and width
# What Pillow raises at damaged files; KeyError and TypeError at tags that are absent or odd.
DECODING_FAILED = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(OverflowError, ZeroDivisionError, MemoryError, struct.error, zlib.error),
)
BAND = 2**22  # pixels that are brought to RGB together


class TooManyPixelsError(InputError):
    """An image is over the limit of those that are decoded as a whole."""


def read_rgb(path: str | Path) -> np.ndarray:
    """Read a picture file: uint8 (H, W, 3), RGB, upright."""
    path = require_file(path, "image")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the image cannot be read ({error.strerror or error}). Look at its "
            "permissions and its disk."
        ) from error
    return decode_rgb(data, str(path))


def decode_rgb(data: bytes, name: str) -> np.ndarray:
    """Decode the content of a picture file: uint8 (H, W, 3), RGB, upright.

    Args:
        name: what messages call it, a file name as a rule.
    """
    image = open_image(data, name)
    try:
        image.load()
    except DECODING_FAILED as error:
        raise InputError(
            f"{name}: the image is cut off or damaged: its {image.format} header says "
            f"{image.width}x{image.height}, its {len(data)} bytes do not decode to that ({error}). "
            "Copy or download it again, or leave it out."
        ) from error
    # The pixels of a PNG may be complete although its end is lost, and a lost end means that the
    # copy stopped: Pillow does not mind, we do.
    if image.format == "PNG" and data.rfind(PNG_END) < 0:
        raise InputError(
            f"{name}: the PNG is cut off: its {len(data)} bytes lack the closing IEND chunk. "
            "Copy or download it again, or leave it out."
        )
    if orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    return to_rgb(image, name)


def as_rgb(image: Any) -> np.ndarray:
    """Return the picture that was given, in memory or as a file, as uint8 (H, W, 3), RGB, upright.

    Args:
        image: a path, a PIL image, or an array that has this form already.

    Raises:
        InputError: it is none of these, or damaged.
    """
    if isinstance(image, str | Path):
        return read_rgb(image)
    if isinstance(image, Image.Image):
        name = str(getattr(image, "filename", "") or "image")
        try:
            image.load()
        except DECODING_FAILED as error:
            raise InputError(f"{name}: the image is cut off or damaged ({error}).") from error
        return to_rgb(ImageOps.exif_transpose(image) if orientation(image) != 1 else image, name)
    rule = "an image is a path, a PIL image, or an RGB array of numpy: (H, W, 3), uint8, 0 to 255"
    if not isinstance(image, np.ndarray):
        raise InputError(f"{rule}; got {type(image).__name__}.")
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
        return image
    raise InputError(f"{rule}; got {image.dtype} of {image.shape}. {_remedy(image)}")


def _remedy(array: np.ndarray) -> str:
    if array.ndim == 2:
        return "Repeat a grey image: np.stack([grey] * 3, axis=-1)."
    if array.ndim == 3 and array.shape[2] == 4:
        return "Leave out the transparency: array[..., :3]."
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        return "Move the colours to the end: array.transpose(1, 2, 0)."
    if array.dtype != np.uint8 and array.ndim == 3 and array.shape[2] == 3:
        return "Bring the values to 0 to 255 and convert them: array.round().astype(np.uint8)."
    return "Give one image at a time."


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of what `read_rgb` would return, from the header alone."""
    path = require_file(path, "image")
    with path.open("rb") as file:
        return upright_size(open_image(file, str(path)))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image whose pixels are not loaded, as `read_rgb` would return it."""
    width, height = image.size
    if isinstance(image, TiffImageFile):  # Pillow turns this kind alone before it is loaded
        width, height = (image.tag_v2[tag] for tag in (IMAGE_WIDTH, IMAGE_LENGTH))
    return (width, height) if orientation(image) in SIDEWAYS else (height, width)


def find_images(path: str | Path) -> list[Path]:
    """List the pictures in a folder, known by suffix, sorted by name; of a file, itself alone."""
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"{path}: no such file or folder. Name an image or a folder.")
    if not path.is_dir():
        return [path]
    entries = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    found = [entry for entry in entries if entry.suffix.lower() in SUFFIXES and entry.is_file()]
    if found:
        return found
    seen = collections.Counter(
        "folders" if entry.is_dir() else entry.suffix or "without suffix" for entry in entries
    )
    listing = ", ".join(f"{count} {kind}" for kind, count in seen.most_common()) or "nothing at all"
    raise InputError(
        f"{path}: no image in this folder. Known suffixes are {' '.join(SUFFIXES)} in either case; "
        f"it has {listing}. Name the folder of the images itself: folders inside are not searched."
    )


def open_image(data: bytes | io.BufferedReader, name: str) -> Image.Image:
    """Read the header; the pixels come later.

    Raises:
        TooManyPixelsError: there are more than are decoded as a whole.
        InputError: it is no image.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    start = stream.read(16)
    stream.seek(0)
    if not start:
        raise InputError(f"{name}: the image file is empty (0 bytes). Copy it again.")
    # What Pillow looks at of itself: frames that are larger than their file says.
    Image.MAX_IMAGE_PIXELS = most = IMAGE_PIXELS.most
    try:
        image = Image.open(stream, formats=_formats())
    except UnidentifiedImageError as error:
        raise InputError(
            f"{name}: this is no image of a known kind, or its header is cut off; it begins with "
            f"{start!r}. Use JPEG, PNG, BMP, TIFF or WebP; a new suffix does not convert a file."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        raise _too_large(name, int(found[1]) if found else 2 * most) from error
    except DECODING_FAILED as error:
        raise InputError(
            f"{name}: the image header is cut off or damaged ({error}). Copy the file again."
        ) from error
    if image.width * image.height > most:
        raise _too_large(name, image.width * image.height)
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of FORMATS that Pillow was built with."""
    Image.init()
    return tuple(form for form in FORMATS if form in Image.OPEN)


def _too_large(name: str, pixels: int) -> TooManyPixelsError:
    return TooManyPixelsError(
        f"{name}: the image is too large: {IMAGE_PIXELS.rule(pixels)} Cut it into tiles otherwise."
    )


def orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except DECODING_FAILED:  # a broken note beside a good picture: viewers ignore it too
        return 1


def to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """Return a decoded image as uint8 (H, W, 3), some rows at a time."""
    rows = max(1, BAND // image.width)
    if rows >= image.height:
        return _to_rgb(image, name)
    found = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        part.format = image.format
        found[top : top + rows] = _to_rgb(part, name)
    return found


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    # A PNG has at most 16 bits per sample, whatever mode Pillow holds them in.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _grey_to_rgb(np.array(image))
    if image.mode in ("I", "F"):
        raise InputError(
            f"{name}: 32 bits per sample have no fixed range from black to white "
            f"({image.format}, mode {image.mode}). Convert the image to 8 or 16 bits first, with "
            "the range that suits the data."
        )
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """(H, W) of 0..65535 -> uint8 (H, W, 3): 65535 = 255 * 257, rounded to nearest."""
    eight_bits = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(eight_bits[..., None], 3, axis=2)
