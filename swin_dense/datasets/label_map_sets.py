"""Sets of label maps: whether every file can be used, and what share each class has."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swin_dense.datasets.findings import ERROR, INFO, WARNING, Finding, kind, of_error, refuse
from swin_dense.datasets.images import SUFFIXES, image_size
from swin_dense.datasets.label_maps import (
    BINARY_REMEDY,
    IGNORED,
    NO_FILES,
    VALUE_UNKNOWN,
    LabelTable,
    pair_files,
    read_label_map,
    require_same_size,
)
from swin_dense.datasets.paths import first_names
from swin_dense.datasets.pixel_counts import counted
from swin_dense.errors import InputError

UNUSABLE = kind(
    "label-map-unusable",
    ERROR,
    "Every image and label map can be read.",
    "The training stops when it comes to this file, maybe after hours.",
)
BINARY = kind(
    "label-values-0-and-255",
    ERROR,
    "The value of a class is not ignored.",
    "A mask of 0 and 255 has two classes; with 255 ignored, one is left and nothing is learnt.",
)
ONE_CLASS = kind(
    "label-map-of-one-class",
    ERROR,
    "A set has at least two classes.",
    "A softmax over one class has loss 0: nothing is learnt.",
)
CLASS_ABSENT = kind(
    "class-without-pixel",
    INFO,
    "Every class has pixels in every split.",
    "A class without is not learnt, or not judged.",
)
MOSTLY_IGNORED = kind(
    "label-maps-mostly-ignored",
    WARNING,
    "At most half of the pixels are ignored.",
    "What is ignored is not learnt: a value of the table may be wrong.",
)


@dataclasses.dataclass
class Summary:
    """What a look at some of the label maps found."""

    pairs: int
    looked_at: int
    table: LabelTable
    shares: dict[str, float]  # class -> share of all pixels looked at
    ignored: float  # share of pixels
    never: list[str]  # classes without a pixel
    warnings: list[str]
    sizes: set[tuple[int, ...]] = dataclasses.field(
        default_factory=set
    )  # (h, w) of those looked at

    def describe(self, table: bool = True) -> str:
        """Return as text the count looked at, the table with each class's share, the warnings."""
        lines = [f"{self.pairs} images with label maps, {self.looked_at} of them looked at"]
        shares = {**self.shares, IGNORED: self.ignored}
        for i, row in enumerate(self.table.describe().splitlines() if table else ()):
            name = row.split(maxsplit=2)[-1]
            seen = "pixels" if i == 0 else f"{shares.pop(name):.2%}" if name in shares else ""
            lines.append(f"{row:<40} {seen:>8}".rstrip())
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def check(
    image_dir: str | Path,
    label_dir: str | Path,
    table: LabelTable,
    sample: int = 50,
    image_suffixes: str | tuple[str, ...] = SUFFIXES,
    label_suffix: str = ".png",
) -> Summary:
    """Pair all files; read up to `sample` label maps, evenly spaced; compare with the table."""
    pairs = pair_files(image_dir, label_dir, image_suffixes, label_suffix)
    return check_pairs(pairs, label_dir, table, sample)


def check_pairs(
    pairs: Sequence[tuple[Path, Path]], label_dir: str | Path, table: LabelTable, sample: int = 50
) -> Summary:
    """Read up to `sample` label maps of images, evenly spaced; refuse what cannot be used.

    Args:
        label_dir: what messages call the set.
    """
    summary, found = examine(pairs, label_dir, table, sample)
    refuse(label_dir, found)
    assert summary is not None  # nothing was refused
    return summary


