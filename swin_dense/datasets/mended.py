"""A corrected copy of a set: what is repaired whose meaning is certain, and nothing in place."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from swin_dense.datasets import image_names
from swin_dense.datasets.coco_file import open_coco
from swin_dense.datasets.images import DECODING_FAILED, open_image
from swin_dense.datasets.label_maps import IGNORE, LabelTable, read_label_map
from swin_dense.datasets.pixel_counts import counted
from swin_dense.errors import InputError

CHANGES = "changes.json"


def write(files: Mapping[str, tuple[Path, Path]], out: Path) -> list[str]:
    """Write each split's annotations, repaired, and links to its images; return lines to print.

    Written are values whose meaning is certain: byte-order marks gone, ids whole numbers or texts
    as the entries of the images have them, b'...' counts, polygons of three points or more, areas
    and iscrowd where they were absent, names as the files are called. Entries that cannot be used
    are left out and listed.

    Args:
        files: split -> annotation file and folder of images.
        out: a folder that is empty or not there.

    Raises:
        InputError: it holds something, or a file cannot be read.
    """
    if not files:
        raise InputError(
            "`fix` writes COCO instance annotations and label maps anew; this config has none."
        )
    lines, changes = [], {}
    _make_empty(out, "annotations")
    for split, (file, folder) in files.items():
        coco = open_coco(file)
        content = coco.as_dict()
        names = image_names.find(folder, coco.file_names)
        for entry, name in zip(content["images"], names.files, strict=True):
            entry["file_name"] = name
        for number, row in enumerate(content["annotations"], 1):
            row["id"] = number
        place = out / "annotations" / f"instances_{split}.json"
        place.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        images = _link(folder, out, split)
        findings = [*coco.findings, *names.findings]
        changes[split] = {
            "from": str(file),
            "objects": len(content["annotations"]),
            "left_out": len(coco.box) - len(content["annotations"]),
            "found": [finding.as_dict() for finding in findings],
        }
        lines.append(f"{place}: {len(content['annotations'])} objects; images linked as {images}")
    return [*lines, _write_changes(changes, out)]


def write_label_maps(
    sets: Mapping[str, tuple[Sequence[tuple[Path, Path]], Path, Path, LabelTable]], out: Path
) -> list[str]:
    """Write each split's label maps, repaired, and links to its images; return lines to print.

    Repaired are three equal channels, of which one is kept, and in a set of two classes the values
    0 and 255, which become 0 and 1. All other files are copied as they are.

    Args:
        sets: split -> image and label map of each pair, the folders of both, the table.
        out: a folder that is empty or not there.

    Raises:
        InputError: it holds something.
    """
    lines, changes = [], {}
    _make_empty(out, "label_maps")
    for split, (pairs, image_dir, label_dir, table) in sets.items():
        labels = [label for _, label in pairs]
        binary = _is_binary(labels, table)
        changed: dict[str, list[str]] = {}
        for label in labels:  # one at a time: a large set does not fit into memory
            raw, repairs = _raw(label)
            name = label.relative_to(label_dir)
            target = out / "label_maps" / split / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if raw is not None and binary and IGNORE in raw:
                raw, repairs = np.where(raw == IGNORE, 1, raw), [*repairs, "255 became 1"]
            if raw is not None and repairs:
                Image.fromarray(raw.astype(np.uint8)).save(target.with_suffix(".png"))
                changed[name.as_posix()] = repairs
            else:
                shutil.copyfile(label, target)
        images = _link(image_dir, out, split)
        changes[split] = {"from": str(label_dir), "label_maps": len(labels), "changed": changed}
        where = out / "label_maps" / split
        lines.append(f"{where}: {len(changed)} of {len(labels)} changed; images linked as {images}")
        if names := _names(table):
            (out / "classes.txt").write_text(names, encoding="utf-8")
    return [*lines, _write_changes(changes, out)]


def _is_binary(labels: Sequence[Path], table: LabelTable) -> bool:
    """Tell whether a set of two classes, of which 255 is none, has the values 0 and 255 alone."""
    if len(table.classes) != 2 or IGNORE not in table.ignore:
        return False
    values: set[int] = set()
    for label in labels:
        raw, _ = _raw(label)
        values.update([] if raw is None else counted(raw)[0])
    return values == {0, IGNORE}


def _names(table: LabelTable) -> str:
    """Return a table as the lines of a classes.txt, "" where one cannot say it."""
    known = {raw: table.classes[index] for raw, index in table.raw_to_index.items()}
    known |= dict.fromkeys(set(table.ignore) - {IGNORE}, "(ignored)")
    if table.values is not None or set(known) != set(range(len(known))):
        return ""
    return "".join(f"{known[raw]}\n" for raw in range(len(known)))


def _raw(label: Path) -> tuple[np.ndarray | None, list[str]]:
    """Read a label map, with what had to be repaired for that; None for one to copy as it is."""
    try:
        return read_label_map(label), []
    except InputError:
        pass
    with contextlib.suppress(InputError, *DECODING_FAILED):
        image = open_image(label.read_bytes(), str(label))
        if image.format not in ("JPEG", "WEBP") and image.mode == "RGB":
            channels = np.array(image)
            if not np.ptp(channels, axis=2).any():
                return channels[..., 0], ["one of three equal channels is kept"]
    return None, []


def _make_empty(out: Path, inside: str) -> None:
    """Make a folder and one inside, where there is nothing yet."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: `fix` writes into an empty folder; this is none. Name another.")
    (out / inside).mkdir(parents=True, exist_ok=True)


def _link(folder: Path, out: Path, split: str) -> Path:
    images = out / "images" / split
    images.parent.mkdir(exist_ok=True)
    os.symlink(folder.resolve(), images)
    return images


def _write_changes(changes: dict, out: Path) -> str:
    text = json.dumps(changes, indent=2, ensure_ascii=False, default=str)
    (out / CHANGES).write_text(text, encoding="utf-8")
    return f"what was changed: {out / CHANGES}"
