"""Data sets in COCO instance format: class names from the file, and whether a set can be used.

Classes are matched by name. The position of a name in a list or file never decides anything.
`examine` finds all there is to say, `check` refuses what cannot be used.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.datasets import (
    coco_columns,
    coco_counts,
    coco_fields,
    coco_json,
    coco_mask_problems,
    coco_masks,
    coco_problems,
    coco_rows,
    column_cache,
    findings,
    image_names,
)
from swin_dense.datasets.coco_counts import Summary
from swin_dense.datasets.coco_file import CocoFile, open_coco
from swin_dense.datasets.coco_json import repeated
from swin_dense.datasets.coco_problems import corner_hint
from swin_dense.datasets.findings import (
    ERROR,
    KINDS,
    WARNING,
    Finding,
    FoundError,
    kind,
)
from swin_dense.datasets.paths import first_names, require_folder
from swin_dense.errors import InputError, nearest

CLASSES_DIFFER = kind(
    "classes-do-not-match",
    ERROR,
    "Classes and categories are matched by name.",
    "By position, every object would be learnt under another name.",
)
SPLIT_LACKS_CLASS = kind(
    "class-absent-from-split",
    WARNING,
    "Both splits list the same categories.",
    "Some tools export only the categories a split shows: the class is not judged there.",
)
SPLIT_HAS_CLASS = kind(
    "class-of-one-split",
    WARNING,
    "Both splits list the same categories.",
    "A class that training does not know is never found.",
)
REPAIRED = (  # told in the output of a training, too
    coco_json.BYTE_ORDER_MARK,
    coco_columns.ENCODING,
    coco_rows.FLOAT_IDS,
    coco_rows.MIXED_IDS,
    coco_rows.AREA_ABSENT,
    coco_rows.CROWD_ABSENT,
    image_names.BACKSLASH,
    image_names.SUFFIX_CASE,
    image_names.UNICODE_FORM,
)


def read_categories(annotation_file: str | Path) -> dict[Any, str]:
    """Category id -> name, in the order of the file."""
    return open_coco(annotation_file).categories


def class_names(annotation_file: str | Path) -> tuple[str, ...]:
    """Read the category names in the order of the file."""
    return tuple(read_categories(annotation_file).values())


def match_classes(
    wanted: Iterable[str], found: Mapping[Any, str], subset: bool = False
) -> dict[str, Any]:
    """Class name -> category id, in the order of `wanted`; names are equal or it is an error.

    Args:
        wanted: the classes a config or model states.
        found: id -> name, as `read_categories` gives it.
        subset: whether the file may have categories that are not wanted.
    """
    if isinstance(wanted, str):
        raise InputError(
            f"classes: a tuple of names is needed, got the text {wanted!r}. A tuple of one name "
            f"has a comma: ({wanted!r},)."
        )
    wanted = tuple(wanted)
    twice = repeated(wanted)
    if twice:
        raise InputError(f"classes: {twice} stated more than once. State each name once.")
    ids = {name: number for number, name in found.items()}
    absent = [name for name in wanted if name not in ids]
    unasked = [name for name in ids if name not in wanted]
    if not absent and (subset or not unasked):
        return {name: ids[name] for name in wanted}

    problems = [f"Class {name!r} is not in the file.{_nearest(name, ids)}" for name in absent]
    if unasked and not subset:
        problems.append(f"Categories {unasked} of the file are not among the classes.")
    remedy = "Correct the names, or leave `classes` out to take all of the file."
    if not absent:
        remedy = "Add them, or say subset=True to use only the classes stated."
    raise InputError(
        f"classes and categories are matched by name. {' '.join(problems)} "
        f"Classes: {list(wanted)}. Categories in the file: {list(ids)}. {remedy}"
    )


def check(
    annotation_file: str | Path,
    image_dir: str | Path,
    classes: Iterable[str] | None = None,
    need_masks: bool = False,
    subset: bool = False,
    min_side: int = 0,
    need_objects: bool = True,
) -> Summary:
    """Find what would stop or spoil a training run, without opening an image.

    Mistakes that stop or spoil it are raised together in one InputError; what it can live with is
    in `Summary.warnings` and `Summary.notes`. Arguments are those of `examine`.

    Args:
        need_objects: whether a file without objects, as that of a test set, is a mistake.
    """
    summary, found = examine(annotation_file, image_dir, classes, need_masks, subset, min_side)
    if not need_objects:
        found = [finding for finding in found if finding.kind is not coco_counts.NOTHING_KEPT]
    for finding in found:
        if finding.kind is CLASSES_DIFFER:
            text = f"{annotation_file}: {finding.what} [{finding.kind.code}]"
            raise FoundError(text, found)
        if finding.kind is image_names.FOLDER_ABSENT and len(_errors(found)) == 1:
            require_folder(image_dir, "image folder")
    findings.refuse(annotation_file, found)
    return summary


def examine(
    annotation_file: str | Path,
    image_dir: str | Path,
    classes: Iterable[str] | None = None,
    need_masks: bool = False,
    subset: bool = False,
    min_side: int = 0,
) -> tuple[Summary, list[Finding]]:
    """Find all there is to say about a set, without opening an image.

    What is in the file is judged once for the same arguments and then known by its content; which
    images are there is asked each time, with one listing of each folder.

    Args:
        classes: names to train on; None for all of the file.
        need_masks: whether the model learns from segmentations.
        subset: whether the file may have categories beyond `classes`.
        min_side: images with a shorter side below it are not trained on (mmdet's
            filter_cfg.min_size).

    Raises:
        FoundError: the file cannot be read, or is none of this format.
    """
    coco = open_coco(annotation_file)
    wanted = classes if classes is None or isinstance(classes, str) else tuple(classes)
    arguments = (wanted, need_masks, subset, min_side)
    verdict = None
    if coco.cached:
        name = hashlib.blake2b(repr((arguments, _version())).encode(), digest_size=8).hexdigest()
        verdict = coco.cached.with_suffix(f".{name}.json")
        if (known := column_cache.load_json(verdict)) is not None:
            summary, found = _loaded(known, annotation_file)
            return _with_images(summary, found, coco, image_dir)
    summary, found = _judge(coco, annotation_file, *arguments)
    if verdict:
        content = dataclasses.asdict(summary) | {"files": ()}
        rows = [(f.kind.code, f.what, f.fix, f.ids) for f in found]
        column_cache.save_json(verdict, {"summary": content, "findings": rows})
    return _with_images(summary, found, coco, image_dir)


def classes_of_split(
    file: str | Path, classes: Sequence[str], first: str | Path, subset: bool = False
) -> tuple[tuple[str, ...], list[Finding]]:
    """Find which classes a second split lists, where one file lists all of the other and more.

    Where each lists a class that the other lacks, a name may be misspelt: `check` says so.

    Args:
        file: annotations of the split.
        classes: those of the first split.
        first: annotations of the first split.
        subset: whether the file may have categories beyond `classes`.

    Returns:
        the classes to look for, and what the files differ in.
    """
    listed = open_coco(file).categories.values()
    absent = [name for name in classes if name not in listed]
    more = [name for name in listed if name not in classes]
    if absent and not more:
        text = f"{first_names(absent)} of {first} are not among the categories of {file}."
        fix = "They are not judged there; export both with all categories if they should be."
        present = tuple(name for name in classes if name in listed)
        return present, [SPLIT_LACKS_CLASS.found(text, fix, file, absent)]
    if more and not absent and not subset:
        text = f"{first_names(more)} of {file} are not among the categories of {first}."
        fix = "They are not learnt and not judged; export both with all categories."
        return tuple(classes), [SPLIT_HAS_CLASS.found(text, fix, file, more)]
    return tuple(classes), []


def present_classes(wanted: Iterable[str], found: Mapping[Any, str]) -> dict[str, Any]:
    """Match the classes of a model with a set to evaluate on, whose file may list fewer.

    Returns:
        class name -> category id, without the classes that are absent.

    Raises:
        InputError: the file also lists a category that is no class: a name may be misspelt.
    """
    wanted, listed = tuple(wanted), set(found.values())
    if listed <= set(wanted):
        wanted = tuple(name for name in wanted if name in listed)
    return match_classes(wanted, found, subset=True)


def _with_images(
    summary: Summary, found: list[Finding], coco: CocoFile, image_dir: str | Path
) -> tuple[Summary, list[Finding]]:
    """Add what the folder of the images says."""
    names = image_names.find(image_dir, coco.file_names)
    summary.files = tuple(names.files)
    summary.warnings += [f.text for f in names.findings if f.severity == WARNING]
    summary.notes += [f.text for f in names.findings if f.kind in REPAIRED]
    return summary, found + names.findings


def _loaded(known: Any, file: str | Path) -> tuple[Summary, list[Finding]]:
    summary = Summary(**known["summary"] | {"annotation_file": str(file)})
    rows = known["findings"]
    return summary, [
        Finding(KINDS[c], what, fix, str(file), tuple(ids)) for c, what, fix, ids in rows
    ]


@functools.cache
def _version() -> str:
    """Return what changes when the check does: a hash of its sources."""
    digest = hashlib.blake2b(digest_size=8)
    for module in (
        coco_columns,
        coco_counts,
        coco_fields,
        coco_mask_problems,
        coco_masks,
        coco_problems,
        coco_rows,
    ):
        digest.update(Path(str(module.__file__)).read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def _errors(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.severity == ERROR]


def _judge(
    coco: CocoFile,
    annotation_file: str | Path,
    classes: Iterable[str] | None,
    need_masks: bool,
    subset: bool,
    min_side: int,
) -> tuple[Summary, list[Finding]]:
    """Judge what is in the file."""
    summary = Summary(str(annotation_file), images=len(coco), annotations=len(coco.ids))
    found = list(coco.findings)
    wanted = tuple(coco.categories.values()) if classes is None else classes
    try:
        names = match_classes(wanted, coco.categories, subset)
    except InputError as error:
        return summary, [*found, CLASSES_DIFFER.found(str(error), "", annotation_file, wanted)]
    found += coco_problems.link_findings(coco)
    if not _errors(found):
        place = {number: i for i, number in enumerate(coco.category_ids)}
        labels = np.full(len(coco.categories), -1)
        labels[[place[number] for number in names.values()]] = np.arange(len(names))
        found += _findings(coco, summary, labels[coco.category], list(names), need_masks, min_side)
    told = {*coco_problems.LEFT_OUT.values(), coco_problems.BEYOND_BOX, coco_problems.CORNERS}
    told |= {coco_counts.SMALL_IMAGE}
    summary.warnings += [f.text for f in found if f.severity == WARNING and f.kind not in told]
    summary.notes += [f.text for f in found if f.kind in REPAIRED]
    return summary, found


def _findings(
    coco: CocoFile,
    summary: Summary,
    label: np.ndarray,
    names: list[str],
    need_masks: bool,
    min_side: int,
) -> list[Finding]:
    """Count, and judge boxes, masks and classes; `label` (m,) is -1 for classes left out."""
    chosen = label >= 0
    best, trained = coco_counts.count(coco, summary, label, names, min_side)
    found = coco_problems.normalised(coco, chosen) or coco_counts.left_out_most(
        coco, summary, chosen
    )
    if not found:  # else the boxes are the cause
        found += coco_counts.nothing_kept(coco, summary, best, names, min_side)
    found += coco_mask_problems.size_findings(coco, chosen)
    if need_masks:
        found += coco_mask_problems.mask_findings(coco, trained)
    if any(finding.kind is coco_problems.NORMALISED for finding in found):
        return found  # whatever the boxes are else follows from it
    found += coco_problems.box_findings(coco, chosen, trained)
    found += coco_counts.class_findings(coco, summary, label, names)
    for of, where, text in (
        (
            coco_counts.NO_OBJECT,
            (best >= 0) & (best < coco_counts.KEPT),
            "images have no object to train on",
        ),
        (
            coco_counts.SMALL_IMAGE,
            best == coco_counts.SMALL,
            f"images are left out: a side below {min_side} pixels",
        ),
    ):
        if where.any():
            ids = [coco.image_ids[i] for i in np.flatnonzero(where)]
            found.append(of.found(f"{len(ids)} of {len(coco)} {text}.", "", coco.path, ids))
    hint = corner_hint(coco, chosen) if summary.outside_boxes else ""
    coco_counts.warn(summary, min_side, hint)
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    folded = {other.strip().casefold(): other for other in known}
    same = folded.get(name.strip().casefold())
    return f" Did you mean {same!r}?" if same else nearest(name, known)
