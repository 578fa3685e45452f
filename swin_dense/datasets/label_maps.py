"""Data sets of label maps (one image of class numbers per picture), read by an explicit table.

A `LabelTable` says for every number in the files which class it is or that it is ignored. Nothing
is shifted, cut or guessed: a number outside the table is an error, for the first class lost by an
offset is the usual way to a score of zero.

Letters: h w a label map; raw: numbers as in the file; index: position in `LabelTable.classes`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from swin_dense.datasets.findings import ERROR, FoundError, kind, stop
from swin_dense.datasets.image_files import TOO_LARGE
from swin_dense.datasets.images import (
    DECODING_FAILED,
    SUFFIXES,
    TooManyPixelsError,
    open_image,
)
from swin_dense.datasets.paths import first_names, require_file, require_folder
from swin_dense.datasets.pixel_counts import counted
from swin_dense.errors import InputError

IGNORE = 255  # the index of pixels that no loss and no score looks at; fixed by mmseg
MOST_CLASSES = 255  # indices 0..254

IGNORED = "(ignored)"

UNREADABLE = kind(
    "label-map-unreadable",
    ERROR,
    "A label map is a whole image.",
    "The training stops when it comes to this file, maybe after hours.",
)
LOSSY = kind(
    "label-map-lossy",
    ERROR,
    "A label map is stored without loss, as in PNG.",
    "JPEG and WebP change the numbers at every border: pixels get classes they never had.",
)
COLOURS = kind(
    "label-map-of-colours",
    ERROR,
    "A label map has one channel of whole numbers.",
    "Which class a colour means cannot be told.",
)
VALUE_UNKNOWN = kind(
    "label-value-unknown",
    ERROR,
    "Every value of a label map is that of a class, or ignored.",
    "A class lost by an offset of one is the usual way to an IoU of 0.",
)
SIZE_DIFFERS = kind(
    "label-map-size-differs",
    ERROR,
    "A label map has the size of its image.",
    "Pixels would be learnt as what lies elsewhere.",
)
NO_FILES = kind(
    "label-map-folder-without-files",
    ERROR,
    "Folders hold files with the suffixes of images and label maps.",
    "There is nothing to pair.",
)
LABEL_MAP_ABSENT = kind(
    "label-map-absent",
    ERROR,
    "Every image has a label map of its name.",
    "What its pixels are cannot be told.",
)
IMAGE_OF_LABEL_ABSENT = kind(
    "label-map-without-image",
    ERROR,
    "Every label map has an image of its name.",
    "Names that differ by a suffix leave most of a set unpaired.",
)
NAME_TWICE = kind(
    "label-map-name-twice",
    ERROR,
    "No two files of a folder have the same name up to the suffix.",
    "Which of them belongs to the other folder's file cannot be told.",
)


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """Raw value -> class.

    Args:
        classes: names; the position of a name is its index.
        values: raw value -> index, several values may share one; None for `first_value`,
            `first_value` + 1, ... in the order of `classes`.
        first_value: raw value of the first class where `values` is None, 1 for ADE20K.
        ignore: raw values to leave out of loss and scores.
    """

    classes: tuple[str, ...]
    values: Mapping[int, int] | None = None
    first_value: int = 0
    ignore: tuple[int, ...] = (IGNORE,)

    def __post_init__(self) -> None:
        if isinstance(self.classes, str) or not self.classes:
            raise InputError(
                f"label table: a tuple of class names is needed, got {self.classes!r}."
            )
        twice = [n for n, count in collections.Counter(self.classes).items() if count > 1]
        if twice:
            raise InputError(f"label table: class names {twice} come twice. Rename one of each.")
        if len(self.classes) > MOST_CLASSES:
            raise InputError(
                f"label table: at most {MOST_CLASSES} classes, for index {IGNORE} means ignored; "
                f"got {len(self.classes)}. Merge classes with `values`, or ignore the rare ones."
            )
        if self.values is not None and self.first_value:
            raise InputError(
                f"label table: `values` says all, first_value={self.first_value} would be unused. "
                "Give one of the two."
            )
        bad = {v: i for v, i in self.raw_to_index.items() if i not in range(len(self.classes))}
        if bad:
            raise InputError(
                f"label table: indices go from 0 to {len(self.classes) - 1}, got {bad} (raw value: "
                "index). To leave a raw value out, put it in `ignore`."
            )
        both = sorted(set(self.raw_to_index) & set(self.ignore))
        if both:
            raise InputError(
                f"label table: raw values {both} are both a class and ignored. Take them out of "
                "`ignore` or `values`."
            )
        without = set(range(len(self.classes))) - set(self.raw_to_index.values())
        if without:
            names = [self.classes[i] for i in sorted(without)]
            raise InputError(f"label table: classes {names} have no raw value. Add or remove them.")

    @functools.cached_property
    def raw_to_index(self) -> dict[int, int]:
        if self.values is not None:
            return dict(self.values)
        return {self.first_value + index: index for index in range(len(self.classes))}

    def lookup(self, raw: np.ndarray, name: str = "label map") -> np.ndarray:
        """Integers (h, w) -> uint8 (h, w) of class index, or 255 where ignored.

        Args:
            name: the file, for messages.
        """
        slots = self._slots
        if raw.size and (raw.min() < 0 or raw.max() >= len(slots)):
            index = np.full(raw.shape, -1, np.int16)
            inside = (raw >= 0) & (raw < len(slots))
            index[inside] = slots[raw[inside]]
        else:
            index = slots[raw]
        if (index < 0).any():
            unknown = dict(zip(*counted(raw[index < 0]), strict=True))
            raise stop(VALUE_UNKNOWN, name, *self.explain(unknown, set(counted(raw)[0])))
        return index.astype(np.uint8)

    def describe(self) -> str:
        """Return the table as text: one line per raw value."""
        named = {
            raw: f"{index:>3} {self.classes[index]}" for raw, index in self.raw_to_index.items()
        }
        named |= dict.fromkeys(self.ignore, f"{IGNORE:>3} {IGNORED}")
        rows = [f"{raw:>9}  {named[raw]}" for raw in sorted(named)]
        return "\n".join(["raw value  index class", *rows])

    @functools.cached_property
    def _slots(self) -> np.ndarray:
        """Index by raw value; -1 for values that are not in the table."""
        known = self.raw_to_index | dict.fromkeys(self.ignore, IGNORE)
        slots = np.full(max(256, max(known) + 1), -1, np.int16)
        for raw, index in known.items():
            slots[raw] = index
        return slots

    def explain(self, unknown: Mapping[int, int], found: set[int]) -> tuple[str, str]:
        """Say which values (value: pixels) the table lacks, and what would mend it.

        Args:
            found: all values of the files.
        """
        counts = ", ".join(f"{v} ({n} pixels)" for v, n in list(unknown.items())[:8])
        more = f" and {len(unknown) - 8} more values" if len(unknown) > 8 else ""
        classes = sorted(self.raw_to_index)
        return (
            f"every value of a label map must be a class or ignored; not in the table: "
            f"{counts}{more}. The table has {len(self.classes)} classes with values {classes[0]} "
            f"to {classes[-1]}, ignored: {list(self.ignore)}."
        ), self._remedy(set(unknown), found)

    def _remedy(self, unknown: set[int], found: set[int]) -> str:
        count = len(self.classes)
        if found == {0, 255} and count == 2:
            return BINARY_REMEDY
        numbered = found - set(self.ignore)
        if (
            self.values is None
            and self.first_value == 0
            and unknown == {count}
            and 0 not in numbered
        ):
            return f"The values look like 1 to {count}: say first_value=1."
        if self.values is None and self.first_value == 0 and unknown == {count}:
            return (
                f"If value 0 is 'other' and no class, say first_value=1, ignore=(0,); if {count} "
                "is a class, add its name; if it means nothing, put it in `ignore`."
            )
        if unknown == {0} and self.first_value == 1:
            return "If 0 is 'other', say ignore=(0,); if it is the first class, say first_value=0."
        return "Add the classes, map the values with `values`, or put them in `ignore`."


BINARY_REMEDY = (
    "Values 0 and 255 alone are a mask of two classes, and 255 would be ignored: say "
    "values={0: 0, 255: 1}, ignore=()."
)


def read_names(path: str | Path) -> list[str]:
    """Read the lines of a file of names, without empty ones and those that start with "#".

    LabelMe's labels.txt begins with __ignore__, which names no value (its number is -1, written as
    255): it is no class.
    """
    try:
        text = require_file(path, "file of class names").read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: must be UTF-8 text ({error}). Save it as UTF-8.") from error
    stripped = [line.strip() for line in text.splitlines()]
    lines = [line for line in stripped if line and not line.startswith("#")]
    if lines[:1] == ["__ignore__"]:
        del lines[0]
    if not lines:
        raise InputError(f"{path}: no class name in the file. Write one name per line.")
    return lines


def read_classes_file(path: str | Path) -> LabelTable:
    """Read one name per line, in the order of the raw values from 0.

    A name in parentheses is a value that is never judged. Such values stand before or after the
    classes: "(other)" on the first line makes 1 the first class.
    """
    lines = read_names(path)
    judged = [value for value, line in enumerate(lines) if not line.startswith("(")]
    if not judged:
        raise InputError(f"{path}: no class name in the file. Write one name per line.")
    names = tuple(lines[value] for value in judged)
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: {twice} named more than once. Name each class once.")
    if judged[-1] - judged[0] >= len(judged):
        inner = next(v for v in range(judged[0], judged[-1]) if v not in judged)
        raise InputError(
            f"{path}: the ignored value {lines[inner]} stands between classes. Ignored values come "
            "before the first class or after the last; renumber the label maps otherwise."
        )
    ignored = [value for value in range(len(lines)) if value not in judged]
    return LabelTable(names, first_value=judged[0], ignore=(*ignored, IGNORE))


def read_label_map(path: str | Path) -> np.ndarray:
    """Read a file of 1 to 16 bits, grey or with a palette: int32 (h, w) of its raw values."""
    data = require_file(path, "label map").read_bytes()
    try:
        image = open_image(data, "label map")
        image.load()
    except TooManyPixelsError as error:
        raise stop(TOO_LARGE, path, str(error).removeprefix("label map: ")) from error
    except (InputError, *DECODING_FAILED) as error:
        cause = str(error).removeprefix("label map: ").rstrip(".")
        text = f"the label map is no image, cut off or damaged ({len(data)} bytes, {cause})."
        raise stop(UNREADABLE, path, text, "Copy or export it again.") from error
    if image.format in ("JPEG", "WEBP"):
        text = f"a label map must be stored without loss, {image.format} changes the numbers."
        raise stop(LOSSY, path, text, "Export the label maps again as PNG.")
    # "P" holds the numbers themselves; its palette is only for the eye.
    if image.mode in ("L", "P", "1") or image.mode.startswith("I"):
        raw, step = np.array(image).astype(np.int32), _grey_step(data, image)
        return raw // step if step > 1 else raw
    shape = f"{image.mode}, {len(image.getbands())} channel(s)"
    if image.mode == "RGB" and _is_grey(image):
        remedy = "All channels are equal: keep one of them, as with Pillow's convert('L')."
    else:
        remedy = "Convert colours to class numbers first, one number per colour."
    text = f"a label map has one channel of whole numbers, got {shape}."
    raise stop(COLOURS, path, text, remedy)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.split()
    return not any(ImageChops.difference(red, other).getbbox() for other in (green, blue))


def _grey_step(data: bytes, image: Image.Image) -> int:
    """Pillow stretches grey PNGs of 2 and 4 bits to 0..255; the step between two raw values."""
    bits, colour = (data[24], data[25]) if image.format == "PNG" else (8, 0)
    return {2: 85, 4: 17}.get(bits, 1) if colour == 0 and image.mode == "L" else 1


LONE_FIX = "Add or remove files, or state img_suffix and seg_map_suffix of the data set."


def pair_files(
    image_dir: str | Path,
    label_dir: str | Path,
    image_suffixes: str | tuple[str, ...] = SUFFIXES,
    label_suffix: str = ".png",
) -> list[tuple[Path, Path]]:
    """Images and label maps with the same name, in folders inside too, sorted by name.

    Args:
        image_suffixes, label_suffix: what names end with in either case; all before it must be
            equal. They may be longer than a file type, like "_leftImg8bit.png".
    """
    image_dir = require_folder(image_dir, "image folder")
    label_dir = require_folder(label_dir, "folder of label maps")
    suffixes = (image_suffixes,) if isinstance(image_suffixes, str) else tuple(image_suffixes)
    labels = _by_stem(label_dir, (label_suffix,))
    same = image_dir.resolve() == label_dir.resolve()
    images = _by_stem(image_dir, suffixes, except_for=set(labels.values()) if same else set())
    for folder, files, wanted in ((image_dir, images, suffixes), (label_dir, labels, label_suffix)):
        if not files:
            there = first_names(sorted(entry.name for entry in folder.iterdir())) or "nothing"
            text = f"no file ends with {wanted}; it has {there}."
            fix = "Correct either, or state img_suffix and seg_map_suffix of the data set."
            raise stop(NO_FILES, folder, text, fix)
    bare, unused = sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())
    lone = []
    for of, stems, files, text in (
        (LABEL_MAP_ABSENT, bare, images, "images have no label map"),
        (IMAGE_OF_LABEL_ABSENT, unused, labels, "label maps have no image"),
    ):
        if stems:
            names = [str(files[stem].name) for stem in stems]
            what = f"{len(stems)} of {len(files)} {text}: {first_names(names)}"
            lone.append(of.found(f"{what}.", LONE_FIX, image_dir, names))
    if lone:
        raise FoundError(
            f"{image_dir} and {label_dir}: an image and its label map have the same name up to the "
            f"suffix ({' '.join(suffixes)}; {label_suffix}). "
            f"{' '.join(f'{f.what} [{f.kind.code}]' for f in lone)} {LONE_FIX}",
            lone,
        )
    return [(images[stem], labels[stem]) for stem in sorted(images)]


def choose_pairs(
    pairs: Sequence[tuple[Path, Path]], label_dir: str | Path, names_file: str | Path
) -> list[tuple[Path, Path]]:
    """Take the pairs that a file lists, one label map per line: relative to its folder, no suffix.

    Raises:
        InputError: a name has no pair.
    """
    by_name = {
        label.relative_to(label_dir).with_suffix("").as_posix(): (image, label)
        for image, label in pairs
    }
    names = require_file(names_file, "list of label maps").read_text(encoding="utf-8").splitlines()
    names = [name.strip() for name in names if name.strip()]
    absent = [name for name in names if name not in by_name]
    if absent:
        text = (
            f"{len(absent)} of {len(names)} names have no image and label map in {label_dir}: "
            f"{first_names(absent)}."
        )
        fix = "Bring the files back, or divide the set anew."
        raise stop(LABEL_MAP_ABSENT, names_file, text, fix, absent)
    return [by_name[name] for name in names]


def _by_stem(
    folder: Path, suffixes: tuple[str, ...], except_for: Collection[Path] = ()
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for place, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = Path(place, name)
            ends = [s for s in suffixes if name.lower().endswith(s.lower())]
            if not ends or name.startswith(".") or path in except_for:
                continue
            stem = path.relative_to(folder).as_posix()[: -max(map(len, ends))]
            if stem in found:
                text = (
                    f"{found[stem].name} and {name} have the same name up to the suffix, so "
                    "neither can be paired."
                )
                raise stop(NAME_TWICE, folder, text, "Keep one of them.", [found[stem].name, name])
            found[stem] = path
    return found


def require_same_size(
    image: str | Path, image_hw: tuple[int, ...], label: str | Path, label_hw: tuple[int, ...]
) -> None:
    """Refuse a label map whose (height, width) are not those of its image."""
    if tuple(image_hw) == tuple(label_hw):
        return
    turned = ""
    if tuple(image_hw[::-1]) == tuple(label_hw):
        turned = " The image may carry an orientation tag that the label map was made without."
    text = (
        f"a label map has the size of its image; it is {label_hw[1]}x{label_hw[0]}, "
        f"{image} is {image_hw[1]}x{image_hw[0]} (width x height).{turned}"
    )
    raise stop(SIZE_DIFFERS, label, text, "Export it again.")
