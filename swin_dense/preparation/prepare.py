"""Make a data root of a source: read, choose, divide, write aside, check, move into place.

The folder OUT.unfinished is worked in; OUT comes into being when all is written and checked. The
same command takes up an unfinished folder where it was left.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from swin_dense.datasets import (
    coco_layout,
    label_map_sets,
    label_maps,
    layouts,
    panoptic_sets,
    splits,
)
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError
from swin_dense.preparation import sources
from swin_dense.preparation.formats import FORMATS, LABEL_MAPS, Asked, recognised
from swin_dense.preparation.gathered import BACKGROUND, IGNORE, Gathered, Picture

NOTE = "prepared.json"
UNPACKED = ".unpacked"
PARTS = ("train", "val")
GROUPS = ("folder", "prefix")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """Say what to make of a source.

    Args:
        task: "instances" or "label-maps"; None for what the format is usually made into.
        subset: take this many images of each part, or before the division by `val_share`.
        val_share: of the images, for validation; None to keep the source's parts.
        seed: of the choice and the division.
        group_by: what images that stay together share: "folder", or the "prefix" of their name
            up to the last "_" or "-".
        classes: a file of names for label maps.
        link: make hard links of images instead of copies, where the disk is the same.
    """

    task: str | None = None
    subset: int | None = None
    val_share: float | None = None
    seed: int = 0
    group_by: str | None = None
    classes: Path | None = None
    link: bool = False


def prepare(kind: str, source: Path, out: Path, options: Options, say: Say = print) -> Path:
    """Make the data root `out`, which does not exist yet, of a source in a format of FORMATS.

    Raises:
        InputError: the source, or what was made of it, cannot be used; `out` is not empty.
    """
    form = FORMATS[kind]
    if options.task not in (None, *form.tasks):
        raise InputError(
            f"`task`: {kind} can be made into {' or '.join(form.tasks)}, not {options.task}."
        )
    _require_apart(source, out)
    work = out.with_name(f"{out.name}.unfinished")
    note = {
        "source": str(source.resolve()),
        "format": kind,
        "options": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in dataclasses.asdict(options).items()
        },
    }
    fresh = _begin(work, out, note, say)
    try:
        root = sources.opened(source, form.archives, work / UNPACKED, say)
        if kind == "custom":
            say(f"format: {recognised(root)}")
        apart = options.subset is not None or options.val_share is not None
        asked = Asked(options.task or (form.tasks[0] if len(form.tasks) == 1 else None), apart,
                      options.classes)  # fmt: skip
        gathered = form.read(root, asked)
        counts = _write(gathered, options, kind, work, say)
        _check(work, gathered, kind, options, say)
    except InputError:
        if fresh and not (work / UNPACKED).exists():
            shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work / UNPACKED, ignore_errors=True)
    content = {
        **note,
        "complete": True,
        "images": counts,
        "classes": list(gathered.classes),
        "left_out": dict(gathered.left_out),
        "notes": gathered.notes,
        "licence": "unknown: it is that of the source",
    }
    (work / NOTE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if out.exists():
        out.rmdir()
    os.replace(work, out)
    for what, count in gathered.left_out.items():
        say(f"left out: {count} {what}")
    for text in gathered.notes:
        say(f"note: {text}")
    return out


def _require_apart(source: Path, out: Path) -> None:
    inner, outer = out.resolve(), source.resolve()
    if inner == outer or (source.is_dir() and inner.is_relative_to(outer)):
        raise InputError(
            f"`out`: {out} lies in the source {source}, and a source is never changed. Name a "
            "folder outside of it."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"`out`: {out} is there already and not empty. Name a folder that does not exist yet, "
            "or remove this one."
        )


def _begin(work: Path, out: Path, note: dict[str, Any], say: Say) -> bool:
    """Make the folder to work in, or take it up; return whether it is new."""
    path = work / NOTE
    if not work.exists():
        work.mkdir(parents=True)
        path.write_text(json.dumps({**note, "complete": False}) + "\n", encoding="utf-8")
        return True
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    differs = [key for key in note if before.get(key, "absent") != note[key]]
    if differs:
        was = ", ".join(f"{key} {before.get(key, 'absent')}" for key in differs)
        raise InputError(
            f"`out`: {work} was left unfinished by another command ({was}). Run that one again to "
            "finish it, or remove the folder."
        )
    say(f"going on in {work}")
    return False


# Choosing and dividing.


def _parts(gathered: Gathered, options: Options, say: Say) -> dict[str, list[Picture]]:
    """Return the pictures of each part, after the division and the choice."""
    pictures = gathered.pictures
    stated = {p.part for p in pictures}
    if options.val_share is not None:
        if options.subset is not None:
            pictures = _some(gathered, pictures, options)
        shown = _classes_shown(gathered, pictures)
        groups = _groups(pictures, options.group_by)
        division = splits.divide(shown, options.val_share, options.seed, groups)
        parts = {
            "train": [pictures[i] for i in division.train],
            "val": [pictures[i] for i in division.val],
        }
        for names, part in ((division.only_train, "val"), (division.only_val, "train")):
            if names:
                say(f"warning: {part} lacks {first_names([str(n) for n in names], 10)}: no "
                    "division of these images has every class in both parts")  # fmt: skip
    elif "" in stated or stated != set(PARTS):
        raise InputError(
            f"the source has {len(pictures)} images and does not say which are for training and "
            "which for validation. Say which share is for validation, as `val_share` 0.2."
        )
    else:
        parts = {part: [p for p in pictures if p.part == part] for part in PARTS}
        if options.subset is not None:
            parts = {part: _some(gathered, some, options) for part, some in parts.items()}
    return parts


def _some(gathered: Gathered, pictures: list[Picture], options: Options) -> list[Picture]:
    """Choose as many as were asked for; all where there are fewer."""
    count = min(options.subset or len(pictures), len(pictures))
    shown = _classes_shown(gathered, pictures)
    return [pictures[i] for i in splits.subset(shown, count, options.seed)]


def _classes_shown(gathered: Gathered, pictures: list[Picture]) -> list[list[Any]]:
    if gathered.are_label_maps:
        return [np.unique(_label_map(p)).tolist() for p in pictures]
    return [[t.label for t in p.things if not t.crowd] for p in pictures]


def _groups(pictures: list[Picture], by: str | None) -> list[str] | None:
    if by is None:
        return None
    if by == "folder":
        return [Path(p.name).parent.as_posix() for p in pictures]
    stems = [p.name.rsplit(".", 1)[0] for p in pictures]
    return [stem[: max(stem.rfind("_"), stem.rfind("-"))] if {"_", "-"} & set(stem) else stem
            for stem in stems]  # fmt: skip


# Writing.


def _write(gathered: Gathered, options: Options, kind: str, work: Path, say: Say) -> dict[str, int]:
    """Write images and labels; return the images of each part."""
    place = _Placing(work, options.link)
    if gathered.files:
        say(f"{len(gathered.files):,} files, as they are")
        for path, name in gathered.files:
            place.file(path, name)
        return {}
    if options.task == LABEL_MAPS and not gathered.are_label_maps:
        _paint_all(gathered)
    parts = _parts(gathered, options, say)
    if not gathered.are_label_maps:
        _drop_unlearnt(gathered)
    for part, pictures in parts.items():
        folder = gathered.folders[part]
        for picture in pictures:
            name = f"images/{folder}/{picture.name}"
            if picture.data is not None:
                place.data(picture.data, name)
            elif picture.path is not None:
                place.file(picture.path, name)
        if gathered.are_label_maps:
            for picture in pictures:
                name = f"annotations/{folder}/{Path(picture.name).with_suffix('.png').as_posix()}"
                if picture.copied:
                    place.file(picture.copied, name)
                else:
                    _write_map(work / name, _label_map(picture))
        else:
            content = _content(gathered.classes, pictures)
            path = work / "annotations" / f"instances_{folder}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), encoding="utf-8")
    if gathered.table:
        (work / "classes.txt").write_text("".join(f"{n}\n" for n in gathered.table), "utf-8")
    return {part: len(pictures) for part, pictures in parts.items()}


@dataclasses.dataclass
class _Placing:
    """Put files into the folder: links of what was unpacked there, of others copies."""

    work: Path
    link: bool

    def file(self, path: Path, name: str) -> None:
        target = self.work / name
        if target.is_file() and target.stat().st_size == path.stat().st_size:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        real = path.resolve()
        if self.link or real.is_relative_to((self.work / UNPACKED).resolve()):
            try:
                os.link(real, target)
                return
            except OSError:  # another disk, or one without links: a copy is as good
                target.unlink(missing_ok=True)
        aside = target.with_name(f".{target.name}.part")
        shutil.copyfile(real, aside)
        os.replace(aside, target)

    def data(self, data: bytes, name: str) -> None:
        target = self.work / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _drop_unlearnt(gathered: Gathered) -> None:
    """Leave out shapes that LabelMe marks as no object of a class."""
    for picture in gathered.pictures:
        for name in (BACKGROUND, IGNORE):
            count = sum(t.label == name for t in picture.things)
            if count:
                gathered.left_out[f"shapes labelled {name}"] += count
        picture.things = [t for t in picture.things if t.label not in (BACKGROUND, IGNORE)]


def _content(classes: tuple[str, ...], pictures: list[Picture]) -> dict[str, Any]:
    """Return the pictures and their objects as COCO has them, ids from 1."""
    ids = {name: i for i, name in enumerate(classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, p in enumerate(pictures, 1):
        images.append({"id": number, "file_name": p.name, "height": p.height, "width": p.width})
        for t in p.things:
            entry: dict[str, Any] = {
                **t.more,
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": ids[t.label],
                "bbox": [round(v, 3) for v in t.box],
                "area": round(t.measure(p.height, p.width), 3),
                "iscrowd": int(t.crowd),
            }
            if t.masks is not None:
                entry["segmentation"] = t.masks
            annotations.append(entry)
    categories = [{"id": i, "name": name} for name, i in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _paint_all(gathered: Gathered) -> None:
    """Make a label map of each picture's objects, later ones over earlier: 0 is background."""
    if len(gathered.classes) > label_maps.MOST_CLASSES - 1:
        raise InputError(
            f"a label map holds {label_maps.MOST_CLASSES - 1} classes beside the background, the "
            f"source has {len(gathered.classes)}. Make it into instances."
        )
    gathered.table = gathered.classes = ("background", *gathered.classes)
    numbers = {name: i for i, name in enumerate(gathered.classes)}
    numbers |= {BACKGROUND: 0, IGNORE: label_maps.IGNORE}
    if all(t.masks is None for p in gathered.pictures for t in p.things):
        raise InputError("the source has boxes alone, and a label map needs outlines or masks.")
    for picture in gathered.pictures:
        picture.labels = _Painted(picture, numbers)


