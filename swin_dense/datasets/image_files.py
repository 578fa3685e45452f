"""What is said of the image files of a set: each header is read, and contents compared by split.

Reading all pixels of a large set takes hours; a header takes a tenth of a millisecond. A file whose
end looks cut is decoded as a whole.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from swin_dense.datasets import images
from swin_dense.datasets.findings import ERROR, INFO, WARNING, Finding, Kind, kind
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError
from swin_dense.file_limits import IMAGE_PIXELS

UNREADABLE = kind(
    "image-unreadable",
    ERROR,
    "Every image can be read.",
    "The training stops when it comes to this file, maybe after hours.",
)
SIZE_DIFFERS = kind(
    "image-size-differs",
    ERROR,
    "An image has the width and height that its annotations state, upright.",
    "Boxes and masks lie elsewhere than the objects.",
)
TOO_LARGE = kind(
    "image-too-large",
    ERROR,
    f"An image has at most {IMAGE_PIXELS.usual:,} pixels.",
    "It is not read: decoding takes gigabytes in each worker, and a small file can hold it.",
)
TURNED = kind(
    "image-turned",
    INFO,
    "Pixels are stored upright.",
    "The orientation tag (EXIF) is obeyed here; a tool that ignores it draws boxes elsewhere.",
)
DEEP = kind(
    "image-16-bit",
    INFO,
    "Samples have 8 bits.",
    "Grey of 16 bits is scaled to 8 here; other tools cut it off, which leaves noise.",
)
PALETTE = kind(
    "image-palette",
    INFO,
    "Pixels are colours.",
    "A palette is resolved here; a tool that reads its numbers as grey sees noise.",
)
TRANSPARENT = kind(
    "image-transparent",
    INFO,
    "Images are opaque.",
    "What is transparent lies on white here; other tools show what is hidden below.",
)
FOUR_INKS = kind(
    "image-cmyk",
    INFO,
    "Colours are red, green and blue.",
    "Inks (CMYK) are converted without their profile; colours may differ from a viewer's.",
)
MOVING = kind(
    "image-of-several-frames",
    WARNING,
    "A file holds one image.",
    "Of several frames or pages the first is taken; annotations of others are lost.",
)
MISNAMED = kind(
    "image-suffix-of-another-kind",
    INFO,
    "A suffix says what the file is.",
    "The content decides here; tools that go by the name fail.",
)
EQUAL = kind(
    "images-equal-across-splits",
    WARNING,
    "No image is in two splits.",
    "What was learnt by heart counts as found: the numbers say nothing about new images.",
)
REPEATED = kind(
    "images-equal-in-split",
    INFO,
    "An image is in a split once.",
    "Its objects count as often as it is there.",
)

ENDS = {"JPEG": b"\xff\xd9", "PNG": images.PNG_END}
SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "MPO": (".jpg", ".jpeg", ".mpo"),
}
TAIL = 1 << 12  # bytes: some cameras write notes behind the end


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """Name an image and what its annotations state: (height, width), or None."""

    path: Path
    stated: tuple[int, int] | None = None


def examine(files: Sequence[ImageFile], where: str) -> list[Finding]:
    """Read the header of each image, and say what is wrong or worth knowing.

    Args:
        where: what the findings call the set.
    """
    cases: dict[Kind, list[tuple[str, str]]] = collections.defaultdict(list)
    for file in files:
        for found, text in _of_file(file):
            cases[found].append((file.path.name, text))
    return [
        found.found(_counted(rows, len(files)), FIXES.get(found, ""), where, [n for n, _ in rows])
        for found, rows in cases.items()
    ]


FIXES = {
    UNREADABLE: "Copy or export them again, or leave them out of the annotations.",
    SIZE_DIFFERS: "Correct width and height in the annotations, or export the images again.",
    TOO_LARGE: "Cut them into tiles, or raise the limit for all.",
    MOVING: "Save the frames as files of their own.",
}


def _counted(rows: list[tuple[str, str]], count: int) -> str:
    name, text = rows[0]
    return f"{len(rows)} of {count} images: {text}. The first is {name}."


def _of_file(file: ImageFile) -> Iterator[tuple[Kind, str]]:
    try:
        with images.require_file(file.path, "image").open("rb") as stream:
            image = images.open_image(stream, str(file.path))
            height, width = images.upright_size(image)
            mode, form, more = image.mode, image.format or "", getattr(image, "is_animated", False)
            opaque = "A" not in mode and "transparency" not in image.info
            turned = images.orientation(image) != 1
            ends = _ends(stream, form)
    except images.TooManyPixelsError as error:
        yield TOO_LARGE, str(error).rstrip(".")
        return
    except (InputError, *images.DECODING_FAILED) as error:
        yield UNREADABLE, str(error).rstrip(".")
        return
    if not ends:
        try:
            images.read_rgb(file.path)
        except InputError as error:
            yield UNREADABLE, str(error).rstrip(".")
            return
    if file.stated and file.stated != (height, width):
        by, across = file.stated
        yield SIZE_DIFFERS, f"{across}x{by} are stated, the file has {width}x{height} (w x h)"
    for is_so, found, text in (
        (turned, TURNED, "they carry an orientation tag"),
        (mode.startswith("I;16") or mode == "I", DEEP, "they have 16 bits per sample"),
        (mode == "P", PALETTE, "their pixels are numbers of a palette"),
        (not opaque, TRANSPARENT, "they are transparent in places"),
        (mode == "CMYK", FOUR_INKS, "their colours are inks (CMYK)"),
        (more and form != "MPO", MOVING, "there are several frames or pages in a file"),
        (
            file.path.suffix.lower() not in SUFFIXES_OF.get(form, (file.path.suffix.lower(),)),
            MISNAMED,
            f"{form} under the suffix {file.path.suffix}",
        ),
    ):
        if is_so:
            yield found, text


def _ends(file: io.BufferedReader, form: str) -> bool:
    """Tell whether the end of a JPEG or PNG is near the end of its file; of others, True."""
    if form not in ENDS:
        return True
    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
    return ENDS[form] in file.read()


def equal_files(splits: Mapping[str, Iterable[Path]]) -> list[Finding]:
    """Find images of the same content, within a split or in several.

    Only files of the same length are read.
    """
    by_length: dict[int, list[tuple[str, Path]]] = collections.defaultdict(list)
    for split, paths in splits.items():
        for path in dict.fromkeys(paths):
            if path.is_file():
                by_length[path.stat().st_size].append((split, path))
    across: list[list[tuple[str, Path]]] = []
    within: dict[str, list[list[Path]]] = collections.defaultdict(list)
    for rows in by_length.values():
        if len(rows) < 2:
            continue
        by_content = collections.defaultdict(list)
        for split, path in rows:
            by_content[hashlib.blake2b(path.read_bytes()).digest()].append((split, path))
        for same in by_content.values():
            owners = {split for split, _ in same}
            if len(owners) > 1:
                across.append(same)
            elif len(same) > 1:
                within[same[0][0]].append([path for _, path in same])
    found = []
    if across:
        pairs = [" = ".join(f"{s}/{p.name}" for s, p in same[:2]) for same in across]
        found.append(
            EQUAL.found(
                f"{len(across)} images are in several of {', '.join(splits)}: "
                f"{first_names(pairs)}.",
                "Take them out of one split, or divide the set anew with `val_share`.",
                ids=pairs,
            )
        )
    for split, groups in within.items():
        pairs = [" = ".join(path.name for path in group[:2]) for group in groups]
        found.append(
            REPEATED.found(
                f"{split}: {len(groups)} images are there more than once: {first_names(pairs)}.",
                ids=pairs,
            )
        )
    return found
