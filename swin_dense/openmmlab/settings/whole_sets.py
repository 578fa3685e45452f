"""Divide a set whose labels are in one file, or one folder, for all images, in train and val.

The division is written into the work dir: split/{train,val}.json, annotation files as the set's
own, or split/{train,val}.txt, lists of label maps; split/split.json says how it was made. The
config points to them, so that whatever runs from it later, test and resume too, has the same.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from swin_dense.checkpoints import files
from swin_dense.datasets import coco_json, coco_layout, label_maps, layouts, panoptic_sets, splits
from swin_dense.datasets.paths import first_names
from swin_dense.errors import InputError
from swin_dense.openmmlab.settings.sections import LOADERS, datasets_of
from swin_dense.task import Task

FOLDER = "split"
NOTE = "split.json"
FAR = 0.05  # from the asked share, to be told


@dataclasses.dataclass(frozen=True)
class Share:
    """Say how to divide a set.

    Args:
        asked: the share of the images for validation; None where none was asked for.
        seed: of the division.
        work_dir: where it is written.
        resumed: the work dir of the run that goes on: its division stays.
    """

    asked: float | None
    seed: int
    work_dir: Path
    resumed: Path | None = None


def settle(config: Config, root: Path, share: Share) -> str | None:
    """Divide the set in `root`, as asked or as the resumed run did, and point the config to it.

    Returns:
        a line to print; None where nothing is to be divided.

    Raises:
        InputError: it is divided already, or holds no labels for all images, or the run that is
            resumed has another division.
    """
    before = _note(share.resumed) if share.resumed else None
    if share.asked is None and (before is None or before["data_root"] != str(root.resolve())):
        return None
    task = Task.of(config)
    known = layouts.INSTANCES
    if task in (Task.SEMANTIC, Task.PANOPTIC):
        known = layouts.LABEL_MAPS if task is Task.SEMANTIC else layouts.PANOPTIC
    whole = _whole(root, known)
    asked = {
        "data_root": str(root.resolve()),
        "labels": whole.labels,
        "images": whole.images,
        "val_share": share.asked if share.asked is not None else (before or {})["val_share"],
        "seed": (before or {}).get("seed", share.seed),
    }
    if before is not None and share.resumed is not None:
        _require_same(asked, before, share.resumed)
        found = _files(share.resumed, task)
        return _point(config, whole, task, found, before)
    found = _files(share.work_dir, task)
    if task is Task.SEMANTIC:
        counts, notes = _divide_maps(root, whole, asked, found)
    else:
        counts, notes = _divide_entries(root, whole, asked, found, task)
    content = {**asked, **counts}
    with files.replaced(share.work_dir / FOLDER / NOTE) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return "\n".join([_point(config, whole, task, found, content), *notes])


def _whole(root: Path, known: list[layouts.Layout]) -> layouts.Split:
    """Find labels for all images; a set that has both parts is not divided again."""
    if root.is_dir():
        try:
            layout = layouts.find(root, known)
        except InputError:
            pass
        else:
            train, val = layout["train"].labels, layout["val"].labels
            raise InputError(
                f"data root: {root} is divided already, into {train} and {val}. Leave `val_share` "
                "out to use these; to divide it anew, bring the labels into one file first."
            )
    else:
        layouts.find(root, known)  # says that there is no such folder
    whole = layouts.find_whole(root, known)
    if whole is None:
        what = "images/ and masks/" if known is layouts.LABEL_MAPS else "annotations.json + images/"
        raise InputError(
            f"data root: {root} has no labels for all images that `val_share` could divide: "
            f"{what} is looked for, or an export of CVAT, Roboflow or Label Studio."
        )
    return whole


def _files(work_dir: Path, task: Task) -> dict[str, Path]:
    suffix = ".txt" if task is Task.SEMANTIC else ".json"
    return {part: work_dir / FOLDER / f"{part}{suffix}" for part in ("train", "val")}


def _note(work_dir: Path) -> dict[str, Any] | None:
    path = work_dir / FOLDER / NOTE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _require_same(asked: dict[str, Any], before: dict[str, Any], work_dir: Path) -> None:
    for key, value in asked.items():
        if before[key] != value:
            raise InputError(
                f"`val_share`: the run in {work_dir} was divided with {key} {before[key]}, now it "
                f"is {value}; images of one part would move to the other. Resume it with the "
                "same, or start a new run in another work dir."
            )


def _point(
    config: Config, whole: layouts.Split, task: Task, found: dict[str, Path], note: dict[str, Any]
) -> str:
    """Point each loader to its part; return a line about the division."""
    for split in LOADERS:
        part = str(found["train" if split == "train" else "val"].resolve())
        for dataset in datasets_of(config, (split,)):
            dataset["ann_file"] = part
            if task is Task.SEMANTIC:
                dataset["data_prefix"] = dict(img_path=whole.images, seg_map_path=whole.labels)
            else:
                dataset["data_prefix"]["img"] = whole.images
            if task is Task.PANOPTIC:
                dataset["data_prefix"]["seg"] = whole.segments
    folder = found["train"].parent
    return (
        f"data: {note['data_root']} ({whole.labels} + {whole.images}/) divided: "
        f"{note['train']} images to train, {note['val']} to validate (share "
        f"{note['val_share']:g}, seed {note['seed']}); written to {folder}"
    )


def _divide_entries(
    root: Path, whole: layouts.Split, asked: dict[str, Any], found: dict[str, Path], task: Task
) -> tuple[dict[str, int], list[str]]:
    """Write an annotation file for each part; return the images in each, and warnings."""
    path, images = root / whole.labels, root / whole.images
    if task is Task.PANOPTIC:
        panoptic_sets.check(path, images, root / whole.segments)
    else:
        coco_layout.check(path, images)
    content = coco_json.load(path, panoptic=task is Task.PANOPTIC)
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    shown: dict[Any, set[str]] = {image["id"]: set() for image in content["images"]}
    for entry in content["annotations"]:
        for part in entry.get("segments_info", (entry,)):
            if not part.get("iscrowd"):
                shown[entry["image_id"]].add(names[part["category_id"]])
    division = splits.divide(list(shown.values()), asked["val_share"], asked["seed"])
    ids = list(shown)
    counts = {}
    for part, places in (("train", division.train), ("val", division.val)):
        chosen = {ids[i] for i in places}
        of_part = {
            **content,
            "images": [image for image in content["images"] if image["id"] in chosen],
            "annotations": [e for e in content["annotations"] if e["image_id"] in chosen],
        }
        with files.replaced(found[part]) as temporary:
            temporary.write_text(json.dumps(of_part), encoding="utf-8")
        counts[part] = len(chosen)
    return counts, _warnings(division, asked["val_share"])


def _divide_maps(
    root: Path, whole: layouts.Split, asked: dict[str, Any], found: dict[str, Path]
) -> tuple[dict[str, int], list[str]]:
    """Write a list of label maps for each part; return the images in each, and warnings."""
    pairs = label_maps.pair_files(root / whole.images, root / whole.labels)
    shown = [np.unique(label_maps.read_label_map(label)).tolist() for _, label in pairs]
    division = splits.divide(shown, asked["val_share"], asked["seed"])
    counts = {}
    for part, places in (("train", division.train), ("val", division.val)):
        names = [
            pairs[i][1].relative_to(root / whole.labels).with_suffix("").as_posix() for i in places
        ]
        with files.replaced(found[part]) as temporary:
            temporary.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        counts[part] = len(names)
    return counts, _warnings(division, asked["val_share"])


def _warnings(division: splits.Division, share: float) -> list[str]:
    lines = []
    found = len(division.val) / (len(division.train) + len(division.val))
    if abs(found - share) > FAR:
        lines.append(
            f"note: {found:.0%} of the images validate, not {share:.0%}: images are few, or "
            "so many are needed to have every class in both parts"
        )
    for classes, part in ((division.only_train, "val"), (division.only_val, "train")):
        if classes:
            lines.append(
                f"warning: no division of these images has every class in both parts; {part} lacks "
                f"{first_names([str(c) for c in classes], 10)}"
            )
    return lines