@dataclasses.dataclass
class _Painted:
    picture: Picture
    numbers: dict[str, int]

    def __call__(self) -> np.ndarray:
        p = self.picture
        labels = np.zeros((p.height, p.width), np.uint8)
        for t in p.things:
            number = label_maps.IGNORE if t.crowd else self.numbers[t.label]
            code = t.encoded(p.height, p.width)
            if isinstance(code["counts"], list):
                code = rle.frPyObjects(code, p.height, p.width)
            labels[rle.decode(code) != 0] = number
        return labels


def _label_map(picture: Picture) -> np.ndarray:
    if picture.copied:
        return label_maps.read_label_map(picture.copied)
    assert picture.labels is not None
    return picture.labels()


def _write_map(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    Image.fromarray(labels.astype(np.uint8)).save(aside, format="PNG")
    os.replace(aside, path)


# Checking.


def _check(work: Path, gathered: Gathered, kind: str, options: Options, say: Say) -> None:
    """Ask of what was written what a training would."""
    maps = gathered.are_label_maps or kind == "ade20k"
    layout = layouts.find(work, layouts.LABEL_MAPS if maps else layouts.INSTANCES)
    table = None
    if maps:
        table = label_maps.LabelTable(tuple(f"{i}" for i in range(1, 151)), None, 1, (0,))
        if gathered.table:
            table = label_maps.read_classes_file(work / "classes.txt")
    for part, split in layout.items():
        if table is not None:
            summary = label_map_sets.check(work / split.images, work / split.labels, table)
            said = summary.describe(table=part == "train")
            say(f"{part}: {said if gathered.table else said.splitlines()[0]}")
        else:
            found = coco_layout.check(work / split.labels, work / split.images)
            said = found.describe(table=part == "train").replace(f"{work}/", "")
            say(f"{part}: {said}")
        panoptic = work / split.labels.replace("instances_", "panoptic_")
        if not maps and panoptic.is_file() and "instances_" in split.labels:
            panoptic_sets.check(panoptic, work / split.images, panoptic.with_suffix(""))