def examine(
    pairs: Sequence[tuple[Path, Path]],
    label_dir: str | Path,
    table: LabelTable,
    sample: int | None = None,
) -> tuple[Summary | None, list[Finding]]:
    """Find all there is to say about label maps and the images they belong to.

    Args:
        label_dir: what messages call the set.
        sample: how many pairs to look at, evenly spaced; None for all.

    Returns:
        what they hold, None if nothing could be read, and findings, each kind once.
    """
    if not pairs:
        text = "no image and label map are left to look at."
        return None, [NO_FILES.found(text, "Name another folder, or another list.", label_dir)]
    count = len(pairs) if sample is None else min(sample, len(pairs))
    pixels: collections.Counter = collections.Counter()  # per raw value
    files_with: dict[int, list[Path]] = {}
    failed: dict[Any, list[tuple[Path, Finding]]] = {}
    sizes = set()
    for image, label in [pairs[i * len(pairs) // count] for i in range(count)]:
        try:
            raw = read_label_map(label)
            require_same_size(image, image_size(image), label, raw.shape)
        except InputError as error:
            finding = of_error(error, UNUSABLE)[0]
            failed.setdefault(finding.kind, []).append((label, finding))
            continue
        sizes.add(raw.shape)
        for value, number in zip(*counted(raw), strict=True):
            pixels[value] += number
            files_with.setdefault(value, []).append(label)
    found = []
    for of, cases in failed.items():
        names, (label, first) = [label.name for label, _ in cases], cases[0]
        text = f"{len(cases)} of {count} label maps looked at: {first_names(names)}. {label}: "
        found.append(of.found(text + first.what, first.fix, label_dir, names))
    if not pixels:
        return None, found
    looked_at = f"{count} of {len(pairs)}"
    found += _value_findings(pixels, files_with, table, label_dir, looked_at)
    summary = _summarise(pixels, table, len(pairs), count)
    summary.sizes = sizes
    return summary, found + _share_findings(summary, label_dir)


def one_class(table: LabelTable, folder: str | Path) -> list[Finding]:
    """Find that there is nothing to tell apart."""
    if len(table.classes) > 1:
        return []
    text = f"one class alone, {table.classes[0]!r}, and all else is ignored: nothing is learnt."
    fix = "Give the rest a value that is not ignored, and name it too, as in background."
    return [ONE_CLASS.found(text, fix, folder)]


def _value_findings(
    pixels: collections.Counter,
    files_with: dict[int, list[Path]],
    table: LabelTable,
    label_dir: str | Path,
    looked_at: str,
) -> list[Finding]:
    known = {*table.raw_to_index, *table.ignore}
    if unknown := {v: pixels[v] for v in sorted(pixels) if v not in known}:
        text, fix = table.explain(unknown, set(pixels))
        first = files_with[min(unknown)][0].name
        names = sorted({path.name for value in unknown for path in files_with[value]})
        where = f"{looked_at} label maps looked at, {min(unknown)} first in {first}: "
        return [VALUE_UNKNOWN.found(where + text, fix, label_dir, names)]
    if set(pixels) == {0, 255} and 255 in table.ignore and len(table.classes) == 2:
        text = f"{looked_at} label maps looked at: 0 and 255 are their only values."
        return [BINARY.found(text, BINARY_REMEDY, label_dir)]
    return []


def _share_findings(summary: Summary, label_dir: str | Path) -> list[Finding]:
    found, count = [], summary.looked_at
    if summary.never:
        text = f"{len(summary.never)} classes have no pixel in {count} label maps: "
        names = first_names(summary.never, 10)
        found.append(CLASS_ABSENT.found(f"{text}{names}.", "", label_dir, summary.never))
    if summary.ignored > 0.5:
        text = f"{summary.ignored:.0%} of the pixels of {count} label maps are ignored."
        found.append(MOSTLY_IGNORED.found(text, "Look at the label table.", label_dir))
    return found


def _summarise(pixels: collections.Counter, table: LabelTable, pairs: int, count: int) -> Summary:
    total = sum(pixels.values())
    shares = dict.fromkeys(table.classes, 0.0)
    for raw, index in table.raw_to_index.items():
        shares[table.classes[index]] += pixels[raw] / total
    ignored = sum(pixels[raw] for raw in table.ignore) / total
    never = [name for name, share in shares.items() if not share]
    warnings = []
    if never:
        warnings.append(f"classes without a pixel in {count} label maps: {first_names(never, 10)}")
    if ignored > 0.5:
        warnings.append(f"{ignored:.0%} of the pixels are ignored: look at the label table")
    return Summary(pairs, count, table, shares, ignored, never, warnings)
