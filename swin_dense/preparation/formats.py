"""List the formats: how each is read, and which files its authors publish it as."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from swin_dense.datasets.images import SUFFIXES
from swin_dense.errors import InputError
from swin_dense.preparation import cityscapes, coco, cvat, labelme, maps, voc, yolo
from swin_dense.preparation.gathered import Gathered

INSTANCES, LABEL_MAPS = "instances", "label-maps"


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of a reader. `apart`: images are chosen, or parts made."""

    task: str | None = None
    apart: bool = False
    classes: Path | None = None


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Args:
        tasks: what it can be made into, the usual first.
        archives: patterns of the official archives' names; empty where there are none.
        read: (folder, what is asked) -> what was found.
    """

    tasks: tuple[str, ...]
    archives: tuple[str, ...]
    read: Callable[[Path, Asked], Gathered]


def _voc(root: Path, asked: Asked) -> Gathered:
    return voc.read_label_maps(root) if asked.task == LABEL_MAPS else voc.read(root)


def _cityscapes(root: Path, asked: Asked) -> Gathered:
    return cityscapes.read(root) if asked.task == INSTANCES else cityscapes.read_label_maps(root)


def _custom(root: Path, asked: Asked) -> Gathered:
    name = recognised(root)
    return FORMATS[name].read(root, asked) if name != "custom" else maps.read(root, asked.classes)


BOTH = (INSTANCES, LABEL_MAPS)
FORMATS: dict[str, Format] = {
    "coco": Format(
        BOTH,
        ("train2017.zip", "val2017.zip", "*annotations_trainval2017.zip", "stuffthingmaps_*.zip"),
        lambda root, asked: coco.read(root, asked.apart or asked.task == LABEL_MAPS),
    ),
    "ade20k": Format(
        (LABEL_MAPS,),
        ("ADEChallengeData2016.zip",),
        lambda root, asked: maps.read_ade20k(root, asked.apart),
    ),
    "voc": Format(BOTH, ("VOCtrainval_*.tar", "VOCtest_06-Nov-2007.tar"), _voc),
    "cityscapes": Format(
        (LABEL_MAPS, INSTANCES),
        ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"),
        _cityscapes,
    ),
    "yolo": Format(BOTH, (), lambda root, asked: yolo.read(root)),
    "labelme": Format(BOTH, (), lambda root, asked: labelme.read(root)),
    "cvat": Format(BOTH, (), lambda root, asked: cvat.read(root)),
    "custom": Format(BOTH, (), _custom),
}


def recognised(root: Path) -> str:
    """Say which format a folder is in, "custom" for images beside label maps.

    Raises:
        InputError: the signs of none, or of several, are there.
    """
    signs: dict[str, str] = {}
    xmls = [p for p in sorted(root.rglob("*.xml")) if not p.name.startswith(".")]
    for path in xmls[:1]:
        head = path.read_bytes()[:4000]
        kind = "cvat" if b"<annotations" in head else "voc" if b"<annotation" in head else ""
        if kind:
            signs[kind] = path.name
    for path in [p for p in sorted(root.rglob("*.json")) if p.name != "prepared.json"][:20]:
        kind = _kind_of_json(path)
        if kind:
            signs.setdefault(kind, path.name)
    yolo_signs = [root / "data.yaml", *sorted((root / "labels").rglob("*.txt"))]
    if there := [p for p in yolo_signs if p.is_file()]:
        signs["yolo"] = there[0].name
    if not signs:
        maps_there = any((root / name).is_dir() for name in ("masks", "label_maps", "annotations"))
        if maps_there:
            return "custom"
        raise InputError(
            f"{root}: none of the known formats: no JSON of COCO or LabelMe, no XML of VOC or "
            "CVAT, no data.yaml or labels/*.txt of YOLO, no masks/ beside images/ "
            f"({' '.join(SUFFIXES)}). Name the folder of the export itself."
        )
    if len(signs) > 1:
        listing = ", ".join(f"{kind} ({name})" for kind, name in signs.items())
        raise InputError(f"{root}: it could be {listing}. Name the format instead of custom.")
    return next(iter(signs))


def _kind_of_json(path: Path) -> str:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, OSError, RecursionError):
        return ""
    if not isinstance(content, dict):
        return ""
    if {"images", "annotations"} <= content.keys():
        return "coco"
    return "labelme" if "shapes" in content else ""
