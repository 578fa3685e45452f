"""A corrected copy of a COCO set: what reading repairs, written down, and nothing in place."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from swin_dense.datasets import image_names
from swin_dense.datasets.coco_file import open_coco
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
        raise InputError("`fix` writes COCO instance annotations anew; this config has none.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: `fix` writes into an empty folder; this is none. Name another.")
    lines, changes = [], {}
    (out / "annotations").mkdir(parents=True, exist_ok=True)
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
        images = out / "images" / split
        images.parent.mkdir(exist_ok=True)
        os.symlink(folder.resolve(), images)
        findings = [*coco.findings, *names.findings]
        changes[split] = {
            "from": str(file),
            "objects": len(content["annotations"]),
            "left_out": len(coco.box) - len(content["annotations"]),
            "found": [finding.as_dict() for finding in findings],
        }
        lines.append(f"{place}: {len(content['annotations'])} objects; images linked as {images}")
    (out / CHANGES).write_text(json.dumps(changes, indent=2, ensure_ascii=False, default=str))
    return [*lines, f"what was changed: {out / CHANGES}"]
